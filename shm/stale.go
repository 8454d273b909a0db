package shm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stale is a segment of a writer that has gone. nil: there is none.
type stale struct {
	data []byte
	hdr  *header
}

// openStale opens what lies at path, of whatever layout version. It refuses to
// let a file be replaced that is not ours; an empty one or one of zeros may be
// what a crashed machine left of a segment.
func openStale(path string) (*stale, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrNotSegment)
	}
	start := make([]byte, min(info.Size(), 8))
	if _, err := f.ReadAt(start, 0); err != nil {
		return nil, err
	}
	if strings.Trim(string(start), "\x00") == "" {
		return nil, nil
	}
	if info.Size() < headerSize {
		return nil, fmt.Errorf("%s: %w", path, ErrNotSegment)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, headerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	s := &stale{data: data, hdr: (*header)(unsafe.Pointer(unsafe.SliceData(data)))}
	if s.hdr.magic != magic {
		s.close()
		return nil, fmt.Errorf("%s: %w", path, ErrNotSegment)
	}
	return s, nil
}

func (s *stale) generation() uint64 {
	if s == nil {
		return 0
	}
	return s.hdr.generation
}

func (s *stale) supersede(flag uint64) {
	if s != nil {
		s.hdr.superseded.Store(flag)
	}
}

func (s *stale) close() {
	if s != nil {
		unmap(s.data)
	}
}

// nextName is where a generation is built before it is published.
func nextName(path string, generation uint64) string {
	return nextPrefix(path) + strconv.FormatUint(generation, 10)
}

func nextPrefix(path string) string { return path + ".next-" }

// removeLeftovers removes generations that a writer built and did not live to
// publish. Only the holder of the lock may call it.
func removeLeftovers(path string) {
	dir := filepath.Dir(path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if name := filepath.Join(dir, e.Name()); strings.HasPrefix(name, nextPrefix(filepath.Clean(path))) {
			os.Remove(name)
		}
	}
}

// checkDir refuses a directory in which another user could replace the segment,
// such as one that somebody made beforehand under /dev/shm.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return fmt.Errorf("%s: %w: uid %d", dir, ErrDir, owner)
	}
	return nil
}
