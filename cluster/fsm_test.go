package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/shm"
)

// machine is a state machine without Raft, and the log it is fed.
type machine struct {
	*stateMachine
	t     *testing.T
	index uint64
}

func newMachine(t *testing.T, origin, epoch uint64) *machine {
	t.Helper()
	w, err := shm.Create(shm.Options{Path: filepath.Join(t.TempDir(), "table"), ArenaBytes: 4096, Slots: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &machine{stateMachine: newStateMachine(w, newSession(origin, epoch, 100), zerolog.Nop()), t: t}
}

func set(origin, epoch, seq uint64, key, value string) command {
	return command{op: opSet, origin: origin, epoch: epoch, seq: seq, low: 1, key: []byte(key), value: []byte(value)}
}

// feed applies commands as one batch.
func (m *machine) feed(commands ...command) {
	m.t.Helper()
	var entries []sm.Entry
	for i := range commands {
		m.index++
		entries = append(entries, sm.Entry{Index: m.index, Cmd: appendCommand(nil, &commands[i])})
	}
	if _, err := m.Update(entries); err != nil {
		m.t.Fatal(err)
	}
}

// feedRaw applies one entry with whatever bytes.
func (m *machine) feedRaw(raw []byte) {
	m.t.Helper()
	m.index++
	if _, err := m.Update([]sm.Entry{{Index: m.index, Cmd: raw}}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) content() map[string]string {
	c := make(map[string]string)
	for k, v := range m.w.Picture().All() {
		c[string(k)] = string(v)
	}
	return c
}

func (m *machine) wantContent(want map[string]string) {
	m.t.Helper()
	if got := m.content(); !maps.Equal(got, want) {
		m.t.Fatalf("content is %q, want %q", got, want)
	}
}

func (m *machine) snapshot() []byte {
	m.t.Helper()
	state, err := m.PrepareSnapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.SaveSnapshot(state, &b, nil, nil); err != nil {
		m.t.Fatal(err)
	}
	return b.Bytes()
}

func TestDuplicateTakesEffectOnce(t *testing.T) {
	m := newMachine(t, 9, 1)
	first, second := set(1, 1, 1, "k", "first"), set(1, 1, 2, "k", "second")
	m.feed(first, first, second, first)
	m.wantContent(map[string]string{"k": "second"})
	m.feed(first)
	m.feed(command{op: opDelete, origin: 1, epoch: 1, seq: 3, low: 3, key: []byte("k")}, second, first)
	m.wantContent(map[string]string{})
	if got := m.w.Applied(); got != m.index {
		t.Errorf("applied index %d, want %d", got, m.index)
	}
	// What was given up does not come back after a later command.
	m.feed(set(1, 1, 5, "x", "1"))
	late := set(1, 1, 4, "x", "late")
	m.feed(command{op: opSet, origin: 1, epoch: 1, seq: 6, low: 6, key: []byte("x"), value: []byte("2")}, late)
	m.wantContent(map[string]string{"x": "2"})
	// Nor does anything of a process that is gone.
	m.feed(set(1, 2, 1, "x", "3"), set(1, 1, 7, "x", "of the dead"))
	m.wantContent(map[string]string{"x": "3"})
}

func TestDedupSurvivesSnapshot(t *testing.T) {
	a := newMachine(t, 8, 1)
	first, second := set(1, 1, 1, "k", "first"), set(1, 1, 3, "k", "second")
	a.feed(first, second, set(2, 5, 4, "other", "value"))
	b := newMachine(t, 9, 1)
	b.feed(set(1, 1, 1, "gone", "after restoring"))
	if err := b.RecoverFromSnapshot(bytes.NewReader(a.snapshot()), nil, nil); err != nil {
		t.Fatal(err)
	}
	b.index = a.index
	for _, m := range []*machine{a, b} {
		m.feed(first, set(1, 1, 2, "late", "but not given up"), set(2, 4, 9, "k", "old epoch"))
		m.wantContent(map[string]string{"k": "second", "other": "value", "late": "but not given up"})
	}
	if !bytes.Equal(a.snapshot()[:snapshotHeader], b.snapshot()[:snapshotHeader]) {
		t.Error("index, count or hash differ")
	}
}

func TestWaiters(t *testing.T) {
	m := newMachine(t, 1, 5)
	w := m.sess.begin(1)
	mine := set(1, 5, w.seq, "k", "v")
	select {
	case <-w.done:
		t.Fatal("woken before it is applied")
	default:
	}
	m.feed(set(2, 5, w.seq, "k", "of another"), set(1, 4, w.seq, "k", "of the one before"))
	select {
	case <-w.done:
		t.Fatal("woken by somebody else's")
	default:
	}
	m.feed(mine)
	<-w.done
	if got, _ := m.w.Reader().Get(nil, []byte("k")); w.err != nil || string(got) != "v" {
		t.Fatalf("woken with %v, reads %q", w.err, got)
	}
	m.feed(mine) // its duplicate finds nobody waiting

	// A snapshot answers for what it covers, and for nothing else.
	covered, open := m.sess.begin(1), m.sess.begin(1)
	other := newMachine(t, 2, 1)
	other.index = 100
	other.feed(mine, set(1, 5, covered.seq, "k", "covered"))
	if err := m.RecoverFromSnapshot(bytes.NewReader(other.snapshot()), nil, nil); err != nil {
		t.Fatal(err)
	}
	if <-covered.done; covered.err != nil {
		t.Fatal(covered.err)
	}
	select {
	case <-open.done:
		t.Fatal("woken by a snapshot without it")
	default:
	}

	// The same replica id was started again elsewhere.
	m.index = 200
	m.feed(set(1, 6, 1, "k", "of the next one"), set(1, 5, open.seq, "k", "of this one"))
	if <-open.done; open.err == nil || open.err.Code != CodeUnavailable {
		t.Fatalf("superseded: %v", open.err)
	}
	m.wantContent(map[string]string{"k": "of the next one"})
}

// TestVisibleBeforeWoken: who is woken must find its set.
func TestVisibleBeforeWoken(t *testing.T) {
	calls := 0
	fresh := func() *machine {
		m := newMachine(t, 1, 1)
		m.wake = func(seqs []uint64) {
			calls++
			if got, _ := m.w.Reader().Get(nil, []byte("k")); len(seqs) != 1 || string(got) != "v" {
				t.Errorf("%v are woken when k is %q", seqs, got)
			}
		}
		return m
	}
	m := fresh()
	mine := set(1, 1, m.sess.begin(1).seq, "k", "v")
	m.feed(mine)
	other := newMachine(t, 2, 1)
	other.feed(mine)
	m = fresh()
	m.sess.begin(1)
	if err := m.RecoverFromSnapshot(bytes.NewReader(other.snapshot()), nil, nil); err != nil {
		t.Fatal(err)
	}
	if calls != 2 {
		t.Errorf("woken %d times", calls)
	}
}

func TestHaltOnUnknownCommand(t *testing.T) {
	for name, raw := range map[string][]byte{
		"version": {manyVersion + 1, 1, 2, 3}, "damage": {commandVersion, 9}, "empty": {},
	} {
		m := newMachine(t, 1, 1)
		w := m.sess.begin(1)
		good, next := set(1, 1, w.seq, "k", "v"), set(1, 1, 2, "k", "after")
		m.Update([]sm.Entry{
			{Index: 1, Cmd: appendCommand(nil, &good)}, {Index: 2, Cmd: raw}, {Index: 3, Cmd: appendCommand(nil, &next)},
		})
		<-w.done
		m.wantContent(map[string]string{"k": "v"})
		if err := m.fault(); err == nil || !strings.Contains(err.Error(), "log entry 2") {
			t.Errorf("%s: fault %v", name, err)
		}
		m.index = 3
		m.feed(next)
		m.wantContent(map[string]string{"k": "v"})
		state, _ := m.PrepareSnapshot()
		if err := m.SaveSnapshot(state, io.Discard, nil, nil); err != sm.ErrSnapshotAborted {
			t.Errorf("%s: a halted state machine saved a snapshot (%v)", name, err)
		}
	}
}

func TestDamagedSnapshotIsNotLoaded(t *testing.T) {
	source := newMachine(t, 2, 1)
	source.feed(set(1, 1, 1, "new", "content"))
	good := source.snapshot()
	wrongHash := bytes.Clone(good[:len(good)-8])
	wrongHash[17]++
	wrongHash = appendChecksum(wrongHash)
	for name, raw := range map[string][]byte{
		"cut": good[:len(good)-3], "flipped": append(append([]byte{}, good[:30]...), append([]byte{good[30] ^ 1}, good[31:]...)...),
		"empty": {}, "version": {99, 0, 0}, "hash": wrongHash,
	} {
		m := newMachine(t, 1, 1)
		m.feed(set(1, 1, 1, "old", "content"))
		stop := make(chan struct{})
		ended := make(chan error)
		go func() { ended <- m.RecoverFromSnapshot(bytes.NewReader(raw), nil, stop) }()
		<-m.failed
		select {
		case err := <-ended:
			t.Errorf("%s: did not wait to be closed (%v)", name, err)
		default:
		}
		close(stop)
		if err := <-ended; err != sm.ErrSnapshotStopped {
			t.Errorf("%s: got %v", name, err)
		}
		if name != "hash" { // found only when it is loaded
			m.wantContent(map[string]string{"old": "content"})
		}
		if m.fault() == nil {
			t.Errorf("%s: no fault", name)
		}
	}
}

// TestSetsDuringSnapshot: what is set while a snapshot is written is not in it.
func TestSetsDuringSnapshot(t *testing.T) {
	m := newMachine(t, 1, 1)
	var batch []command
	want := make(map[string]string)
	for i := range uint64(3000) {
		key := fmt.Sprint("k", i)
		want[key] = "before"
		batch = append(batch, set(2, 1, i+1, key, "before"))
	}
	m.feed(batch...)
	state, err := m.PrepareSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(m.SaveSnapshot(state, w, nil, nil)) }()
	one := make([]byte, 1)
	io.ReadFull(r, one) // it is under way
	for i := range uint64(3000) {
		m.feed(set(2, 1, 5000+i, fmt.Sprint("k", i%100), "meanwhile"))
	}
	m.feed(command{op: opDelete, origin: 2, epoch: 1, seq: 9000, low: 1, key: []byte("k2000")})
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	head, content, dedup, err := decode(append(one, rest...))
	if err != nil || head.applied != 3000 || !maps.Equal(content, want) {
		t.Errorf("head %+v, %d keys, %v", head, len(content), err)
	}
	if !dedup.has(2, 1, 3000) || dedup.has(2, 1, 5000) {
		t.Error("the dedup table is of another moment")
	}
}

// failingWriter is a file that cannot be written.
type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestSnapshotThatCannotBeWritten(t *testing.T) {
	m := newMachine(t, 1, 1)
	m.feed(set(2, 1, 1, "k", "v"))
	state, _ := m.PrepareSnapshot()
	if err := m.SaveSnapshot(state, failingWriter{errors.New("disk full")}, nil, nil); err != sm.ErrSnapshotAborted {
		t.Errorf("got %v", err)
	}
	stop := make(chan struct{})
	close(stop)
	if err := m.SaveSnapshot(state, io.Discard, nil, stop); err != sm.ErrSnapshotStopped {
		t.Errorf("stopped: got %v", err)
	}
	if m.fault() != nil {
		t.Error("that is no reason to halt")
	}
}

// TestWaitsForSharedMemory: a segment without room skips nothing.
func TestWaitsForSharedMemory(t *testing.T) {
	m := newMachine(t, 1, 1)
	var full atomic.Bool
	full.Store(true)
	inner := m.put
	m.put = func(index uint64, op opcode, key, value []byte) error {
		if full.Load() {
			return fmt.Errorf("%w: no more", shm.ErrNoSpace)
		}
		return inner(index, op, key, value)
	}
	w := m.sess.begin(1)
	ended := make(chan struct{})
	feed := func(c command) { m.feed(c); ended <- struct{}{} }
	go feed(set(1, 1, w.seq, "k", "v"))
	poll(t, "the stall", func() error {
		if m.fault() == nil {
			return errors.New("no fault")
		}
		return nil
	})
	full.Store(false)
	<-ended
	<-w.done
	m.wantContent(map[string]string{"k": "v"})
	if err := m.fault(); err != nil {
		t.Errorf("still at fault: %v", err)
	}
	full.Store(true)
	go feed(set(1, 1, 2, "k", "never applied here"))
	close(m.stop)
	<-ended
	full.Store(false)
	m.feed(set(1, 1, 3, "k", "nor what comes after"))
	m.wantContent(map[string]string{"k": "v"})
	state, _ := m.PrepareSnapshot()
	if err := m.SaveSnapshot(state, io.Discard, nil, nil); err == nil {
		t.Error("saved a snapshot that lacks something")
	}
}

// BenchmarkUpdate is the cost of applying, without Raft.
func BenchmarkUpdate(b *testing.B) {
	w, err := shm.Create(shm.Options{Path: filepath.Join(b.TempDir(), "table")})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	m := newStateMachine(w, newSession(9, 1, 100), zerolog.Nop())
	const batch = 64
	entries := make([]sm.Entry, batch)
	index := uint64(0)
	value := make([]byte, 100)
	b.ReportAllocs()
	begin := time.Now()
	for b.Loop() {
		for i := range entries {
			index++
			c := command{op: opSet, origin: 1, epoch: 1, seq: index, low: index, key: fmt.Appendf(nil, "key%d", index%10_000), value: value}
			entries[i] = sm.Entry{Index: index, Cmd: appendCommand(entries[i].Cmd[:0], &c)}
		}
		m.Update(entries)
	}
	b.ReportMetric(float64(time.Since(begin).Nanoseconds())/float64(index), "ns/command")
}
