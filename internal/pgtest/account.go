package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is whom the server programs run as; nil credentials are this process's own.
type account struct {
	uid, gid   int
	credential *syscall.Credential
}

// serverAccount is this process's own account, but PostgreSQL refuses to run as root: then it is the account "postgres".
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, errors.New("PostgreSQL does not run as root and there is no user \"postgres\" to run it as: " +
			"install the server, on Debian with: apt-get install postgresql")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, err
	}
	return account{uid: int(uid), gid: int(gid), credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// command prepares a server program that runs as the account, in dir, with an environment that no PG… variable of the
// caller reaches.
func (a account) command(dir, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "HOME="+dir)
	return cmd
}

// mkdir makes a directory that belongs to the account and to nobody else.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chown(path, a.uid, a.gid)
}

// reachable says whether the account can pass through every directory above and including dir.
func (a account) reachable(dir string) bool {
	if a.credential == nil {
		return true
	}
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		through := info.Mode()&0o001 != 0 || int(st.Uid) == a.uid && info.Mode()&0o100 != 0
		if !through {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}

// maxSocketDir leaves room for "/.s.PGSQL.65535.lock" in the 107 bytes of a unix socket's path.
const maxSocketDir = 107 - len("/.s.PGSQL.65535.lock")

// tempDir makes a directory in parent, or where that is empty in the usual place for temporary files. It falls back to
// /tmp where the server could not reach the place or a socket's path in it would be too long.
func (a account) tempDir(parent string) (string, error) {
	if parent != "" {
		if !a.reachable(parent) {
			return "", fmt.Errorf("the user that PostgreSQL runs as cannot reach %s: choose another directory", parent)
		}
		return makeTemp(parent)
	}
	parent = os.TempDir()
	if !a.reachable(parent) || len(parent)+len("/raftproxy-pg1234567890/s") > maxSocketDir {
		parent = "/tmp"
	}
	return makeTemp(parent)
}

// makeTemp makes a directory that others may pass through but not list.
func makeTemp(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "raftproxy-pg")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}
