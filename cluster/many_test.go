package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/raftproxy/raftproxy/shm"
)

func many(origin, epoch, seq uint64, operations ...operation) command {
	return command{op: opMany, origin: origin, epoch: epoch, seq: seq, low: 1, many: operations}
}

func put(key, value string) operation {
	return operation{op: opSet, key: []byte(key), value: []byte(value)}
}

func del(key string) operation { return operation{op: opDelete, key: []byte(key)} }

// TestManyIsOneAfterTheOther: several operations under one index leave what they
// leave under an index each.
func TestManyIsOneAfterTheOther(t *testing.T) {
	large := strings.Repeat("x", 3000) // the segment has to grow in the middle
	operations := []operation{
		put("twice", "first"), put("stays", "1"), put("twice", "second"), put("gone", "soon"), del("gone"),
		del("never there"), del("old"), put("old", large), del("older"), put("back", "1"), del("back"), put("back", large), put("", ""),
	}
	together, apart := newMachine(t, 9, 1), newMachine(t, 9, 1)
	for _, m := range []*machine{together, apart} {
		m.feed(set(2, 1, 1, "old", "before"), set(2, 1, 2, "older", "before"))
	}
	before := together.w.Picture()
	together.feed(many(1, 1, 1, operations...))
	for i, o := range operations {
		apart.feed(command{op: o.op, origin: 1, epoch: 1, seq: uint64(i + 1), low: 1, key: o.key, value: o.value})
	}
	want := map[string]string{"twice": "second", "stays": "1", "old": large, "back": large, "": ""}
	for _, m := range []*machine{together, apart} {
		m.wantContent(want)
	}
	a, b := together.w.Stats(), apart.w.Stats()
	if a.StateHash != b.StateHash || a.Keys != b.Keys || a.Bytes != b.Bytes || together.bytes.Load() != b.Bytes {
		t.Errorf("together %+v, apart %+v", a, b)
	}
	if a.Applied != 3 {
		t.Errorf("applied index %d, want 3", a.Applied)
	}
	// A picture of the index before is what it was.
	content := make(map[string]string)
	for k, v := range before.All() {
		content[string(k)] = string(v)
	}
	if !maps.Equal(content, map[string]string{"old": "before", "older": "before"}) {
		t.Errorf("the picture from before has become %q", content)
	}
}

// TestManyTakesEffectOnce: a retried command is one command, on a replica that
// has seen it and on one that has it from a snapshot.
func TestManyTakesEffectOnce(t *testing.T) {
	m := newMachine(t, 1, 1)
	w := m.sess.begin(1)
	batch := many(1, 1, w.seq, put("a", "1"), del("b"), put("c", "1"))
	m.feed(batch, batch, set(2, 1, 1, "a", "2"), batch, set(2, 1, 2, "b", "2"))
	if <-w.done; w.err != nil {
		t.Fatal(w.err)
	}
	restored := newMachine(t, 8, 1)
	if err := restored.RecoverFromSnapshot(bytes.NewReader(m.snapshot()), nil, nil); err != nil {
		t.Fatal(err)
	}
	restored.index = m.index
	for _, replica := range []*machine{m, restored} {
		replica.feed(batch)
		replica.wantContent(map[string]string{"a": "2", "b": "2", "c": "1"})
	}
	// Part of a damaged one is nothing.
	index := m.index
	broken := appendCommand(nil, &command{op: opMany, origin: 1, epoch: 1, seq: 2, low: 2, many: []operation{put("a", "3"), put("c", "3")}})
	m.feedRaw(broken[:len(broken)-1])
	m.wantContent(map[string]string{"a": "2", "b": "2", "c": "1"})
	if m.fault() == nil || m.w.Applied() != index {
		t.Errorf("fault %v at index %d, want one at %d", m.fault(), m.w.Applied(), index)
	}
}

// TestManyIsSeenAtOnce: readers see all of a command or nothing of it.
func TestManyIsSeenAtOnce(t *testing.T) {
	m := newMachine(t, 9, 1)
	m.feed(set(1, 1, 1, "k", "before"))
	inner, calls := m.put, 0
	m.put = func(index uint64, op opcode, key, value []byte) error {
		calls++
		m.wantContent(map[string]string{"k": "before"})
		err := inner(index, op, key, value)
		m.wantContent(map[string]string{"k": "before"})
		return err
	}
	m.feed(many(1, 1, 2, put("a", "1"), del("k"), put("b", "1")))
	if calls != 3 {
		t.Errorf("%d writes", calls)
	}
	m.wantContent(map[string]string{"a": "1", "b": "1"})
}

// TestManyWaitsForSharedMemory: where the room ends in the middle, nothing is
// written twice, and nothing is seen of what could not be finished.
func TestManyWaitsForSharedMemory(t *testing.T) {
	m := newMachine(t, 9, 1)
	inner, full := m.put, 1
	var written []string
	m.put = func(index uint64, op opcode, key, value []byte) error {
		if string(key) == "b" && full > 0 {
			full--
			return fmt.Errorf("%w: no more", shm.ErrNoSpace)
		}
		written = append(written, string(key))
		return inner(index, op, key, value)
	}
	m.feed(many(1, 1, 1, put("a", "1"), put("b", "1"), put("c", "1")))
	if got := strings.Join(written, ""); got != "abc" {
		t.Errorf("written: %s", got)
	}
	m.wantContent(map[string]string{"a": "1", "b": "1", "c": "1"})
	full = 1 << 30
	close(m.stop)
	m.feed(many(1, 1, 2, del("a"), put("b", "2"), put("c", "2")))
	m.wantContent(map[string]string{"a": "1", "b": "1", "c": "1"})
	if h := m.halted.Load(); h == nil || !errors.Is(h, errReleased) {
		t.Errorf("halted: %v", h)
	}
}
