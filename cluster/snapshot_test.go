package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// encode makes a snapshot of content, in key order.
func encode(t testing.TB, content map[string]string, dedup *dedupTable) []byte {
	t.Helper()
	var records iter.Seq2[[]byte, []byte] = func(yield func(k, v []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(content)) {
			if !yield([]byte(k), []byte(content[k])) {
				return
			}
		}
	}
	var b bytes.Buffer
	head := snapshotHead{applied: 77, count: uint64(len(content)), hash: 0x1234}
	if err := writeSnapshot(&b, head, records, dedup, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decode reads a whole snapshot.
func decode(b []byte) (head snapshotHead, content map[string]string, dedup *dedupTable, err error) {
	s, head, err := newSnapshotReader(bytes.NewReader(b))
	if err != nil {
		return head, nil, nil, err
	}
	content = make(map[string]string)
	for {
		key, value, err := s.next()
		if err == io.EOF {
			return head, content, s.dedup, nil
		}
		if err != nil {
			return head, nil, nil, err
		}
		content[string(key)] = string(value)
	}
}

func sampleDedup() *dedupTable {
	d := newDedupTable()
	for _, c := range []command{
		{origin: 1, epoch: 1, seq: 1, low: 1}, {origin: 1, epoch: 1, seq: 3, low: 1},
		{origin: 2, epoch: 9, seq: 70_000, low: 70_000}, {origin: 2, epoch: 9, seq: 70_000 + dedupWindow - 1, low: 70_000},
		{origin: 3, epoch: 1, seq: 5, low: 5}, {origin: 3, epoch: 1, seq: 9, low: 9},
	} {
		d.admit(&c)
	}
	return d
}

func sampleContent() map[string]string {
	r := rand.New(rand.NewPCG(1, 2))
	content := map[string]string{"": "", "large": string(make([]byte, 3<<20+5))}
	for i := range 3000 {
		content[fmt.Sprint("key ", i)] = string(make([]byte, r.IntN(200)))
	}
	return content
}

func TestSnapshotRoundTrip(t *testing.T) {
	for name, content := range map[string]map[string]string{"empty": {}, "full": sampleContent()} {
		raw := encode(t, content, sampleDedup())
		head, got, dedup, err := decode(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if head != (snapshotHead{applied: 77, count: uint64(len(content)), hash: 0x1234}) || !maps.Equal(got, content) {
			t.Errorf("%s: head %+v, %d keys", name, head, len(got))
		}
		if !reflect.DeepEqual(dedup, sampleDedup()) {
			t.Errorf("%s: the dedup table changed", name)
		}
	}
}

func TestSnapshotDamage(t *testing.T) {
	dedup := newDedupTable()
	dedup.admit(&command{origin: 1, epoch: 2, seq: 70, low: 3})
	raw := encode(t, map[string]string{"a": "1", "b": "22", "c": "333"}, dedup)
	for n := range raw {
		if _, _, _, err := decode(raw[:n]); !errors.Is(err, errSnapshotDamaged) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(raw), err)
		}
	}
	for i := range raw {
		for bit := range 8 {
			bad := bytes.Clone(raw)
			bad[i] ^= 1 << bit
			var version *versionError
			if _, _, _, err := decode(bad); !errors.Is(err, errSnapshotDamaged) && !(i == 0 && errors.As(err, &version)) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	if _, _, _, err := decode(append(bytes.Clone(raw), 0)); !errors.Is(err, errSnapshotDamaged) {
		t.Errorf("with a byte too many: %v", err)
	}
}

func TestSnapshotInterrupted(t *testing.T) {
	var b bytes.Buffer
	stop := errors.New("stop")
	records := func(yield func(k, v []byte) bool) { yield([]byte("k"), nil) }
	err := writeSnapshot(&b, snapshotHead{count: 1}, records, newDedupTable(), func() error { return stop })
	if err != stop {
		t.Errorf("got %v", err)
	}
	err = writeSnapshot(&b, snapshotHead{count: 2}, records, newDedupTable(), func() error { return nil })
	if err == nil {
		t.Error("a wrong count was written")
	}
}

// FuzzSnapshot also mends the checksum, so that what lies behind it is reached.
func FuzzSnapshot(f *testing.F) {
	f.Add(encode(f, nil, newDedupTable()))
	f.Add(encode(f, map[string]string{"a": "1", "": "x"}, sampleDedup()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 8 {
			body := b[:len(b)-8]
			b = appendChecksum(bytes.Clone(body))
		}
		head, content, dedup, err := decode(b)
		if err != nil || uint64(len(content)) != head.count { // the same key twice: Replace sees to it
			return
		}
		_, again, dedup2, err := decode(encode(t, content, dedup))
		if err != nil || !maps.Equal(content, again) || !reflect.DeepEqual(dedup, dedup2) {
			t.Fatalf("changed in another round (%v)", err)
		}
	})
}

func appendChecksum(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
}
