package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// syncCounter counts the fsyncs of log files.
type syncCounter struct {
	vfs.FS
	syncs atomic.Int64
}

type syncCountedFile struct {
	vfs.File
	c *syncCounter
}

func (c *syncCounter) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	if err == nil && filepath.Ext(name) == ".log" {
		f = &syncCountedFile{f, c}
	}
	return f, err
}

func (f *syncCountedFile) Sync() error {
	f.c.syncs.Add(1)
	return f.File.Sync()
}

// openStore opens a logStore, or plain Tan, on fs.
func openStore(t *testing.T, fs vfs.FS, wrapped bool) raftio.ILogDB {
	t.Helper()
	cfg := config.NodeHostConfig{Expert: config.ExpertConfig{FS: fs, LogDB: logConfig()}}
	dirs := []string{"/log"}
	var db raftio.ILogDB
	var err error
	if wrapped {
		dir := t.TempDir()
		fl, ferr := openFloor(filepath.Join(dir, floorFile))
		if ferr != nil {
			t.Fatal(ferr)
		}
		t.Cleanup(func() { fl.close() })
		f := &logFactory{
			replicaID: 1, floor: fl, data: &dataDir{path: dir},
			space: newSpaceGuard(func() (uint64, error) { return 1 << 40, nil }),
		}
		db, err = f.Create(cfg, nil, dirs, dirs)
	} else {
		db, err = tan.Factory.Create(cfg, nil, dirs, dirs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func update(state pb.State, entries ...pb.Entry) []pb.Update {
	return []pb.Update{{ShardID: shardID, ReplicaID: 1, State: state, EntriesToSave: entries}}
}

func entry(index, term uint64, size int) pb.Entry {
	return pb.Entry{Index: index, Term: term, Type: pb.EncodedEntry, Cmd: make([]byte, size)}
}

// stored is everything that dragonboat reads at a start.
type stored struct {
	State    pb.State
	First    uint64
	Count    uint64
	Snapshot uint64
	Entries  []pb.Entry
}

func readStored(t *testing.T, db raftio.ILogDB) stored {
	t.Helper()
	ss, err := db.GetSnapshot(shardID, 1)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := db.ReadRaftState(shardID, 1, ss.Index)
	if err != nil {
		t.Fatal(err)
	}
	s := stored{State: rs.State, First: rs.FirstIndex, Count: rs.EntryCount, Snapshot: ss.Index}
	if rs.EntryCount > 0 {
		s.Entries, _, err = db.IterateEntries(nil, 0, shardID, 1, rs.FirstIndex, rs.FirstIndex+rs.EntryCount, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// history makes updates as Raft does: the state only when it has changed, a
// commit index within the entries, now and then a conflicting suffix in a new
// term, and snapshots with compaction.
type history struct {
	fs    vfs.FS
	r     *rand.Rand
	state pb.State
	last  uint64
	snap  uint64
}

func (h *history) next(db raftio.ILogDB) error {
	before := h.state
	var entries []pb.Entry
	switch h.r.IntN(10) {
	case 0: // an election
		h.state.Term++
		h.state.Vote = h.r.Uint64N(3) + 1
	case 1: // a new leader overwrites what is not committed
		h.state.Term++
		if h.last > h.state.Commit {
			h.last = h.state.Commit + h.r.Uint64N(h.last-h.state.Commit)
		}
		h.last++
		entries = append(entries, entry(h.last, h.state.Term, h.r.IntN(300)))
	case 2, 3: // nothing to save: messages only
	case 4:
		if h.state.Commit > h.snap+50 {
			return h.snapshot(db)
		}
	case 5, 6:
		h.state.Commit += h.r.Uint64N(h.last - h.state.Commit + 1)
	default:
		for range h.r.IntN(20) {
			h.last++
			entries = append(entries, entry(h.last, h.state.Term, h.r.IntN(300)))
		}
	}
	state := h.state
	if pb.IsStateEqual(state, before) {
		state = pb.State{}
	}
	return db.SaveRaftState(update(state, entries...), 1)
}

func (h *history) snapshot(db raftio.ILogDB) error {
	h.snap = h.state.Commit
	name := fmt.Sprintf("/log/part/replica/%d/file", h.snap)
	if err := writeFile(h.fs, name); err != nil {
		return err
	}
	// The path on record is that of another time and host.
	ss := pb.Snapshot{ShardID: shardID, Index: h.snap, Term: h.state.Term, Filepath: "/old" + name, FileSize: uint64(len(emptySnapshotFile()))}
	u := []pb.Update{{ShardID: shardID, ReplicaID: 1, Snapshot: ss}}
	if err := db.SaveSnapshots(u); err != nil {
		return err
	}
	return db.RemoveEntriesTo(shardID, 1, h.snap-20)
}

// emptySnapshotFile is what dragonboat makes of a snapshot of one byte.
func emptySnapshotFile() []byte {
	h := pb.SnapshotHeader{Version: fileVersion}
	raw := pb.MustMarshal(&h)
	h.HeaderChecksum = binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(raw))
	raw = pb.MustMarshal(&h)
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(raw))), raw...)
	b = append(b, make([]byte, fileHeader-len(b))...)
	b = append(b, 'x')
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte("x")))
	return append(b, make([]byte, fileTail)...)
}

func writeFile(fs vfs.FS, name string) error {
	if err := fs.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	f.Write(emptySnapshotFile())
	return f.Close()
}

// TestLogStoreKeepsTheSame: whatever was saved, through restarts, the log reads
// the same as plain Tan's.
func TestLogStoreKeepsTheSame(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		var got [2]stored
		for i, wrapped := range []bool{false, true} {
			fs := vfs.NewMem()
			db := openStore(t, fs, wrapped)
			h := &history{fs: fs, r: rand.New(rand.NewPCG(seed, 1)), state: pb.State{Term: 1, Vote: 1}}
			if err := db.SaveRaftState(update(h.state), 1); err != nil {
				t.Fatal(err)
			}
			for step := range 400 {
				if err := h.next(db); err != nil {
					t.Fatal(err)
				}
				if step%150 == 149 {
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
					db = openStore(t, fs, wrapped)
				}
			}
			db.Close()
			db = openStore(t, fs, wrapped)
			got[i] = readStored(t, db)
			db.Close()
			last := got[i].Snapshot
			if got[i].Count > 0 {
				last = got[i].First + got[i].Count - 1
			}
			if got[i].State != h.state || last != h.last || got[i].Snapshot != h.snap {
				t.Fatalf("seed %d, wrapped %v: state %+v, %d+%d, snapshot %d; want %+v, last %d, snapshot %d", seed, wrapped,
					got[i].State, got[i].First, got[i].Count, got[i].Snapshot, h.state, h.last, h.snap)
			}
		}
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Fatalf("seed %d: the logs differ", seed)
		}
	}
}

// TestLogStoreSyncs: entries, terms and votes are synced when the save returns;
// a commit index alone, or nothing, is not worth it.
func TestLogStoreSyncs(t *testing.T) {
	mem := vfs.NewStrictMem() // forgets at a crash what was not synced
	fs := &syncCounter{FS: mem}
	db := openStore(t, fs, true)
	save := func(what string, syncs int64, state pb.State, entries ...pb.Entry) {
		t.Helper()
		before := fs.syncs.Load()
		if err := db.SaveRaftState(update(state, entries...), 1); err != nil {
			t.Fatal(err)
		}
		if got := fs.syncs.Load() - before; got != syncs {
			t.Errorf("%s: %d fsyncs, want %d", what, got, syncs)
		}
	}
	save("vote", 1, pb.State{Term: 1, Vote: 1})
	save("nothing", 0, pb.State{})
	save("entries alone", 1, pb.State{}, entry(1, 1, 10))
	save("nothing after entries", 0, pb.State{})
	save("commit", 0, pb.State{Term: 1, Vote: 1, Commit: 1})
	save("entries alone", 1, pb.State{}, entry(2, 1, 10), entry(3, 1, 10))
	save("commit after entries", 0, pb.State{Term: 1, Vote: 1, Commit: 3})
	save("term", 1, pb.State{Term: 2, Vote: 0, Commit: 3})
	save("entries and state", 1, pb.State{Term: 2, Vote: 3, Commit: 3}, entry(4, 2, 10))

	mem.SetIgnoreSyncs(true) // from here on the disk is dead
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	mem.ResetToSyncedState()
	mem.SetIgnoreSyncs(false)
	db = openStore(t, mem, true)
	defer db.Close()
	got := readStored(t, db)
	if want := (pb.State{Term: 2, Vote: 3, Commit: 3}); got.State != want || len(got.Entries) != 4 {
		t.Errorf("after a crash: %+v and %d entries, want %+v and 4", got.State, len(got.Entries), want)
	}
}

// lonely is a log that notices when two write to it at once.
type lonely struct {
	raftio.ILogDB
	inside, clashes, writes atomic.Int64
}

func (l *lonely) write() error {
	if l.inside.Add(1) > 1 {
		l.clashes.Add(1)
	}
	runtime.Gosched()
	l.inside.Add(-1)
	l.writes.Add(1)
	return nil
}

func (l *lonely) SaveRaftState([]pb.Update, uint64) error      { return l.write() }
func (l *lonely) SaveSnapshots([]pb.Update) error              { return l.write() }
func (l *lonely) RemoveEntriesTo(uint64, uint64, uint64) error { return l.write() }
func (l *lonely) RemoveNodeData(uint64, uint64) error          { return l.write() }
func (l *lonely) ImportSnapshot(pb.Snapshot, uint64) error     { return l.write() }

// TestLogStoreSerialises: a snapshot's record that begins a new log file could
// come between another one's write and its sync.
func TestLogStoreSerialises(t *testing.T) {
	db := openStore(t, vfs.NewMem(), true).(*logStore)
	defer db.Close()
	real, inner := db.ILogDB, &lonely{}
	db.ILogDB = inner
	var wg sync.WaitGroup
	for _, write := range []func() error{
		func() error { return db.SaveRaftState(update(pb.State{}, entry(1, 1, 1)), 1) },
		func() error { return db.SaveSnapshots(nil) },
		func() error { return db.RemoveEntriesTo(shardID, 1, 1) },
		func() error { return db.RemoveNodeData(shardID, 1) },
		func() error { return db.ImportSnapshot(pb.Snapshot{}, 1) },
	} {
		wg.Go(func() {
			for range 200 {
				if err := write(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	db.ILogDB = real
	if inner.clashes.Load() != 0 || inner.writes.Load() != 1000 {
		t.Errorf("%d of %d writes met another one", inner.clashes.Load(), inner.writes.Load())
	}
}

// TestSaveWaitsForDisk: with a full disk the log keeps still, and goes on when
// there is room.
func TestSaveWaitsForDisk(t *testing.T) {
	db := openStore(t, vfs.NewMem(), true)
	defer db.Close()
	var free atomic.Uint64
	space := newSpaceGuard(func() (uint64, error) { return free.Load(), nil })
	db.(*logStore).space = space
	if err := db.SaveRaftState(update(pb.State{}), 1); err != nil { // needs no room
		t.Fatal(err)
	}
	saved := make(chan error)
	save := func(index uint64) {
		go func() { saved <- db.SaveRaftState(update(pb.State{Term: 1}, entry(index, 1, 10)), 1) }()
	}
	save(1)
	space.check()
	select {
	case err := <-saved:
		t.Fatalf("saved on a full disk (%v)", err)
	default:
	}
	free.Store(freeForLog)
	space.check()
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	free.Store(0)
	space.check()
	save(2)
	space.close() // the node is closed: no use to wait
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
}

func TestLastElements(t *testing.T) {
	for path, want := range map[string]string{
		"/a/old/7/part/rep/snap/file": "part/rep/snap/file", "part/rep/snap/file": "part/rep/snap/file", "file": "file",
	} {
		if got := lastElements(path, snapshotDepth); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestFloor(t *testing.T) {
	name := filepath.Join(t.TempDir(), floorFile)
	reopen := func() *floor {
		t.Helper()
		f, err := openFloor(name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := reopen()
	for i := uint64(1); i < 10; i++ {
		if err := f.raise(i*10, i); err != nil {
			t.Fatal(err)
		}
		f.raise(3, 0) // lower than known: nothing
		f.close()
		f = reopen()
		if f.index != i*10 || f.term != i {
			t.Fatalf("index %d, term %d after %d", f.index, f.term, i)
		}
	}
	newest, older := int64(f.turn%2)*floorSlot, int64((f.turn+1)%2)*floorSlot
	if _, err := f.f.WriteAt([]byte("torn"), newest+20); err != nil {
		t.Fatal(err)
	}
	f.close()
	if f = reopen(); f.index != 80 || f.term != 8 {
		t.Errorf("with the newest record torn: index %d, term %d", f.index, f.term)
	}
	f.f.WriteAt([]byte("torn"), older+20)
	f.close()
	if _, err := openFloor(name); err == nil {
		t.Error("two damaged records were taken for none")
	}
}

func FuzzFloor(f *testing.F) {
	f.Add(encodeFloor(1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if turn, index, term, ok := decodeFloor(b); ok && fmt.Sprintf("%x", encodeFloor(turn, index, term)) != fmt.Sprintf("%x", b) {
			t.Fatalf("% x was taken for something else", b)
		}
	})
}
