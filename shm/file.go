package shm

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNoSpace means that the file system of the segment has no room for what
// should be written. It wraps the error of the system call.
var ErrNoSpace = errors.New("no space for the shared-memory segment")

// backStep is how much room is claimed at a time. Small steps keep the memory
// in use near what is needed, and let each call end before a signal interrupts it.
const backStep = 1 << 20

// file is a generation under construction, and the one the writer works in. It
// lies under a name of its own until it is published.
type file struct {
	f      *os.File
	data   []byte
	backed uint64
	kept   bool   // data lives as long as a mapping
	name   string // "" once it is published
	target string
}

// createFile makes a file of zeros at name, to be published at target.
func createFile(name, target string, size int64, mode os.FileMode) (_ *file, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, noSpace(err)
	}
	mem := &file{f: f, name: name, target: target}
	defer func() {
		if err != nil {
			mem.release()
		}
	}()
	// The umask must not decide who may read.
	if err := f.Chmod(mode); err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, noSpace(err)
	}
	mem.data, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: name, Err: err}
	}
	return mem, nil
}

func (m *file) bytes() []byte { return m.data }

// back claims blocks, since a file of the right length has none yet.
func (m *file) back(end uint64) error {
	for m.backed < end {
		n := min(backStep, uint64(len(m.data))-m.backed)
		err := unix.Fallocate(int(m.f.Fd()), 0, int64(m.backed), int64(n))
		if err == unix.EINTR {
			continue
		}
		if err == unix.EOPNOTSUPP {
			_, err = m.f.WriteAt(make([]byte, n), int64(m.backed))
		}
		if err != nil {
			return noSpace(&os.PathError{Op: "fallocate", Path: m.target, Err: err})
		}
		// One call instead of a page fault every 4 KiB; it may fail on an old kernel.
		_ = unix.Madvise(m.data[m.backed:m.backed+n], unix.MADV_POPULATE_WRITE)
		m.backed += n
	}
	return nil
}

func (m *file) publish() error {
	if err := os.Rename(m.name, m.target); err != nil {
		return noSpace(err)
	}
	m.name = ""
	return nil
}

func (m *file) keepFor(mapped *mapping) {
	m.kept = true
	runtime.AddCleanup(mapped, unmap, m.data)
}

func (m *file) release() {
	m.f.Close()
	if !m.kept && m.data != nil {
		unmap(m.data)
	}
	if m.name != "" {
		os.Remove(m.name)
	}
}

// noSpace marks the errors of a full file system, quota or file size limit.
func noSpace(err error) error {
	for _, errno := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	return err
}
