package shm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of a Writer.
var (
	ErrLocked   = errors.New("segment has another live writer")
	ErrTooLarge = errors.New("key or value is too large for a segment")
	ErrIndex    = errors.New("index is not after the ones before it")
	ErrDir      = errors.New("segment's directory belongs to another user")
)

const (
	defaultArena = 1 << 20
	defaultSlots = 1024
	pageSize     = 4096
	defaultMode  = 0o640
	dirMode      = 0o750
)

// Options say where a segment lies and how large it starts.
type Options struct {
	Path       string      // of the segment file; its directory is created
	ArenaBytes int         // first and least size of the arena; 0: 1 MiB
	Slots      int         // first and least number of slots; 0: 1024; rounded up to a power of two
	Mode       fs.FileMode // permissions of the file; 0: 0640

	seed      uint64                                        // of the key hash; 0: random
	newMemory func(generation, size uint64) (memory, error) // nil: a file
}

// Writer is the only writer of a segment. Its methods must not be called
// concurrently with each other, but for Applied, Picture, Reader and Heartbeat,
// which are safe at any time from any goroutine.
type Writer struct {
	o      Options
	lock   *os.File
	r      *Reader // for this process; its mapping is t.m
	t      *table
	gen    uint64 // the highest number given to a generation
	closed bool
}

// Create makes an empty segment at o.Path. A segment that a dead or closed
// writer left there is superseded, so that its readers come over. It fails with
// ErrLocked while another writer has the segment open, with ErrNotSegment if
// something else lies at o.Path, with ErrDir if another user than root could
// replace the file, and with ErrNoSpace.
func Create(o Options) (*Writer, error) {
	o.setDefaults()
	dir := filepath.Dir(o.Path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockFile(o.Path+".lock", o.Mode)
	if err != nil {
		return nil, err
	}
	w := &Writer{o: o, lock: lock, r: new(Reader)}
	if err := w.start(); err != nil {
		lock.Close()
		return nil, err
	}
	return w, nil
}

func (o *Options) setDefaults() {
	if o.ArenaBytes <= 0 {
		o.ArenaBytes = defaultArena
	}
	if o.Slots <= 0 {
		o.Slots = defaultSlots
	}
	o.Slots = int(powerOfTwo(uint64(max(o.Slots, minSlots))))
	if o.Mode == 0 {
		o.Mode = defaultMode
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	if o.newMemory == nil {
		path, mode := o.Path, o.Mode
		o.newMemory = func(generation, size uint64) (memory, error) {
			return createFile(nextName(path, generation), path, int64(size), mode)
		}
	}
}

// lockFile takes the lock that the kernel drops when its holder dies.
func lockFile(name string, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, noSpace(err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	return nil, &os.PathError{Op: "flock", Path: name, Err: err}
}

// start puts the first generation of this writer in the place of what lies there.
func (w *Writer) start() error {
	removeLeftovers(w.o.Path)
	stale, err := openStale(w.o.Path)
	if err != nil {
		return err
	}
	defer stale.close()
	w.gen = stale.generation()
	t, err := w.build(uint64(w.o.Slots), 0)
	if err != nil {
		return err
	}
	stale.supersede(1)
	if err := t.mem.publish(); err != nil {
		stale.supersede(0)
		t.mem.release()
		return err
	}
	w.t = t
	w.r.m.Store(t.m)
	return nil
}

// build makes an unpublished generation with room for carried bytes and as much
// again. The room costs no memory before it is used.
func (w *Writer) build(slots, carried uint64) (*table, error) {
	arena := max(uint64(w.o.ArenaBytes), 2*carried)
	size := (headerSize + slots*8 + arena + pageSize - 1) &^ (pageSize - 1)
	w.gen++
	mem, err := w.o.newMemory(w.gen, size)
	if err != nil {
		return nil, err
	}
	t, err := newTable(mem, w.gen, w.o.seed, slots)
	if err != nil {
		mem.release()
		return nil, err
	}
	t.m.hdr.writerPID.Store(uint64(os.Getpid()))
	if w.t != nil {
		t.m.hdr.heartbeat.Store(w.t.m.hdr.heartbeat.Load())
	}
	return t, nil
}

// grow builds an unpublished generation from what is live in t, with room for a
// record of need bytes.
func (w *Writer) grow(t *table, need uint64) (*table, error) {
	offs, keys, size := t.carried()
	slots := max(uint64(w.o.Slots), powerOfTwo(2*(keys+1)))
	next, err := w.build(slots, size+need)
	if err != nil {
		return nil, err
	}
	if err := next.carry(t, offs); err != nil {
		next.mem.release()
		return nil, err
	}
	return next, nil
}

// switchTo makes next the generation in force. The mark comes before the rename:
// should this process die in between, readers keep looking at the path and find
// what the next writer puts there. The other way round they would never look.
func (w *Writer) switchTo(next *table) error {
	old := w.t
	old.m.hdr.superseded.Store(1)
	if err := next.mem.publish(); err != nil {
		old.m.hdr.superseded.Store(0)
		next.mem.release()
		return err
	}
	w.r.m.Store(next.m)
	w.t = next
	old.mem.release()
	retire(old.m)
	return nil
}

// Set puts a value in force at index, which must be greater than the applied
// index and not less than that of any call before (ErrIndex). Readers see it
// once Commit was called with this index or a later one; of several calls with
// one key and index the last one counts. key and value are copied. After an
// error (ErrTooLarge, ErrNoSpace, ErrClosed, or one of the file system) the table
// is as it was, and the call may be repeated.
func (w *Writer) Set(index uint64, key, value []byte) error {
	if len(key) > MaxKeyBytes || len(value) > MaxValueBytes {
		return ErrTooLarge
	}
	return w.set(index, key, value, 0)
}

// Delete takes a key away at index, with the rules and errors of Set. It reports
// whether the key existed, counting what is not committed yet.
func (w *Writer) Delete(index uint64, key []byte) (existed bool, err error) {
	if err := w.check(index); err != nil {
		return false, err
	}
	if _, r := w.t.newest(key); r == nil {
		return false, nil
	}
	if err := w.set(index, key, nil, tombstone); err != nil {
		return false, err
	}
	return true, nil
}

func (w *Writer) check(index uint64) error {
	if w.closed {
		return ErrClosed
	}
	if committed := w.t.pending[0].applied; index <= committed || index < w.t.latest().applied {
		return fmt.Errorf("%w: %d after %d", ErrIndex, index, w.t.latest().applied)
	}
	return nil
}

func (w *Writer) set(index uint64, key, value []byte, flag uint32) error {
	if err := w.check(index); err != nil {
		return err
	}
	t := w.t
	err := t.set(index, key, value, flag)
	if err == errFull {
		var next *table
		if next, err = w.grow(t, sizeOf(uint64(len(key)), uint64(len(value)))); err != nil {
			return err
		}
		if err = w.switchTo(next); err != nil {
			return err
		}
		err = next.set(index, key, value, flag)
	}
	// key and value may be slices that Get took from t.
	runtime.KeepAlive(t.m)
	return err
}

// Commit publishes index as the applied index, and with it everything that was
// set at it or before. An index that is not greater than the applied one changes
// nothing.
func (w *Writer) Commit(index uint64) {
	if !w.closed {
		w.t.commit(index)
	}
}

// Applied returns the last committed index.
func (w *Writer) Applied() uint64 {
	m := w.r.m.Load()
	applied := m.hdr.applied.Load()
	runtime.KeepAlive(m)
	return applied
}

// Stats describe the table with everything that was set, committed or not.
type Stats struct {
	Keys       int    // live keys
	Bytes      uint64 // of live keys and values
	Generation uint64 // number of the file
	Applied    uint64 // last committed index
	StateHash  uint64 // of the content
	Used       uint64 // bytes of the file in use, dead records included
}

// Stats costs the same for any size of table.
func (w *Writer) Stats() Stats {
	c := w.t.latest()
	return Stats{
		Keys:       int(c.keys),
		Bytes:      c.bytes,
		Generation: w.t.m.hdr.generation,
		Applied:    w.t.pending[0].applied,
		StateHash:  c.hash,
		Used:       w.t.used,
	}
}

// Get returns the latest value of key, committed or not. The slice is valid
// until the next call that changes the table, and must not be written.
func (w *Writer) Get(key []byte) (value []byte, ok bool) {
	off, r := w.t.newest(key)
	if r == nil {
		return nil, false
	}
	return w.t.m.value(off, r), true
}

// Picture returns the table as it is at the applied index.
func (w *Writer) Picture() *Picture {
	p, err := w.r.Picture()
	if err != nil {
		panic(err) // somebody else has written into our segment
	}
	return p
}

// Reader returns a reader for this process, which needs no mapping of its own.
// It is always the same one, must not be closed, and keeps working after the
// Writer was closed.
func (w *Writer) Reader() *Reader { return w.r }

// Replace puts what next yields in the place of the whole table, at applied index
// index, as restoring a snapshot does. next returns io.EOF after the last key;
// its slices are copied before it is called again. Readers see all of the old or
// all of the new content. After another error the old content stays, with what
// was not committed.
func (w *Writer) Replace(index uint64, next func() (key, value []byte, err error)) error {
	if w.closed {
		return ErrClosed
	}
	t, err := w.build(uint64(w.o.Slots), 0)
	if err != nil {
		return err
	}
	for {
		key, value, err := next()
		if err == io.EOF {
			break
		}
		if err == nil {
			t, err = w.load(t, key, value)
		}
		if err != nil {
			t.mem.release()
			return err
		}
	}
	t.pending[0] = t.latest()
	t.pending = t.pending[:1]
	t.pending[0].applied = index
	t.publishCounters()
	return w.switchTo(t)
}

// load sets a key in a generation that nobody reads yet, or in a larger one that
// takes its place. The records carry index 0, so they are in force at any.
func (w *Writer) load(t *table, key, value []byte) (*table, error) {
	if len(key) > MaxKeyBytes || len(value) > MaxValueBytes {
		return t, ErrTooLarge
	}
	err := t.set(0, key, value, 0)
	if err != errFull {
		return t, err
	}
	next, err := w.grow(t, sizeOf(uint64(len(key)), uint64(len(value))))
	if err != nil {
		return t, err
	}
	t.mem.release()
	return next, next.set(0, key, value, 0)
}

// Heartbeat stores a sign of life for readers in other processes.
func (w *Writer) Heartbeat(now time.Time) {
	m := w.r.m.Load()
	m.hdr.heartbeat.Store(uint64(now.UnixNano()))
	runtime.KeepAlive(m)
}

// Close gives the segment up to the next writer. The file stays, and so do
// readers in all processes, with the content that was committed.
func (w *Writer) Close() error {
	if w.closed {
		return ErrClosed
	}
	w.closed = true
	w.t.m.hdr.writerPID.Store(0)
	w.t.mem.release()
	return w.lock.Close()
}

func powerOfTwo(n uint64) uint64 { return 1 << bits.Len64(n-1) }
