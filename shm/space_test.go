package shm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fill sets keys at index 1 until a set fails, and returns how many there are.
func fill(w *Writer) (n int, err error) {
	value := make([]byte, 1000)
	for ; err == nil; n++ {
		err = w.Set(1, fmt.Appendf(nil, "key%d", n), value)
	}
	return n - 1, err
}

// checkFull checks that a table without space is whole and still serves.
func checkFull(w *Writer, n int, err error) error {
	if !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("the error is %v", err)
	}
	w.Commit(1)
	p := w.Picture()
	content := map[string]string{}
	for k, v := range p.Unordered() {
		content[string(k)] = string(v)
	}
	if hash, size := stateHash(content); p.Len() != n || len(content) != n || p.StateHash() != hash || p.Bytes() != size {
		return fmt.Errorf("%d sets, %d keys listed, %d counted", n, len(content), p.Len())
	}
	if err := w.Set(2, []byte("large"), make([]byte, 4<<20)); !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("a large set: %v", err)
	}
	return nil
}

// limitedMemory is memory in a file system with room for so many bytes more.
type limitedMemory struct {
	memory
	room   *int
	backed uint64
}

func (m *limitedMemory) back(end uint64) error {
	if end <= m.backed {
		return nil
	}
	if need := int(end - m.backed); need > *m.room {
		return noSpace(&os.PathError{Op: "fallocate", Path: "table", Err: unix.ENOSPC})
	} else {
		*m.room -= need
	}
	m.backed = end
	return m.memory.back(end)
}

func TestNoSpaceInjected(t *testing.T) {
	o, room := small(t), 100_000
	path := o.Path
	o.newMemory = func(generation, size uint64) (memory, error) {
		mem, err := createFile(nextName(path, generation), path, int64(size), defaultMode)
		return &limitedMemory{memory: mem, room: &room}, err
	}
	w := create(t, o)
	r := open(t, path)
	n, err := fill(w)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the cause is lost: %v", err)
	}
	if err := checkFull(w, n, err); err != nil {
		t.Fatal(err)
	}
	i := 0
	err = w.Replace(5, func() ([]byte, []byte, error) {
		i++
		return fmt.Append(nil, i), make([]byte, 1000), nil
	})
	if err := checkFull(w, n, err); err != nil {
		t.Fatal("after Replace: ", err)
	}
	onlyFiles(t, path)

	room = 1 << 30
	mustSet(t, w, 2, "more", "space")
	w.Commit(2)
	if get(r, "more") != "space" || get(r, "key0") == "-" {
		t.Error("no set after space came back")
	}
}

// stuckMemory cannot be published.
type stuckMemory struct{ memory }

var errStuck = errors.New("cannot rename")

func (stuckMemory) publish() error { return errStuck }

// TestPublishFails: a generation that cannot take its place changes nothing.
func TestPublishFails(t *testing.T) {
	o, stuck := small(t), false
	path := o.Path
	o.newMemory = func(generation, size uint64) (memory, error) {
		mem, err := createFile(nextName(path, generation), path, int64(size), defaultMode)
		if stuck {
			return stuckMemory{mem}, err
		}
		return mem, err
	}
	w := create(t, o)
	mustSet(t, w, 1, "key", "value")
	w.Commit(1)
	stuck = true
	if err := w.Set(2, []byte("large"), make([]byte, 5000)); err != errStuck {
		t.Errorf("Set: %v", err)
	}
	if err := w.Replace(2, func() ([]byte, []byte, error) { return nil, nil, io.EOF }); err != errStuck {
		t.Errorf("Replace: %v", err)
	}
	if w.t.m.hdr.superseded.Load() != 0 {
		t.Error("the generation that stays is marked superseded")
	}
	onlyFiles(t, path)
	want(t, w.Picture(), 1, "key=value ")
	stuck = false
	mustSet(t, w, 2, "large", string(make([]byte, 5000)))
	w.Commit(2)
	if got := get(open(t, path), "key"); got != "value" {
		t.Errorf("after the trouble: %q", got)
	}
}

// childTmpfs fills a small file system, which goes when its mount namespace does.
func childTmpfs(path string) error {
	dir := filepath.Dir(path)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		fmt.Println("cannot mount: ", err)
		return nil
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		return err
	}
	w, err := Create(Options{Path: path})
	if err != nil {
		return err
	}
	n, err := fill(w)
	if err := checkFull(w, n, err); err != nil {
		return err
	}
	large := func() ([]byte, []byte, error) { return nil, make([]byte, 8<<20), nil }
	if err := w.Replace(3, large); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("Replace: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := w.Replace(3, func() ([]byte, []byte, error) { return nil, nil, io.EOF }); err != nil {
		return fmt.Errorf("Replace in a file system with space: %v", err)
	}
	if err := w.Set(4, []byte("more"), []byte("space")); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if len(entries) != 2 {
		return fmt.Errorf("files left: %v, %v", entries, err)
	}
	fmt.Println("done")
	return nil
}

func TestNoSpaceOnTmpfs(t *testing.T) {
	attr := &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags = unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	c := newChild("tmpfs", filepath.Join(t.TempDir(), "table"))
	c.SysProcAttr = attr
	out, err := c.Output()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || strings.HasPrefix(string(out), "cannot mount") {
		t.Skipf("no mount in this sandbox: %v %s", err, out)
	}
	if err != nil || string(out) != "done\n" {
		t.Errorf("%s%v: %s", out, err, &c.err)
	}
}

// childFileLimit runs under a limit of the file size, which needs no root.
func childFileLimit(path string) error {
	const limit = 3 << 20
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	w, err := Create(Options{Path: path})
	if err != nil {
		return err
	}
	n, err := fill(w)
	return checkFull(w, n, err)
}

func TestNoSpaceUnderFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	startChild(t, "file-limit", path).wait(t)
	onlyFiles(t, path)
}
