package shm

import (
	"errors"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// errFull says that a record does not fit into this generation.
var errFull = errors.New("generation is full")

// memory is where a generation is built.
type memory interface {
	bytes() []byte
	// back makes sure that the bytes before end can be written to: without
	// that a full file system would kill the process.
	back(end uint64) error
	// publish makes this the generation that readers find.
	publish() error
	// keepFor keeps the bytes valid as long as m is referenced.
	keepFor(m *mapping)
	// release drops what the writer alone needs, and everything if it was not
	// published. What is kept for a mapping stays valid.
	release()
}

// table is one generation as its writer sees it.
type table struct {
	m      *mapping
	mem    memory
	used   uint64 // offset of the first free byte of the arena
	slots  int    // in use
	active int    // the copy of the counters in force

	// The committed counters, and those of every index not committed yet.
	pending []counters
}

// newTable prepares an empty generation in mem, of which all bytes are zero.
func newTable(mem memory, generation, seed, slots uint64) (*table, error) {
	arena := headerSize + slots*8
	if err := mem.back(arena); err != nil {
		return nil, err
	}
	data := mem.bytes()
	hdr := (*header)(unsafe.Pointer(unsafe.SliceData(data)))
	hdr.magic = magic
	hdr.layout = LayoutVersion
	hdr.headerSize = headerSize
	hdr.generation = generation
	hdr.seed = seed
	hdr.slotCount = slots
	hdr.arenaOffset = arena
	hdr.arenaSize = uint64(len(data)) - arena
	m, err := newMapping(data)
	if err != nil {
		return nil, err
	}
	mem.keepFor(m)
	return &table{m: m, mem: mem, used: arena, pending: make([]counters, 1, 4)}, nil
}

// latest returns the counters with everything that was set, committed or not.
func (t *table) latest() counters { return t.pending[len(t.pending)-1] }

// newest returns the newest record of key, or nil if key is not in the table.
func (t *table) newest(key []byte) (uint64, *record) {
	_, off, _ := t.m.locate(key, hashKey(t.m.seed, key))
	if r := t.m.record(off); r != nil && r.live() {
		return off, r
	}
	return 0, nil
}

// set puts a value, or a tombstone, in force at index.
func (t *table) set(index uint64, key, value []byte, flag uint32) error {
	r, err := t.put(index, key, value, flag)
	if err != nil {
		return err
	}
	c := t.latest()
	if before := t.m.record(r.prev); before != nil && before.live() {
		c.hash -= before.content
		c.keys--
		c.bytes -= uint64(before.keyLen) + uint64(before.valueLen)
	}
	if r.live() {
		c.hash += r.content
		c.keys++
		c.bytes += uint64(r.keyLen) + uint64(r.valueLen)
	}
	if c.applied != index {
		c.applied = index
		t.pending = append(t.pending, c)
	} else {
		t.pending[len(t.pending)-1] = c
	}
	return nil
}

// put appends a record and publishes it. It returns errFull, and changes
// nothing, if the arena has no room or the slots would be too full to probe fast.
func (t *table) put(index uint64, key, value []byte, flag uint32) (*record, error) {
	hash := hashKey(t.m.seed, key)
	slot, prev, ok := t.m.locate(key, hash)
	if !ok {
		return nil, ErrCorrupt
	}
	if prev == 0 && (t.slots+1)*4 > len(t.m.slots)*3 {
		return nil, errFull
	}
	size := sizeOf(uint64(len(key)), uint64(len(value)))
	if size > t.m.end-t.used {
		return nil, errFull
	}
	off := t.used
	if err := t.mem.back(off + size); err != nil {
		return nil, err
	}

	data := t.m.data[off : off+size]
	r := (*record)(unsafe.Pointer(unsafe.SliceData(data)))
	r.index = index
	r.prev = prev
	r.valueLen = uint32(len(value)) | flag
	r.keyLen = uint32(len(key))
	n := recordSize + copy(data[recordSize:], key)
	n += copy(data[n:], value)
	if r.live() {
		r.content = xxhash.Sum64(data[unsafe.Offsetof(r.keyLen):n])
	}

	t.used += size
	if prev == 0 {
		t.slots++
	}
	t.m.slots[slot].Store(hash&^offsetMask | off)
	return r, nil
}

// commit publishes index with the counters that belong to it.
func (t *table) commit(index uint64) {
	if index <= t.pending[0].applied {
		return
	}
	n := 0
	for n+1 < len(t.pending) && t.pending[n+1].applied <= index {
		n++
	}
	t.pending = t.pending[:copy(t.pending, t.pending[n:])]
	t.pending[0].applied = index
	t.publishCounters()
}

// publishCounters makes the committed counters visible: first the idle copy,
// then the index that puts it in force.
func (t *table) publishCounters() {
	c := t.pending[0]
	t.active = (t.active + 1) % stateCopies
	s := &t.m.hdr.states[t.active]
	s.applied.Store(c.applied)
	s.hash.Store(c.hash)
	s.keys.Store(c.keys)
	s.bytes.Store(c.bytes)
	t.m.hdr.applied.Store(c.applied)
}

// carried lists the records that the next generation needs, older versions of a
// key before newer ones, and the size of all of them: what is live at the
// committed index, and every version after it, since any index may be the next
// to be committed.
func (t *table) carried() (offs []uint64, keys, size uint64) {
	applied := t.pending[0].applied
	offs = make([]uint64, 0, t.slots)
	for i := range t.m.slots {
		off := t.m.slots[i].Load() & offsetMask
		first := len(offs)
		for off != 0 {
			r := t.m.record(off)
			if r.index <= applied {
				if r.live() {
					offs = append(offs, off)
				}
				break
			}
			// Of several versions at one index only the newest can ever be seen.
			if n := len(offs); n == first || t.m.record(offs[n-1]).index != r.index {
				offs = append(offs, off)
			}
			off = r.prev
		}
		if len(offs) > first {
			keys++
		}
		chain := offs[first:]
		for a, b := 0, len(chain)-1; a < b; a, b = a+1, b-1 {
			chain[a], chain[b] = chain[b], chain[a]
		}
		for _, off := range chain {
			size += t.m.record(off).size()
		}
	}
	return offs, keys, size
}

// carry copies records of old, listed by old.carried, and its counters.
func (t *table) carry(old *table, offs []uint64) error {
	for _, off := range offs {
		r := old.m.record(off)
		if _, err := t.put(r.index, old.m.key(off, r), old.m.value(off, r), r.valueLen&tombstone); err != nil {
			return err
		}
	}
	t.pending = append(t.pending[:0], old.pending...)
	t.publishCounters()
	return nil
}
