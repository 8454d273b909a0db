package shm

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Errors of Open and of reading.
var (
	ErrNotSegment    = errors.New("not a raftproxy shared-memory segment")
	ErrLayoutVersion = errors.New("segment has another layout version")
	ErrCorrupt       = errors.New("segment is damaged")
	ErrClosed        = errors.New("segment is closed")
)

// mapping is one generation in memory. Its memory is released by a cleanup when
// the last reference is dropped, so a Get needs no reference count; who reads
// data must hold the mapping (runtime.KeepAlive) until it is done.
type mapping struct {
	data  []byte
	hdr   *header
	slots []atomic.Uint64
	seed  uint64
	arena uint64 // offsets of the arena's first byte and of the byte after it
	end   uint64
	file  os.FileInfo // of a mapping that a Reader made
}

// newMapping checks the header against the length of data, which must be
// aligned to 8 bytes. It never reads beyond data, whatever data contains.
func newMapping(data []byte) (*mapping, error) {
	if len(data) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes are less than a header", ErrNotSegment, len(data))
	}
	h := (*header)(unsafe.Pointer(unsafe.SliceData(data)))
	if h.magic != magic {
		return nil, ErrNotSegment
	}
	if h.layout != LayoutVersion {
		return nil, fmt.Errorf("%w: it is %d, expected %d", ErrLayoutVersion, h.layout, LayoutVersion)
	}
	size := uint64(len(data))
	slots, arena, arenaSize := h.slotCount, h.arenaOffset, h.arenaSize
	switch {
	case h.headerSize != headerSize:
		return nil, fmt.Errorf("%w: header size %d", ErrCorrupt, h.headerSize)
	case bits.OnesCount64(slots) != 1 || slots > (size-headerSize)/8:
		return nil, fmt.Errorf("%w: %d slots in %d bytes", ErrCorrupt, slots, size)
	case arena != headerSize+slots*8 || arenaSize > size-arena || size > offsetMask:
		return nil, fmt.Errorf("%w: arena of %d bytes at %d in %d bytes", ErrCorrupt, arenaSize, arena, size)
	}
	return &mapping{
		data:  data,
		hdr:   h,
		slots: unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&data[headerSize])), slots),
		seed:  h.seed,
		arena: arena,
		end:   arena + arenaSize,
	}, nil
}

// retired counts the bytes of generations that this process has left since it
// last asked for a collection.
var retired atomic.Int64

// retire has the collector look for unused generations once they are many: their
// memory does not count as heap, so it would not come by itself.
func retire(m *mapping) {
	const enough = 64 << 20
	if retired.Add(int64(len(m.data))) >= enough {
		retired.Store(0)
		go runtime.GC()
	}
}

// record returns the record at off, or nil where none can lie.
func (m *mapping) record(off uint64) *record {
	if off < m.arena || off&7 != 0 || off > m.end || m.end-off < recordSize {
		return nil
	}
	r := (*record)(unsafe.Pointer(&m.data[off]))
	if size := r.size(); m.end-off < size || m.data[off+r.length()] != 0 {
		return nil
	}
	return r
}

// key and value return the bytes of the record at off, which record returned.
// The capacity is cut so that an append cannot reach into the arena.
func (m *mapping) key(off uint64, r *record) []byte {
	start := off + recordSize
	end := start + uint64(r.keyLen)
	return m.data[start:end:end]
}

func (m *mapping) value(off uint64, r *record) []byte {
	start := off + recordSize + uint64(r.keyLen)
	end := start + uint64(r.valueLen&^tombstone)
	return m.data[start:end:end]
}

// locate returns the slot that holds key and the newest record it leads to, or
// the empty slot where key belongs and 0. ok is false if there is neither, which
// a writer's load limit excludes.
func (m *mapping) locate(key []byte, hash uint64) (slot, off uint64, ok bool) {
	mask := uint64(len(m.slots) - 1)
	slot = hash & mask
	for range m.slots {
		s := m.slots[slot].Load()
		if s == 0 {
			return slot, 0, true
		}
		if (s^hash)>>offsetBits == 0 {
			off := s & offsetMask
			if r := m.record(off); r != nil && string(m.key(off, r)) == string(key) {
				return slot, off, true
			}
		}
		slot = (slot + 1) & mask
	}
	return 0, 0, false
}

// visible follows the versions from off to the one in force at an applied index.
// It returns a nil record if there is none or if that one is a tombstone. The
// loop ends in a damaged segment too, since offsets must fall.
func (m *mapping) visible(off, applied uint64) (uint64, *record) {
	for {
		r := m.record(off)
		if r == nil {
			return 0, nil
		}
		if r.index <= applied {
			if r.live() {
				return off, r
			}
			return 0, nil
		}
		if r.prev >= off {
			return 0, nil
		}
		off = r.prev
	}
}

// get returns the value of key at an applied index; the slice points into data.
func (m *mapping) get(key []byte, applied uint64) ([]byte, bool) {
	_, off, _ := m.locate(key, hashKey(m.seed, key))
	if off, r := m.visible(off, applied); r != nil {
		return m.value(off, r), true
	}
	return nil, false
}

// each calls yield for every record in force at an applied index, in the order
// of the slots, until yield returns false.
func (m *mapping) each(applied uint64, yield func(off uint64, r *record) bool) {
	for i := range m.slots {
		if s := m.slots[i].Load(); s != 0 {
			if off, r := m.visible(s&offsetMask, applied); r != nil && !yield(off, r) {
				return
			}
		}
	}
}

// counters describe the content at one index.
type counters struct {
	applied uint64
	hash    uint64 // sum modulo 2^64 of the live records' content hashes
	keys    uint64
	bytes   uint64 // of live keys and values
}

// committed returns the counters of the applied index. It repeats only if the
// writer commits in between; ok is false if the segment is damaged.
func (m *mapping) committed() (c counters, ok bool) {
	for {
		applied := m.hdr.applied.Load()
		for i := range m.hdr.states {
			s := &m.hdr.states[i]
			if s.applied.Load() == applied {
				c, ok = counters{applied, s.hash.Load(), s.keys.Load(), s.bytes.Load()}, true
				break
			}
		}
		if m.hdr.applied.Load() == applied {
			return c, ok && c.keys <= uint64(len(m.slots))
		}
		ok = false
	}
}
