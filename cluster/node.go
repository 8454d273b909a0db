package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/shm"
)

// Node is one member of the group. All methods are safe for concurrent use.
//
// Locks, none of which is held while another one of this list is taken, except
// in this order: hostMu, logStore.mu, then spaceGuard.mu. session.mu and
// raftEvents.mu are never held over a call.
type Node struct {
	cfg    Config
	log    zerolog.Logger
	data   *dataDir
	floor  *floor
	space  *spaceGuard
	writer *shm.Writer
	reader *shm.Reader
	sess   *session
	fsm    *stateMachine
	events *raftEvents
	logs   *logStore

	// hostMu is held for reading over every call of host, so that none is under
	// way when host is closed, which dragonboat does not bear.
	hostMu  sync.RWMutex
	host    *dragonboat.NodeHost // nil once it is closed
	noop    *client.Session
	closing chan struct{} // closed first of all by Close

	caughtUp  atomic.Bool
	once      sync.Once
	closeErr  error
	tasks     sync.WaitGroup
	stopTasks context.CancelFunc
}

// Start starts the member and returns once its Raft node runs and has applied
// what its own log knows to be committed; whether it can serve is told by Ready
// and Status. Its errors are for the operator, one line each.
func Start(cfg Config) (_ *Node, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Logger.With().Uint64("replica", cfg.ReplicaID).Logger(), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.data, err = openDataDir(&cfg); err != nil {
		return nil, err
	}
	if err := n.openFiles(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stopTasks = cancel
	n.tasks.Go(func() { n.watch(ctx) })
	if err := n.startRaft(); err != nil {
		return nil, err
	}
	if err := n.replay(); err != nil {
		return nil, err
	}
	n.tasks.Go(func() { n.catchUp(ctx) })
	return n, nil
}

// openFiles opens everything but the Raft log.
func (n *Node) openFiles() (err error) {
	if err := n.data.adoptHostDir(); err != nil {
		return err
	}
	if n.floor, err = openFloor(filepath.Join(n.data.path, floorFile)); err != nil {
		return err
	}
	free := n.cfg.test.freeSpace
	if free == nil {
		free = freeBytes(n.data.path)
	}
	n.space = newSpaceGuard(free)
	if free := n.space.now(); free < freeForLog {
		return fmt.Errorf("the disk of %s is full: %d MiB are free, the Raft log needs %d MiB to start", n.data.path, free>>20, freeForLog>>20)
	}
	options := n.cfg.test.segment
	options.Path = n.cfg.ShmPath
	if n.writer, err = shm.Create(options); err != nil {
		return fmt.Errorf("the shared-memory segment: %w", err)
	}
	n.reader = n.writer.Reader()
	n.warnSmallShm()
	return nil
}

// warnSmallShm says beforehand what would otherwise be found out when the table
// has grown: containers come with 64 MiB of shared memory.
func (n *Node) warnSmallShm() {
	free, err := freeBytes(filepath.Dir(n.cfg.ShmPath))()
	if need := 2 * uint64(n.cfg.Quota); err == nil && free < need {
		n.log.Warn().Str("path", n.cfg.ShmPath).Uint64("free_mib", free>>20).Uint64("wanted_mib", need>>20).
			Msg("shared memory may be too small for a table that reaches its quota")
	}
}

func (n *Node) startRaft() (err error) {
	n.sess = newSession(n.cfg.ReplicaID, n.data.id.Starts, n.cfg.MaxInFlight)
	n.fsm = newStateMachine(n.writer, n.sess, n.log)
	n.events = newRaftEvents()
	useLogger(n.cfg.Logger)
	logs := &logFactory{replicaID: n.cfg.ReplicaID, data: n.data, floor: n.floor, space: n.space}
	create := func(uint64, uint64) sm.IConcurrentStateMachine { return n.fsm }
	host, err := startRaft(&n.cfg, n.data, logs, n.events, create)
	if err != nil {
		return err
	}
	n.logs = logs.made
	n.host = host
	n.noop = host.GetNoOPSession(shardID)
	return nil
}

// replayPatience is how long Start waits for the replay of the log before it
// returns all the same; Ready tells when it is done.
const replayPatience = 5 * time.Minute

// replay waits until what the log knew to be committed at the start is applied,
// which takes no other member. Until then the table would look older than it was
// when the node was stopped, or empty.
func (n *Node) replay() error {
	committed := n.logs.committed.Load()
	begin := time.Now()
	limit := time.NewTimer(replayPatience)
	defer limit.Stop()
	select {
	case <-n.events.loaded:
	case <-n.fsm.failed:
		return n.fsm.fault()
	}
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for n.logs.applied.Load() < committed {
		select {
		case <-poll.C:
		case <-n.fsm.failed:
			return n.fsm.fault()
		case <-limit.C:
			n.log.Warn().Uint64("committed", committed).Uint64("applied", n.logs.applied.Load()).
				Msg("the log is still being replayed")
			return nil
		}
	}
	n.log.Info().Uint64("index", committed).Dur("took", time.Since(begin)).Uint64("start", n.data.id.Starts).
		Msg("log replayed")
	return nil
}

// watchInterval is how often the disk is looked at and a sign of life is given to
// readers of the segment in other processes.
const watchInterval = 500 * time.Millisecond

func (n *Node) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	full := false
	for {
		n.writer.Heartbeat(time.Now())
		if room := n.space.check(); room == full {
			full = !room
			if full {
				n.log.Error().Uint64("free_mib", n.space.now()>>20).Msg("disk full: the Raft log of this node keeps still until there is room")
			} else {
				n.log.Info().Msg("the disk has room again")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// catchUp makes sure that the replica has once applied what the leader had
// committed when it started.
func (n *Node) catchUp(ctx context.Context) {
	if err := n.barrier(ctx); err != nil {
		return // only because the node is closed
	}
	n.caughtUp.Store(true)
	n.log.Info().Msg("caught up with the leader")
}

// Close stops the member. Calls under way return with an error. The segment stays
// behind with what was applied last.
func (n *Node) Close() error {
	n.once.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

// close ends whatever Start has begun, in the reverse order.
func (n *Node) close() error {
	close(n.closing)
	var errs []error
	if n.fsm != nil {
		close(n.fsm.stop)
	}
	if n.space != nil {
		n.space.close()
	}
	if n.stopTasks != nil {
		n.stopTasks()
	}
	n.hostMu.Lock()
	host := n.host
	n.host = nil
	n.hostMu.Unlock()
	if host != nil {
		errs = append(errs, closeRaft(host))
	}
	n.tasks.Wait()
	if n.writer != nil {
		errs = append(errs, n.writer.Close())
	}
	if n.floor != nil {
		errs = append(errs, n.floor.close())
	}
	if n.data != nil {
		errs = append(errs, n.data.close())
	}
	return errors.Join(errs...)
}
