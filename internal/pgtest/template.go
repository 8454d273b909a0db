package pgtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// template gives a data directory made by initdb with these arguments. It is made once and then only copied: initdb
// takes a second, a copy a twentieth of it. A directory under its final name is complete, since it gets that name last.
func template(acc account, parent, bin, password string, args []string) (string, error) {
	if err := templateParent(acc, parent); err != nil {
		return "", err
	}
	initdb := filepath.Join(bin, "initdb")
	version, err := exec.Command(initdb, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", initdb, err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s\x00%s", version, acc.uid, password, strings.Join(args, "\x00")))
	path := filepath.Join(parent, hex.EncodeToString(sum[:8]))
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	half := path + ".half" // ours by the lock; one left by a killed process is made again
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := acc.mkdir(half); err != nil {
		return "", err
	}
	if err := runInitdb(acc, initdb, half, password, args); err != nil {
		return "", err
	}
	return path, os.Rename(half, path)
}

func runInitdb(acc account, initdb, dir, password string, args []string) error {
	pwfile := dir + ".password"
	if err := os.WriteFile(pwfile, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(pwfile) }()
	if err := os.Chown(pwfile, acc.uid, acc.gid); err != nil {
		return err
	}
	args = append([]string{"--pgdata", dir, "--username", Superuser, "--pwfile", pwfile, "--no-sync"}, args...)
	cmd := acc.command(dir, initdb, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, &out)
	}
	return nil
}

// templateParent makes the shared directory, and refuses one that somebody else put in its place.
func templateParent(acc account, parent string) error {
	if err := os.Mkdir(parent, 0o711); err != nil && !os.IsExist(err) {
		return err
	}
	info, err := os.Lstat(parent)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that belongs to user %d alone: remove it", parent, os.Geteuid())
	}
	if !acc.reachable(parent) {
		return fmt.Errorf("the user that PostgreSQL runs as cannot reach %s: choose another directory", parent)
	}
	return nil
}

// defaultTemplates is where templates are kept from one run to the next.
func defaultTemplates(acc account) string {
	parent := os.TempDir()
	if !acc.reachable(parent) {
		parent = "/tmp"
	}
	return filepath.Join(parent, "raftproxy-pgtest-"+strconv.Itoa(os.Geteuid()))
}

// lock takes an advisory lock that the kernel drops with the process.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// copyTree copies a data directory with its owners and modes; the file system shares the blocks where it can.
func copyTree(from, to string) error {
	out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, bytes.TrimSpace(out))
	}
	return nil
}
