package shm

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

func golden(t testing.TB) []byte {
	data, err := os.ReadFile(goldenPath())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// aligned copies data to where a mapping could lie.
func aligned(data []byte) []byte {
	words := make([]uint64, len(data)/8+1)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(data))
	copy(b, data)
	return b
}

// exercise reads all there is in a segment that may be damaged. It returns the
// error of opening it.
func exercise(t testing.TB, data []byte) error {
	m, err := newMapping(aligned(data))
	if err != nil {
		return err
	}
	r := new(Reader)
	r.m.Store(m)
	for _, key := range []string{"", "key", "gone", "app/config/3", "ключ", "no such key"} {
		r.Get(nil, []byte(key))
	}
	r.Header()
	p, err := r.Picture()
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("Picture: %v", err)
		}
		p = &Picture{m, counters{applied: m.hdr.applied.Load()}}
	}
	if p.Len() < 0 || p.Len() > len(m.slots) {
		t.Errorf("Len is %d with %d slots", p.Len(), len(m.slots))
	}
	n := 0
	for k := range p.All() {
		p.Get(k)
		n++
	}
	for range p.Unordered() {
		n--
	}
	if n != 0 {
		t.Errorf("All and Unordered differ by %d", n)
	}
	return nil
}

func FuzzReader(f *testing.F) {
	f.Add(golden(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 1<<16 {
			exercise(t, data)
		}
	})
}

func TestDamagedHeader(t *testing.T) {
	for _, c := range []struct {
		name   string
		offset int
		value  uint64
		want   error
	}{
		{"magic", 0, 0x46414c5345, ErrNotSegment},
		{"layout version", 8, 256<<32 | LayoutVersion + 1, ErrLayoutVersion},
		{"header size", 8, 512<<32 | LayoutVersion, ErrCorrupt},
		{"no slots", 32, 0, ErrCorrupt},
		{"slots no power of two", 32, 31, ErrCorrupt},
		{"more slots than bytes", 32, 1 << 20, ErrCorrupt},
		{"slots that overflow", 32, 1 << 63, ErrCorrupt},
		{"arena in the slots", 40, 256, ErrCorrupt},
		{"arena beyond the end", 40, 1 << 62, ErrCorrupt},
		{"arena too long", 48, 1 << 16, ErrCorrupt},
		{"arena that overflows", 48, ^uint64(0), ErrCorrupt},
	} {
		data := golden(t)
		binary.LittleEndian.PutUint64(data[c.offset:], c.value)
		path := filepath.Join(t.TempDir(), "table")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	data := golden(t)
	binary.LittleEndian.PutUint64(data[72:], 1000) // an applied index without counters
	path := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path).Picture(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no counters for the applied index: %v", err)
	}
}

func TestTruncated(t *testing.T) {
	data := golden(t)
	for n := 0; n < len(data); n += 7 {
		path := filepath.Join(t.TempDir(), "table")
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotSegment) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestNotASegment(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory was opened")
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "text")); !errors.Is(err, ErrNotSegment) {
		t.Errorf("zeros: %v", err)
	}
}

// damaged overwrites a few words of a good segment with numbers that are likely
// to matter: offsets, lengths, limits.
func damaged(data []byte, rng *rand.Rand) []byte {
	for range 1 + rng.IntN(4) {
		v := rng.Uint64()
		switch rng.IntN(4) {
		case 0:
			v >>= rng.IntN(64)
		case 1:
			v = v % uint64(len(data)) &^ 7
		case 2:
			v = binary.LittleEndian.Uint64(data[rng.IntN(len(data)/8)*8:])
		}
		binary.LittleEndian.PutUint64(data[rng.IntN(150)*8:], v)
	}
	return data
}

func TestDamagedContent(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	opened := 0
	for range 20_000 {
		if exercise(t, damaged(golden(t), rng)) == nil {
			opened++
		}
	}
	if opened < 1000 {
		t.Errorf("only %d segments got past the header", opened)
	}
}

// TestCycles builds chains and slots that a careless reader would follow for ever.
func TestCycles(t *testing.T) {
	data := aligned(golden(t))
	m, err := newMapping(data)
	if err != nil {
		t.Fatal(err)
	}
	first := m.arena
	r := m.record(first)
	r.index = 1000 // never in force, so that its predecessor is asked for
	for _, prev := range []uint64{first, first + 8, 1 << 47, ^uint64(0), 256, 1} {
		r.prev = prev
		if off, r := m.visible(first, 5); r != nil {
			t.Errorf("prev %d leads to %d", prev, off)
		}
	}
	for i := range m.slots {
		m.slots[i].Store(^uint64(0))
	}
	if _, _, ok := m.locate([]byte("key"), hashKey(m.seed, []byte("key"))); ok {
		t.Error("found a key where all slots lead nowhere")
	}
}
