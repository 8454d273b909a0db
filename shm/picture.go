package shm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"runtime"
	"slices"
)

// Picture is the table at one applied index. It stays as it is while the writer
// goes on, and after the Reader or Writer it came from is closed. All methods
// are safe for concurrent use.
//
// Keys and values that it hands out point into the mapping: they may be read as
// long as the Picture is referenced (runtime.KeepAlive where that is not
// obvious), and must not be written. An old Picture holds the memory of its
// generation, so drop it when it is done.
type Picture struct {
	m *mapping
	c counters
}

// Index returns the applied index.
func (p *Picture) Index() uint64 { return p.c.applied }

// Len returns the number of keys.
func (p *Picture) Len() int { return int(p.c.keys) }

// Bytes returns the sum of the lengths of all keys and values.
func (p *Picture) Bytes() uint64 { return p.c.bytes }

// StateHash returns a hash of the content: equal for equal content, whatever its
// history and wherever it lies.
func (p *Picture) StateHash() uint64 { return p.c.hash }

// Get returns the value of key.
func (p *Picture) Get(key []byte) ([]byte, bool) {
	value, ok := p.m.get(key, p.c.applied)
	runtime.KeepAlive(p)
	return value, ok
}

// Unordered yields every key and its value in no particular order.
func (p *Picture) Unordered() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		p.m.each(p.c.applied, func(off uint64, r *record) bool {
			return yield(p.m.key(off, r), p.m.value(off, r))
		})
		runtime.KeepAlive(p)
	}
}

// All yields every key and its value in bytewise order of the keys. It sorts at
// the start of every iteration, with 16 bytes of memory for each key.
func (p *Picture) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for _, e := range p.sorted() {
			r := p.m.record(e.off)
			if !yield(p.m.key(e.off, r), p.m.value(e.off, r)) {
				break
			}
		}
		runtime.KeepAlive(p)
	}
}

// entry is a record with the part of its key that most comparisons need.
type entry struct {
	prefix uint64
	off    uint64
}

func (p *Picture) sorted() []entry {
	entries := make([]entry, 0, p.c.keys)
	p.m.each(p.c.applied, func(off uint64, _ *record) bool {
		entries = append(entries, entry{off: off})
		return true
	})
	if len(entries) == 0 {
		return nil
	}
	key := func(e entry) []byte { return p.m.key(e.off, p.m.record(e.off)) }

	// Keys of one table tend to start alike: take the prefix after that part.
	common := key(entries[0])
	for _, e := range entries {
		common = common[:commonLen(common, key(e))]
	}
	skip := len(common)
	for i := range entries {
		var b [8]byte
		copy(b[:], key(entries[i])[skip:])
		entries[i].prefix = binary.BigEndian.Uint64(b[:])
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		return bytes.Compare(key(a)[skip:], key(b)[skip:])
	})
	return entries
}

// commonLen is the number of bytes at which a and b start alike.
func commonLen(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
