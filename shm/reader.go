package shm

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads the table at a path. It is safe for any number of goroutines. A
// generation that the reader has left stays mapped until the garbage collector
// finds that no Get and no Picture uses it.
type Reader struct {
	m    atomic.Pointer[mapping]
	path string     // empty in the writer's own reader, whose m the writer swaps
	mu   sync.Mutex // held to map the next generation
}

// Open maps the segment at path for reading. It fails with ErrNotSegment,
// ErrLayoutVersion or ErrCorrupt, or with the error of the file system.
//
// The file must not be truncated while it is mapped: the kernel would kill the
// process. Writers never do so.
func Open(path string) (*Reader, error) {
	m, err := mapFile(path, nil)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: path}
	r.m.Store(m)
	return r, nil
}

// Get appends the value of key at the applied index to dst. Nothing is allocated
// but what dst needs to grow. Without such a key, or after Close, it returns dst
// and false.
func (r *Reader) Get(dst, key []byte) (out []byte, ok bool) {
	m := r.current()
	if m == nil {
		return dst, false
	}
	value, ok := m.get(key, m.hdr.applied.Load())
	dst = append(dst, value...)
	runtime.KeepAlive(m)
	return dst, ok
}

// Picture returns the table as it is at the applied index. It costs the same for
// any size of table and holds up nobody. It fails with ErrClosed or ErrCorrupt.
func (r *Reader) Picture() (*Picture, error) {
	m := r.current()
	if m == nil {
		return nil, ErrClosed
	}
	c, ok := m.committed()
	if !ok {
		return nil, ErrCorrupt
	}
	return &Picture{m: m, c: c}, nil
}

// Header is what a segment says of itself.
type Header struct {
	Generation uint64    // number of the file; grows whenever it is replaced
	Applied    uint64    // last committed index; the next three belong to it
	StateHash  uint64    // equal wherever the content is equal
	Keys       uint64    // live keys
	Bytes      uint64    // of live keys and values
	Slots      uint64    // in the index by key
	ArenaBytes uint64    // size of the arena
	WriterPID  int       // 0: the writer has closed the segment in good order
	Heartbeat  time.Time // last sign of life of the writer; zero: none yet
}

// Header returns the header; Applied, StateHash, Keys and Bytes belong together.
// After Close, or if the segment is damaged, it is the zero Header.
func (r *Reader) Header() Header {
	m := r.current()
	if m == nil {
		return Header{}
	}
	defer runtime.KeepAlive(m)
	c, ok := m.committed()
	if !ok {
		return Header{}
	}
	h := Header{
		Generation: m.hdr.generation,
		Applied:    c.applied,
		StateHash:  c.hash,
		Keys:       c.keys,
		Bytes:      c.bytes,
		Slots:      uint64(len(m.slots)),
		ArenaBytes: m.end - m.arena,
		WriterPID:  int(m.hdr.writerPID.Load()),
	}
	if ns := m.hdr.heartbeat.Load(); ns != 0 {
		h.Heartbeat = time.Unix(0, int64(ns))
	}
	return h
}

// Close lets go of the segment. Pictures stay valid, and a Get that runs at the
// same time ends well. It always returns nil.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m.Store(nil)
	return nil
}

// current returns the newest generation, or nil after Close.
func (r *Reader) current() *mapping {
	m := r.m.Load()
	if m != nil && m.hdr.superseded.Load() != 0 {
		return r.follow(m)
	}
	return m
}

// follow returns the generation that superseded old. While the path has none,
// old's content is the newest there is: the writer commits nothing between
// marking a generation and renaming the next over it. The same holds for a
// writer that died in between, until another takes its place.
func (r *Reader) follow(old *mapping) *mapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.m.Load()
	if m != old || r.path == "" {
		return m
	}
	next, err := mapFile(r.path, old)
	if err != nil {
		return old
	}
	if next != old {
		r.m.Store(next)
		retire(old)
	}
	return next
}

// mapFile maps the segment at path read-only, or returns old if that is what
// lies there.
func mapFile(path string, old *mapping) (*mapping, error) {
	// O_NONBLOCK: a pipe at this path must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() < headerSize {
		return nil, fmt.Errorf("%s: %w", path, ErrNotSegment)
	}
	if old != nil && os.SameFile(old.file, info) {
		return old, nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	m, err := newMapping(data)
	if err != nil {
		unmap(data)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.file = info
	runtime.AddCleanup(m, unmap, data)
	return m, nil
}

// unmap ignores the error: it can only be a slice that was never mapped.
func unmap(data []byte) { _ = unix.Munmap(data) }
