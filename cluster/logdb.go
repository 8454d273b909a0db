package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"golang.org/x/sys/unix"
)

// logStore is dragonboat's Tan log with four things added.
//
// Every update that is saved carries the current Raft state. Dragonboat leaves
// the state out of an update when it is unchanged, and Tan takes that for a
// change to an empty one: it would sync the disk for updates with nothing in
// them, and for those that only move the commit index. The state filled in is
// the one that was saved last, so what a reader finds is the same.
//
// One save at a time. Tan syncs after it has dropped its lock, so a snapshot
// record that starts a new file between an update's write and its sync would
// leave the update unsynced in the old file.
//
// At a start the log is checked against what is known of it, see verify.
//
// Saving waits while the disk is full, and the identity is marked before the
// first save returns: only after that may other members learn what was saved.
type logStore struct {
	raftio.ILogDB
	replicaID uint64
	dir       string // that dragonboat keeps this log and its snapshots in
	fs        config.IFS
	data      *dataDir
	floor     *floor
	space     *spaceGuard

	mu      sync.Mutex // held over every write to the log and its sync
	state   pb.State   // last saved, empty before the first
	scratch []pb.Update
	noted   time.Time // when floor was last raised

	committed atomic.Uint64 // last known commit index
	applied   atomic.Uint64 // last index the state machine was done with
}

// shardID is the only Raft group there is.
const shardID = 1

// floorInterval is how often the floor is raised at most.
const floorInterval = 100 * time.Millisecond

// logFactory makes the logStore when dragonboat asks for it.
type logFactory struct {
	replicaID uint64
	data      *dataDir
	floor     *floor
	space     *spaceGuard
	made      *logStore
}

// Name is Tan's, since the files are.
func (f *logFactory) Name() string { return tan.Factory.Name() }

// Create opens the log. It fails if the log is not what this member left.
func (f *logFactory) Create(cfg config.NodeHostConfig, cb config.LogDBCallback, dirs, wals []string) (raftio.ILogDB, error) {
	if err := trimLogs(dirs[0]); err != nil {
		return nil, err
	}
	inner, err := tan.Factory.Create(cfg, cb, dirs, wals)
	if err != nil {
		return nil, err
	}
	s := &logStore{
		ILogDB: inner, replicaID: f.replicaID, dir: dirs[0], fs: cfg.Expert.FS,
		data: f.data, floor: f.floor, space: f.space,
	}
	if err := s.verify(); err != nil {
		inner.Close()
		return nil, err
	}
	f.made = s
	return s, nil
}

// trimLogs gives back what is reserved behind the end of log files. Tan reserves
// 64 MiB for each new one, makes one at every start, and keeps them all until the
// next compaction.
func trimLogs(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "tandb", "*", "*.log"))
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if err := os.Truncate(name, info.Size()); err != nil {
			return err
		}
	}
	return nil
}

// logError is a log that this member cannot go on with.
type logError struct{ what string }

func (e *logError) Error() string {
	return e.what + "; this member has acknowledged and voted for what it no longer knows and must not start again with it. " +
		"If the files are elsewhere, put them back. If they are lost, replace this member by one with a new replica id and an empty data directory"
}

// verify checks that the log holds what this member had saved: that there is one,
// that it reaches up to the floor, and that all of it can be read.
func (s *logStore) verify() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &logError{fmt.Sprintf("the Raft log in %s is damaged: %v", s.dir, r)}
		}
	}()
	ss, err := s.GetSnapshot(shardID, s.replicaID)
	if err != nil {
		return s.unreadable(err)
	}
	rs, err := s.ILogDB.ReadRaftState(shardID, s.replicaID, ss.Index)
	switch {
	case errors.Is(err, raftio.ErrNoSavedLog):
		if s.data.id.Started {
			return &logError{fmt.Sprintf("this member was started before, but its Raft log in %s is missing or empty", s.dir)}
		}
		return nil
	case err != nil:
		return s.unreadable(err)
	}
	last := ss.Index
	if rs.EntryCount > 0 {
		last = max(last, rs.FirstIndex+rs.EntryCount-1)
	}
	if want := max(s.floor.index, rs.State.Commit); last < want || rs.State.Term < s.floor.term {
		return &logError{fmt.Sprintf("the Raft log in %s ends at index %d and term %d, but it reached index %d and term %d",
			s.dir, last, rs.State.Term, want, max(s.floor.term, rs.State.Term))}
	}
	if !pb.IsEmptySnapshot(ss) {
		if err := checkSnapshotFile(s.fs, ss.Filepath, ss.FileSize); err != nil {
			return &logError{fmt.Sprintf("the newest snapshot is damaged: %v", err)}
		}
	}
	if err := s.readAll(ss.Index+1, last); err != nil {
		return err
	}
	s.state = rs.State
	s.committed.Store(rs.State.Commit)
	return nil
}

// unreadable tells damage from what the operating system refuses.
func (s *logStore) unreadable(err error) error {
	for _, errno := range []error{unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EPERM, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return fmt.Errorf("the Raft log in %s cannot be opened: %w", s.dir, err)
		}
	}
	return &logError{fmt.Sprintf("the Raft log in %s is damaged: %v", s.dir, err)}
}

// readAll reads entries first to last, which checks their checksums.
func (s *logStore) readAll(first, last uint64) error {
	const chunk = 16 << 20
	for first <= last {
		entries, _, err := s.ILogDB.IterateEntries(nil, 0, shardID, s.replicaID, first, last+1, chunk)
		if err == nil && (len(entries) == 0 || entries[0].Index != first) {
			err = errors.New("entry is missing")
		}
		if err != nil {
			return &logError{fmt.Sprintf("the Raft log in %s is damaged at index %d: %v", s.dir, first, err)}
		}
		first += uint64(len(entries))
	}
	return nil
}

// SaveRaftState makes updates durable.
func (s *logStore) SaveRaftState(updates []pb.Update, worker uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scratch = append(s.scratch[:0], updates...)
	defer clear(s.scratch)
	changed := false
	for i := range s.scratch {
		u := &s.scratch[i]
		changed = changed || len(u.EntriesToSave) > 0 || !pb.IsEmptyState(u.State) || !pb.IsEmptySnapshot(u.Snapshot)
		if pb.IsEmptyState(u.State) {
			u.State = s.state
		} else {
			s.state = u.State
		}
		s.applied.Store(u.LastApplied)
	}
	if changed {
		s.space.wait()
	}
	if err := s.ILogDB.SaveRaftState(s.scratch, worker); err != nil {
		return err
	}
	s.committed.Store(s.state.Commit)
	if !changed || pb.IsEmptyState(s.state) {
		return nil
	}
	if err := s.data.markStarted(); err != nil {
		return err
	}
	return s.raiseFloor(floorInterval)
}

// raiseFloor must be called with mu held, after a save.
func (s *logStore) raiseFloor(interval time.Duration) error {
	now := time.Now()
	if now.Sub(s.noted) < interval {
		return nil
	}
	s.noted = now
	return s.floor.raise(s.state.Commit, s.state.Term)
}

// SaveSnapshots makes the metadata of snapshots durable.
func (s *logStore) SaveSnapshots(updates []pb.Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space.wait()
	return s.ILogDB.SaveSnapshots(updates)
}

// RemoveEntriesTo drops entries up to index.
func (s *logStore) RemoveEntriesTo(shard, replica, index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space.wait()
	return s.ILogDB.RemoveEntriesTo(shard, replica, index)
}

// RemoveNodeData drops everything about a replica.
func (s *logStore) RemoveNodeData(shard, replica uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = pb.State{}
	return s.ILogDB.RemoveNodeData(shard, replica)
}

// ImportSnapshot replaces everything by a snapshot from elsewhere.
func (s *logStore) ImportSnapshot(ss pb.Snapshot, replica uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = pb.State{}
	return s.ILogDB.ImportSnapshot(ss, replica)
}

// GetSnapshot returns the newest snapshot, with the path that it has now: the
// one on record is absolute and has the name of the host in it.
func (s *logStore) GetSnapshot(shard, replica uint64) (pb.Snapshot, error) {
	ss, err := s.ILogDB.GetSnapshot(shard, replica)
	if err == nil && ss.Filepath != "" {
		ss.Filepath = filepath.Join(s.dir, lastElements(ss.Filepath, snapshotDepth))
	}
	return ss, err
}

// snapshotDepth is how deep snapshot files lie below dir: partition, replica,
// snapshot, file.
const snapshotDepth = 4

func lastElements(path string, n int) string {
	parts := strings.Split(filepath.ToSlash(path), "/")
	return filepath.Join(parts[max(0, len(parts)-n):]...)
}

// Close raises the floor to the end and closes the log.
func (s *logStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.raiseFloor(0), s.ILogDB.Close())
}
