package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// model is what a Writer is compared with: every version of the table that can
// still become, or be, the committed one.
type model struct {
	versions []version // the first is the committed one
}

type version struct {
	index uint64
	table map[string]string
}

func (m *model) latest() version    { return m.versions[len(m.versions)-1] }
func (m *model) committed() version { return m.versions[0] }

// at returns the table that a set at index changes.
func (m *model) at(index uint64) map[string]string {
	if m.latest().index != index || len(m.versions) == 1 {
		m.versions = append(m.versions, version{index, maps.Clone(m.latest().table)})
	}
	return m.latest().table
}

func (m *model) commit(index uint64) {
	for len(m.versions) > 1 && m.versions[1].index <= index {
		m.versions = m.versions[1:]
	}
	m.versions[0].index = max(index, m.versions[0].index)
}

// stateHash is the documented definition, computed anew.
func stateHash(table map[string]string) (sum, size uint64) {
	for k, v := range table {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(k)))
		sum += xxhash.Sum64(append(append(b, k...), v...))
		size += uint64(len(k) + len(v))
	}
	return sum, size
}

// checkPicture compares all that a Picture says with a version of the model.
func checkPicture(t *testing.T, p *Picture, v version) {
	t.Helper()
	hash, size := stateHash(v.table)
	if p.Index() != v.index || p.Len() != len(v.table) || p.StateHash() != hash || p.Bytes() != size {
		t.Fatalf("index %d, %d keys, %d bytes, hash %x; want %d, %d, %d, %x",
			p.Index(), p.Len(), p.Bytes(), p.StateHash(), v.index, len(v.table), size, hash)
	}
	got := map[string]string{}
	var order []string
	for k, value := range p.All() {
		got[string(k)] = string(value)
		order = append(order, string(k))
	}
	if !maps.Equal(got, v.table) || len(order) != len(got) {
		t.Fatalf("index %d: All yields %q, want %q", v.index, got, v.table)
	}
	if !slices.IsSorted(order) {
		t.Fatalf("index %d: not in order: %q", v.index, order)
	}
	clear(got)
	for k, value := range p.Unordered() {
		got[string(k)] = string(value)
		if g, ok := p.Get(k); !ok || string(g) != string(value) {
			t.Fatalf("index %d: Get(%q) = %q, %v", v.index, k, g, ok)
		}
	}
	if !maps.Equal(got, v.table) {
		t.Fatalf("index %d: Unordered yields %q, want %q", v.index, got, v.table)
	}
}

// randomKey comes from a few dozen keys that share prefixes and hold zeros, so
// that order and probing are put to the test.
func randomKey(rng *rand.Rand) string {
	prefixes := []string{"", "a", "a\x00", "app/config/", "app/config/\x00\x00", "ключ"}
	return prefixes[rng.IntN(len(prefixes))] + "0123456789"[:rng.IntN(10)]
}

func randomValue(rng *rand.Rand) string {
	return string(make([]byte, rng.IntN(4))) + fmt.Sprint(rng.Uint64())[:rng.IntN(10)]
}

func TestRandomAgainstModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			randomAgainstModel(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func randomAgainstModel(t *testing.T, rng *rand.Rand) {
	w := create(t, small(t))
	r := open(t, w.o.Path)
	m := &model{versions: []version{{0, map[string]string{}}}}
	type held struct {
		p *Picture
		v version
	}
	var pictures []held
	next := uint64(1)
	for range 4000 {
		key := randomKey(rng)
		switch what := rng.IntN(1000); {
		case what < 500:
			value := randomValue(rng)
			mustSet(t, w, next, key, value)
			m.at(next)[key] = value
		case what < 700:
			_, existed := m.latest().table[key]
			mustDelete(t, w, next, key, existed)
			if existed {
				delete(m.at(next), key)
			}
		case what < 800:
			next += 1 + uint64(rng.IntN(3))
		case what < 900: // any index may be committed: the last, one between, one gone by
			index := next - min(next, uint64(rng.IntN(6)))
			w.Commit(index)
			m.commit(index)
			next = max(next, m.committed().index+1)
		case what < 950:
			p, err := r.Picture()
			if err != nil {
				t.Fatal(err)
			}
			pictures = append(pictures, held{p, m.committed()}, held{w.Picture(), m.committed()})
		case what < 990:
			for range min(len(pictures), 3) {
				i := rng.IntN(len(pictures))
				checkPicture(t, pictures[i].p, pictures[i].v)
				if rng.IntN(3) == 0 {
					pictures = slices.Delete(pictures, i, i+1)
				}
			}
		case what < 993:
			next += 2
			table := randomReplace(t, w, next, rng)
			m.versions = []version{{next, table}}
			next++
		}
		checkLatest(t, w, m, key)
		checkReaders(t, w, r, m, key)
	}
	if g := w.Stats().Generation; g < 20 {
		t.Errorf("only %d generations", g)
	}
	for _, h := range pictures {
		checkPicture(t, h.p, h.v)
	}
	w.Commit(next)
	m.commit(next)
	checkPicture(t, w.Picture(), m.committed())
	onlyFiles(t, w.o.Path)
}

// randomReplace replaces the table by a random one, with keys that come twice.
func randomReplace(t *testing.T, w *Writer, index uint64, rng *rand.Rand) map[string]string {
	t.Helper()
	table := map[string]string{}
	left := rng.IntN(100)
	err := w.Replace(index, func() ([]byte, []byte, error) {
		if left--; left < 0 {
			return nil, nil, io.EOF
		}
		k, v := randomKey(rng), randomValue(rng)
		table[k] = v
		return []byte(k), []byte(v), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// checkLatest compares what the writer says of everything that was set.
func checkLatest(t *testing.T, w *Writer, m *model, key string) {
	t.Helper()
	got, ok := w.Get([]byte(key))
	if want, exists := m.latest().table[key]; ok != exists || string(got) != want {
		t.Fatalf("Writer.Get(%q) = %q, %v; want %q, %v", key, got, ok, want, exists)
	}
	hash, size := stateHash(m.latest().table)
	s := w.Stats()
	if s.Keys != len(m.latest().table) || s.Bytes != size || s.StateHash != hash || s.Applied != m.committed().index {
		t.Fatalf("%+v; want %d keys, %d bytes, hash %x, index %d",
			s, len(m.latest().table), size, hash, m.committed().index)
	}
}

// checkReaders compares what readers say of the committed index.
func checkReaders(t *testing.T, w *Writer, r *Reader, m *model, key string) {
	t.Helper()
	for _, r := range []*Reader{r, w.Reader()} {
		got, ok := r.Get(nil, []byte(key))
		if want, exists := m.committed().table[key]; ok != exists || string(got) != want {
			t.Fatalf("Reader.Get(%q) at %d = %q, %v; want %q, %v", key, m.committed().index, got, ok, want, exists)
		}
	}
	hash, size := stateHash(m.committed().table)
	h := r.Header()
	if h.Applied != m.committed().index || int(h.Keys) != len(m.committed().table) || h.Bytes != size || h.StateHash != hash {
		t.Fatalf("%+v; want %d, %d keys, %d bytes, hash %x",
			h, m.committed().index, len(m.committed().table), size, hash)
	}
}

// TestUncommittedSurvivesGrowth changes the generation between several indices
// that are not committed, then commits them one by one.
func TestUncommittedSurvivesGrowth(t *testing.T) {
	w := create(t, small(t))
	mustSet(t, w, 1, "kept", "1")
	mustSet(t, w, 1, "deleted", "1")
	mustSet(t, w, 1, "changed", "1")
	w.Commit(1)
	mustSet(t, w, 2, "changed", "2")
	mustSet(t, w, 3, "changed", "3, first")
	mustSet(t, w, 3, "changed", "3, second")
	mustSet(t, w, 3, "new", "3")
	mustDelete(t, w, 3, "deleted", true)
	mustDelete(t, w, 4, "new", true)
	mustSet(t, w, 4, "deleted", "4")
	mustSet(t, w, 4, "fleeting", "4")
	mustDelete(t, w, 4, "fleeting", true)
	mustSet(t, w, 4, "again", "4, first")
	mustDelete(t, w, 4, "again", true)
	mustSet(t, w, 4, "again", "4, second")

	before := w.Stats().Generation
	for i := 0; w.Stats().Generation < before+3; i++ {
		mustSet(t, w, 5, fmt.Sprint("filler", i), "5")
	}
	for i := 0; w.Stats().Keys > 4; i++ {
		mustDelete(t, w, 5, fmt.Sprint("filler", i), true)
	}
	r := open(t, w.o.Path)
	for _, step := range []struct {
		index   uint64
		content string
	}{
		{1, "changed=1 deleted=1 kept=1 "},
		{2, "changed=2 deleted=1 kept=1 "},
		{3, "changed=3, second kept=1 new=3 "},
		{4, "again=4, second changed=3, second deleted=4 kept=1 "},
		{5, "again=4, second changed=3, second deleted=4 kept=1 "},
	} {
		w.Commit(step.index)
		want(t, w.Picture(), step.index, step.content)
		p, err := r.Picture()
		if err != nil {
			t.Fatal(err)
		}
		want(t, p, step.index, step.content)
	}
}

func TestIndexOrder(t *testing.T) {
	w := create(t, small(t))
	w.Commit(5)
	mustSet(t, w, 8, "a", "8")
	for _, index := range []uint64{0, 5, 7} {
		if err := w.Set(index, []byte("a"), nil); !errors.Is(err, ErrIndex) {
			t.Errorf("Set at %d after 5 committed and 8 set: %v", index, err)
		}
		if _, err := w.Delete(index, []byte("nothing")); !errors.Is(err, ErrIndex) {
			t.Errorf("Delete at %d: %v", index, err)
		}
	}
	w.Commit(9)
	w.Commit(3) // gone by: changes nothing
	want(t, w.Picture(), 9, "a=8 ")
}

func TestLimits(t *testing.T) {
	w := create(t, small(t))
	long := make([]byte, MaxKeyBytes+1)
	if err := w.Set(1, long, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("key of %d bytes: %v", len(long), err)
	}
	if existed, err := w.Delete(1, long); existed || err != nil {
		t.Errorf("Delete of it: %v, %v", existed, err)
	}
	// A record far larger than the arena, and a value that lies in the
	// generation which the set replaces.
	if err := w.Set(1, long[1:], make([]byte, 10<<20)); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		value, _ := w.Get(long[1:])
		if err := w.Set(1, fmt.Append(nil, i), value); err != nil {
			t.Fatal(err)
		}
	}
	w.Commit(1)
	for i := range 5 {
		if v, ok := w.Reader().Get(nil, fmt.Append(nil, i)); !ok || len(v) != 10<<20 {
			t.Errorf("%d: %d bytes, %v", i, len(v), ok)
		}
	}
}
