package shm

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The committed corpus of FuzzReader: a segment of one small table, and what
// could go wrong in it. key has two versions, gone a value and a tombstone.
var corpus = map[string]func(m *mapping, slot *uint64, key *record){
	"good":            func(*mapping, *uint64, *record) {},
	"superseded":      func(m *mapping, _ *uint64, _ *record) { m.hdr.superseded.Store(1) },
	"slots-overflow":  func(m *mapping, _ *uint64, _ *record) { m.hdr.slotCount = 1 << 63 },
	"arena-overflows": func(m *mapping, _ *uint64, _ *record) { m.hdr.arenaSize = ^uint64(0) },
	"arena-odd":       func(m *mapping, _ *uint64, _ *record) { m.hdr.arenaSize -= 3 },
	"no-counters":     func(m *mapping, _ *uint64, _ *record) { m.hdr.applied.Store(77) },
	"too-many-keys": func(m *mapping, _ *uint64, _ *record) {
		m.hdr.states[0].keys.Store(1 << 63)
		m.hdr.states[1].keys.Store(1 << 63)
	},
	"slots-full": func(m *mapping, _ *uint64, _ *record) {
		for i := range m.slots {
			m.slots[i].Store(^uint64(0))
		}
	},
	"slots-all-alike": func(m *mapping, slot *uint64, _ *record) {
		for i := range m.slots {
			m.slots[i].Store(*slot)
		}
	},
	"slot-in-header":  func(_ *mapping, slot *uint64, _ *record) { *slot = *slot&^offsetMask | 8 },
	"slot-at-end":     func(m *mapping, slot *uint64, _ *record) { *slot = *slot&^offsetMask | m.end },
	"slot-beyond-end": func(_ *mapping, slot *uint64, _ *record) { *slot |= offsetMask &^ 7 },
	"slot-misaligned": func(_ *mapping, slot *uint64, _ *record) { *slot += 3 },

	// Where index is beyond the applied one readers ask for the version before.
	"prev-is-itself": func(_ *mapping, slot *uint64, key *record) { key.index, key.prev = 99, *slot&offsetMask },
	"prev-rises":     func(m *mapping, _ *uint64, key *record) { key.index, key.prev = 99, m.end-recordSize },
	"prev-cycle": func(m *mapping, slot *uint64, key *record) {
		before := m.record(key.prev)
		key.index, before.index, before.prev = 99, 99, *slot&offsetMask
	},

	"key-too-long":   func(_ *mapping, _ *uint64, key *record) { key.keyLen = 1<<32 - 1 },
	"value-too-long": func(_ *mapping, _ *uint64, key *record) { key.valueLen = 1<<31 - 1 },
	"value-to-the-end": func(m *mapping, slot *uint64, key *record) {
		key.valueLen = uint32(m.end - *slot&offsetMask - key.length() - 1 + uint64(key.valueLen))
	},
	"value-one-beyond": func(m *mapping, slot *uint64, key *record) {
		key.valueLen = uint32(m.end - *slot&offsetMask - key.length() + uint64(key.valueLen))
	},
	"no-zero-after-value": func(m *mapping, slot *uint64, key *record) {
		m.data[*slot&offsetMask+key.length()] = 'x'
	},
}

// corpusSegment makes one of them.
func corpusSegment(t *testing.T, damage func(*mapping, *uint64, *record)) []byte {
	t.Helper()
	mem, err := newHeapMemory(1, 512)
	if err != nil {
		t.Fatal(err)
	}
	table, err := newTable(mem, 1, 7, 8)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []struct {
		index      uint64
		key, value string
		flag       uint32
	}{
		{1, "key", "one", 0}, {1, "gone", "", 0}, {2, "gone", "", tombstone}, {2, "key", "two", 0},
	} {
		if err := table.set(set.index, []byte(set.key), []byte(set.value), set.flag); err != nil {
			t.Fatal(err)
		}
		table.commit(set.index - 1)
	}
	table.commit(2)
	m := table.m
	i, off, _ := m.locate([]byte("key"), hashKey(m.seed, []byte("key")))
	slot := m.slots[i].Load()
	before := slot
	damage(m, &slot, m.record(off))
	if slot != before {
		m.slots[i].Store(slot)
	}
	return mem.bytes()
}

const corpusDir = "testdata/fuzz/FuzzReader"

// TestCorpus checks that the files are these segments; -update writes them.
func TestCorpus(t *testing.T) {
	for name, damage := range corpus {
		path := filepath.Join(corpusDir, name)
		want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", corpusSegment(t, damage))
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is not what the table says (run with -update): %v", path, err)
		}
	}
}

// readCorpus returns all segments of the corpus, also those that fuzzing found.
func readCorpus(t *testing.T) (segments [][]byte) {
	t.Helper()
	names, _ := filepath.Glob(corpusDir + "/*")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		literal := strings.TrimSuffix(strings.TrimPrefix(string(text), "go test fuzz v1\n[]byte("), ")\n")
		data, err := strconv.Unquote(literal)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		segments = append(segments, []byte(data))
	}
	return segments
}
