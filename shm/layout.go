//go:build !(mips || mips64 || ppc64 || s390x)

// Package shm keeps a key-value table in a memory-mapped file: one process
// writes it, and any number of goroutines and processes read it without locks
// or system calls. It knows nothing of Raft, SQL or the network; an "applied
// index" is only a number that grows with every commit.
//
// # Layout
//
// One file is one generation of the table. All numbers are little-endian (the
// package does not build elsewhere), and offsets count bytes from the start of
// the file:
//
//	header   256 bytes            see the struct header
//	slots    8 bytes * slotCount  index by key: open addressing, linear probing
//	arena    arenaSize bytes      immutable records, appended
//
// A slot is 0 (never used) or holds the upper 16 bits of the key's hash above
// the 48-bit offset of the newest record of that key. The hash's lower bits
// choose the slot where probing starts. A slot never becomes empty again: a
// deleted key keeps its slot, which then leads to a tombstone.
//
// A record starts at a multiple of 8 and is never changed once a slot leads to
// it. It says at which index it took effect and where the version before it of
// the same key lies, always at a lower offset:
//
//	index u64 | prev u64 | content u64 | valueLen u32 | keyLen u32 | key | value | 1 to 8 zeros
//
// The zeros make every text value a string for C.
//
// # Protocol
//
// The writer appends a record and publishes it by one atomic store to its slot.
// A reader loads the applied index first, then the slot, and follows prev to the
// first record whose index is not greater. So it never meets a record before its
// commit, whoever holds on to one applied index sees the table as it was then,
// and a writer that dies half-way has published nothing.
//
// A full generation is not extended: the live records go to a new file, the old
// one is marked superseded, and the new one is renamed over it. Nothing is
// committed between the mark and the rename, so a reader that sees the mark and
// still finds the old file has the right content. Old mappings stay valid until
// their last user drops them.
package shm

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// LayoutVersion changes with every change of the layout or of the key hash.
// Magic, layout version, generation and the superseded flag keep their places
// for ever, so that a writer can retire a segment of any version.
const LayoutVersion = 1

const (
	magic       = 0x004d485354464152 // "RAFTSHM\0", read as a little-endian number
	headerSize  = 256
	recordSize  = 32
	offsetBits  = 48
	offsetMask  = 1<<offsetBits - 1
	tombstone   = 1 << 31 // in valueLen: the key is deleted from this index on
	minSlots    = 8
	stateCopies = 2
)

// Limits of a single record, far above what the layers on top allow.
const (
	MaxKeyBytes   = 1<<16 - 1
	MaxValueBytes = 1 << 30
)

// header is the start of the file. What only the constructor of a generation
// writes is plain; the rest is atomic.
type header struct {
	magic       uint64
	layout      uint32
	headerSize  uint32
	generation  uint64 // grows by one with every new file, over restarts too
	seed        uint64 // of the key hash
	slotCount   uint64 // a power of two
	arenaOffset uint64
	arenaSize   uint64
	_           uint64

	// The line that every read touches.
	superseded atomic.Uint64 // 1: the path has, or will have, a newer generation
	applied    atomic.Uint64 // last committed index
	_          [6]uint64

	writerPID atomic.Uint64 // 0: closed in good order
	heartbeat atomic.Uint64 // Unix time in nanoseconds, 0: never
	_         [6]uint64

	// The copy whose applied equals the header's is in force; the writer fills
	// the other one before it publishes the next index, so a reader that finds
	// applied unchanged after reading a copy has read it whole.
	states [stateCopies]state
}

// state is what belongs to one applied index.
type state struct {
	applied atomic.Uint64
	hash    atomic.Uint64 // see counters.hash
	keys    atomic.Uint64
	bytes   atomic.Uint64
}

// record is the fixed part of a record. keyLen stands directly before the key
// so that content is the xxhash64 of one contiguous range: keyLen, key, value.
type record struct {
	index    uint64
	prev     uint64 // offset of the version before, 0: none
	content  uint64 // 0 in a tombstone
	valueLen uint32 // or tombstone
	keyLen   uint32
}

// The layout, checked by the compiler: an index other than 0 does not compile.
// The same numbers stand in c/raftable_shm.h.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(header{})-headerSize]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.magic)-0]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.layout)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.headerSize)-12]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.generation)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.seed)-24]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.slotCount)-32]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.arenaOffset)-40]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.arenaSize)-48]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.superseded)-64]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.applied)-72]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.writerPID)-128]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.heartbeat)-136]
	_ = [1]struct{}{}[unsafe.Offsetof(header{}.states)-192]

	_ = [1]struct{}{}[unsafe.Sizeof(state{})-32]
	_ = [1]struct{}{}[unsafe.Offsetof(state{}.applied)-0]
	_ = [1]struct{}{}[unsafe.Offsetof(state{}.hash)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(state{}.keys)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(state{}.bytes)-24]

	_ = [1]struct{}{}[unsafe.Sizeof(record{})-recordSize]
	_ = [1]struct{}{}[unsafe.Offsetof(record{}.index)-0]
	_ = [1]struct{}{}[unsafe.Offsetof(record{}.prev)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(record{}.content)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(record{}.valueLen)-24]
	_ = [1]struct{}{}[unsafe.Offsetof(record{}.keyLen)-28]
)

// length is that of the record without the zeros after the value, size with them.
func (r *record) length() uint64 {
	return recordSize + uint64(r.keyLen) + uint64(r.valueLen&^tombstone)
}

func (r *record) size() uint64 { return (r.length() + 8) &^ 7 }

// live tells a value from a tombstone.
func (r *record) live() bool { return r.valueLen&tombstone == 0 }

// sizeOf is the length in the arena of a record with such a key and value.
func sizeOf(keyLen, valueLen uint64) uint64 {
	return (recordSize + keyLen + valueLen + 8) &^ 7
}

// hashKey places a key in the slots. Eight bytes a step, the last eight overlapping
// those before, folded through a 128-bit product; the secret seed keeps whoever
// chooses the keys from piling them up in one place.
func hashKey(seed uint64, key []byte) uint64 {
	const k1, k2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	n := len(key)
	h := seed ^ uint64(n)*k1
	var last uint64
	if n >= 8 {
		for i := 0; i < n-8; i += 8 {
			h = fold(h^binary.LittleEndian.Uint64(key[i:]), k2)
		}
		last = binary.LittleEndian.Uint64(key[n-8:])
	} else {
		for i, b := range key {
			last |= uint64(b) << (8 * i)
		}
	}
	return fold(fold(h^last, k2)^k1, k2)
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
