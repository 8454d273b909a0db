package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/shm"
)

// stateMachine applies the Raft log to the segment. Dragonboat calls Update,
// PrepareSnapshot and RecoverFromSnapshot one at a time, SaveSnapshot at any time.
//
// What Update does follows from the log alone, never from this node's settings
// or clock. A fault that only this node has must therefore not skip an entry:
// while the segment has no room Update waits, and after any other fault the
// state machine halts, which means that nothing is applied any more, no snapshot
// is taken, and the node says so in its status. The log keeps what was missed
// for the next start.
type stateMachine struct {
	w    *shm.Writer
	sess *session
	log  zerolog.Logger
	stop chan struct{} // closed before the Raft node is closed
	// Tests come in between here.
	put  func(index uint64, op opcode, key, value []byte) error
	wake func(seqs []uint64)

	dedup *dedupTable // only touched by Update and its like
	woken []uint64    // scratch of Update
	cmd   command     // scratch of apply

	bytes  atomic.Uint64 // of live keys and values at the applied index
	halted atomic.Pointer[haltError]
	// stalled says why Update waits, nil if it does not.
	stalled atomic.Pointer[string]
	// failed is closed by the first halt.
	failed chan struct{}
	once   sync.Once
}

// haltError is why a state machine applies nothing any more.
type haltError struct{ err error }

func (h *haltError) Error() string { return "the table is halted: " + h.err.Error() }
func (h *haltError) Unwrap() error { return h.err }

// stallRetry is how often Update tries again to get room in the segment.
const stallRetry = 200 * time.Millisecond

func newStateMachine(w *shm.Writer, sess *session, log zerolog.Logger) *stateMachine {
	f := &stateMachine{
		w: w, sess: sess, log: log, dedup: newDedupTable(),
		stop: make(chan struct{}), failed: make(chan struct{}),
	}
	f.put = f.putOnce
	f.wake = func(seqs []uint64) { sess.wake(seqs) }
	return f
}

var _ sm.IConcurrentStateMachine = (*stateMachine)(nil)

// Update applies committed commands and wakes who waits for them.
func (f *stateMachine) Update(entries []sm.Entry) ([]sm.Entry, error) {
	if f.halted.Load() != nil {
		return entries, nil
	}
	f.woken = f.woken[:0]
	last := uint64(0)
	for i := range entries {
		if err := f.apply(&entries[i]); err != nil {
			if err != errReleased {
				f.halt(fmt.Errorf("log entry %d: %w", entries[i].Index, err))
			}
			break
		}
		last = entries[i].Index
	}
	if last > 0 {
		f.w.Commit(last)
		f.bytes.Store(f.w.Stats().Bytes)
	}
	f.cmd = command{} // it points into the log
	// Only now, so that who is woken finds its set through the reader.
	f.wake(f.woken)
	return entries, nil
}

// apply brings one command into the segment, not committed yet.
func (f *stateMachine) apply(e *sm.Entry) error {
	var err error
	if f.cmd, err = decodeCommand(e.Cmd); err != nil {
		return err
	}
	c := &f.cmd
	own := c.origin == f.sess.origin && c.epoch == f.sess.epoch
	switch v := f.dedup.admit(c); {
	case v == verdictApply:
		if err := f.execute(e.Index, c); err != nil {
			return err
		}
		e.Result = sm.Result{Value: 1}
	case v == verdictOldEpoch && own:
		f.sess.fail(c.seq, errSuperseded(f.dedup.epochOf(c.origin), f.sess.epoch))
		return nil
	}
	if own {
		f.woken = append(f.woken, c.seq)
	}
	return nil
}

// errReleased ends a wait for room because the node is closed.
var errReleased = errors.New("closed while waiting for room in the segment")

// execute writes what c asks for. Several operations of one command lie under one
// index, which is committed after the last of them: a reader sees all or none.
func (f *stateMachine) execute(index uint64, c *command) error {
	if c.op != opMany {
		return f.write(index, c.op, c.key, c.value)
	}
	for i := range c.many {
		o := &c.many[i]
		if err := f.write(index, o.op, o.key, o.value); err != nil {
			return err
		}
	}
	return nil
}

// write waits while the segment has no room.
func (f *stateMachine) write(index uint64, op opcode, key, value []byte) error {
	for {
		err := f.put(index, op, key, value)
		if !errors.Is(err, shm.ErrNoSpace) {
			if f.stalled.Swap(nil) != nil {
				f.log.Info().Msg("shared memory has room again, applying goes on")
			}
			return err
		}
		reason := err.Error()
		if f.stalled.Swap(&reason) == nil {
			f.log.Error().Err(err).Msg("no room in shared memory: nothing is applied on this node until there is")
		}
		select {
		case <-time.After(stallRetry):
		case <-f.stop:
			// Nothing of what follows in memory is saved: see SaveSnapshot.
			f.halted.CompareAndSwap(nil, &haltError{errReleased})
			return errReleased
		}
	}
}

func (f *stateMachine) putOnce(index uint64, op opcode, key, value []byte) error {
	if op == opDelete {
		_, err := f.w.Delete(index, key)
		return err
	}
	return f.w.Set(index, key, value)
}

// halt stops applying for good.
func (f *stateMachine) halt(err error) {
	f.once.Do(func() {
		f.halted.Store(&haltError{err})
		close(f.failed)
		f.log.Error().Err(err).Msg("the table is halted: nothing is applied on this node any more")
	})
}

// fault returns why nothing is applied at the moment, nil if all is well.
func (f *stateMachine) fault() error {
	if h := f.halted.Load(); h != nil {
		return h
	}
	if reason := f.stalled.Load(); reason != nil {
		return errors.New("the table waits for room in shared memory: " + *reason)
	}
	return nil
}

// Lookup is not used: reading goes through the segment.
func (f *stateMachine) Lookup(any) (any, error) {
	return nil, errors.New("reading goes through the shared-memory segment")
}

// savedState is what a snapshot is made from.
type savedState struct {
	picture *shm.Picture
	dedup   *dedupTable
}

// PrepareSnapshot takes hold of the state. It costs the same for any size of table.
func (f *stateMachine) PrepareSnapshot() (any, error) {
	return &savedState{picture: f.w.Picture(), dedup: f.dedup.clone()}, nil
}

// SaveSnapshot streams the state that PrepareSnapshot took hold of, while
// commands go on being applied. An error other than the two of dragonboat would
// end the process, and a snapshot that cannot be written is no reason for that.
func (f *stateMachine) SaveSnapshot(state any, w io.Writer, _ sm.ISnapshotFileCollection, stop <-chan struct{}) error {
	s := state.(*savedState)
	interrupted := func() error {
		select {
		case <-stop:
			return sm.ErrSnapshotStopped
		default:
			return nil
		}
	}
	if f.halted.Load() != nil {
		// What dragonboat counts as applied is more than the segment holds.
		return sm.ErrSnapshotAborted
	}
	begin := time.Now()
	head := snapshotHead{applied: s.picture.Index(), count: uint64(s.picture.Len()), hash: s.picture.StateHash()}
	switch err := writeSnapshot(w, head, s.picture.Unordered(), s.dedup, interrupted); {
	case errors.Is(err, sm.ErrSnapshotStopped):
		return err
	case err != nil:
		f.log.Error().Err(err).Msg("snapshot not saved")
		return sm.ErrSnapshotAborted
	}
	f.log.Info().Uint64("applied", head.applied).Uint64("keys", head.count).
		Dur("took", time.Since(begin)).Msg("snapshot saved")
	return nil
}

// RecoverFromSnapshot replaces the state by a snapshot's. With a snapshot that
// cannot be used it halts and waits for the node to be closed: dragonboat would
// take an error for a reason to end the process.
func (f *stateMachine) RecoverFromSnapshot(r io.Reader, _ []sm.SnapshotFile, stop <-chan struct{}) error {
	if f.halted.Load() != nil {
		<-stop
		return sm.ErrSnapshotStopped
	}
	if err := f.recover(r, stop); err != nil {
		if !errors.Is(err, sm.ErrSnapshotStopped) {
			f.halt(fmt.Errorf("restoring a snapshot: %w", err))
			<-stop
		}
		return sm.ErrSnapshotStopped
	}
	return nil
}

func (f *stateMachine) recover(r io.Reader, stop <-chan struct{}) error {
	in, head, err := newSnapshotReader(r)
	if err != nil {
		return err
	}
	begin := time.Now()
	err = f.w.Replace(head.applied, func() (key, value []byte, err error) {
		select {
		case <-stop:
			return nil, nil, sm.ErrSnapshotStopped
		default:
			return in.next()
		}
	})
	if err != nil {
		return err
	}
	stats := f.w.Stats()
	if stats.StateHash != head.hash || uint64(stats.Keys) != head.count {
		return fmt.Errorf("%w: state hash %016x with %d keys, its content has %016x with %d",
			errSnapshotDamaged, head.hash, head.count, stats.StateHash, stats.Keys)
	}
	f.dedup = in.dedup
	f.bytes.Store(stats.Bytes)
	f.log.Info().Uint64("applied", head.applied).Uint64("keys", head.count).
		Dur("took", time.Since(begin)).Msg("snapshot restored")
	f.wakeRecovered()
	return nil
}

// wakeRecovered answers for the commands that this node never sees in Update,
// because the snapshot that it got from another member covers them.
func (f *stateMachine) wakeRecovered() {
	var applied []uint64
	for _, seq := range f.sess.outstanding() {
		if f.dedup.has(f.sess.origin, f.sess.epoch, seq) {
			applied = append(applied, seq)
		}
	}
	f.wake(applied)
}

// Close does nothing: the segment belongs to the Node.
func (f *stateMachine) Close() error { return nil }
