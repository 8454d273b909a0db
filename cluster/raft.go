package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	sm "github.com/lni/dragonboat/v4/statemachine"
)

// maxQueueBytes bounds what waits to be sent to one member, and what came from
// the others and waits to be handled. It must have room for the largest entry.
const maxQueueBytes = 3 * uint64(HardMaxValueSize)

// startRaft runs the Raft node. Dragonboat reports much of what can be wrong by
// a panic, which becomes an error here.
func startRaft(cfg *Config, data *dataDir, logs *logFactory, events *raftEvents,
	create sm.CreateConcurrentStateMachineFunc) (host *dragonboat.NodeHost, err error) {
	deployment, err := data.deploymentID()
	if err != nil {
		return nil, err
	}
	hostConfig := config.NodeHostConfig{
		DeploymentID:        deployment,
		NodeHostDir:         filepath.Join(data.path, raftDir),
		RTTMillisecond:      uint64(cfg.RTT.Milliseconds()),
		RaftAddress:         cfg.RaftAddress,
		ListenAddress:       cfg.ListenAddress,
		RaftEventListener:   events,
		SystemEventListener: events,
		MaxSendQueueSize:    maxQueueBytes,
		MaxReceiveQueueSize: maxQueueBytes,
		Expert: config.ExpertConfig{
			LogDBFactory: logs,
			// One group needs one worker of each kind. Once deployed, the number
			// of exec shards cannot change.
			Engine: config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 2, CloseShards: 1},
			LogDB:  logConfig(),
		},
	}
	raftConfig := config.Config{
		ReplicaID:          cfg.ReplicaID,
		ShardID:            shardID,
		CheckQuorum:        true,
		PreVote:            true,
		ElectionRTT:        cfg.ElectionRTT,
		HeartbeatRTT:       cfg.HeartbeatRTT,
		SnapshotEntries:    cfg.SnapshotEntries,
		CompactionOverhead: cfg.CompactionOverhead,
	}
	// After a first start the members are on disk.
	var members map[uint64]string
	if !data.id.Started {
		members = data.id.Members
	}
	err = noPanic(func() (err error) {
		if host, err = dragonboat.NewNodeHost(hostConfig); err == nil && host == nil {
			err = fmt.Errorf("see the log for the reason")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("starting Raft: %w", err)
	}
	err = noPanic(func() error {
		return host.StartConcurrentReplica(members, false, create, raftConfig)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting Raft: %w", err), closeRaft(host))
	}
	return host, nil
}

// logConfig keeps the log's buffers small; a larger entry gets its own.
func logConfig() config.LogDBConfig {
	c := config.GetTinyMemLogDBConfig()
	c.Shards = 1
	c.KVWriteBufferSize = 256 << 10
	return c
}

func closeRaft(host *dragonboat.NodeHost) error {
	return noPanic(func() error {
		host.Close()
		return nil
	})
}

// noPanic turns a panic into an error.
func noPanic(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			// What follows the first line is a trace.
			first, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			err = errors.New(first)
		}
	}()
	return f()
}

// leadership is who leads; a new one takes its place when that changes.
type leadership struct {
	id      uint64 // 0: nobody that this node knows of
	term    uint64
	changed chan struct{} // closed when this is no longer true
}

// raftEvents is what dragonboat tells. It calls from one goroutine and goes on
// only when the call returns, so nothing here may wait or call dragonboat.
type raftEvents struct {
	quietEvents
	leader atomic.Pointer[leadership]
	loaded chan struct{} // closed when the newest snapshot is restored
	once   sync.Once

	mu    sync.Mutex
	links map[string]bool // by Raft address: could it be reached when last tried?
}

func newRaftEvents() *raftEvents {
	e := &raftEvents{loaded: make(chan struct{}), links: make(map[string]bool)}
	e.leader.Store(&leadership{changed: make(chan struct{})})
	return e
}

// LeaderUpdated implements raftio.IRaftEventListener.
func (e *raftEvents) LeaderUpdated(info raftio.LeaderInfo) {
	old := e.leader.Load()
	if old.id == info.LeaderID && old.term == info.Term {
		return
	}
	e.leader.Store(&leadership{id: info.LeaderID, term: info.Term, changed: make(chan struct{})})
	close(old.changed)
}

// NodeReady is the end of restoring the newest snapshot.
func (e *raftEvents) NodeReady(raftio.NodeInfo) { e.once.Do(func() { close(e.loaded) }) }

// ConnectionEstablished and ConnectionFailed are about connections to others.
func (e *raftEvents) ConnectionEstablished(info raftio.ConnectionInfo) { e.link(info.Address, true) }

func (e *raftEvents) ConnectionFailed(info raftio.ConnectionInfo) { e.link(info.Address, false) }

func (e *raftEvents) link(address string, up bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.links[address] = up
}

// reachable returns nil while nothing is known.
func (e *raftEvents) reachable(address string) *bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if up, ok := e.links[address]; ok {
		return &up
	}
	return nil
}

// quietEvents ignores every event.
type quietEvents struct{}

var _ raftio.ISystemEventListener = quietEvents{}

func (quietEvents) NodeHostShuttingDown()                       {}
func (quietEvents) NodeUnloaded(raftio.NodeInfo)                {}
func (quietEvents) NodeDeleted(raftio.NodeInfo)                 {}
func (quietEvents) NodeReady(raftio.NodeInfo)                   {}
func (quietEvents) MembershipChanged(raftio.NodeInfo)           {}
func (quietEvents) ConnectionEstablished(raftio.ConnectionInfo) {}
func (quietEvents) ConnectionFailed(raftio.ConnectionInfo)      {}
func (quietEvents) SendSnapshotStarted(raftio.SnapshotInfo)     {}
func (quietEvents) SendSnapshotCompleted(raftio.SnapshotInfo)   {}
func (quietEvents) SendSnapshotAborted(raftio.SnapshotInfo)     {}
func (quietEvents) SnapshotReceived(raftio.SnapshotInfo)        {}
func (quietEvents) SnapshotRecovered(raftio.SnapshotInfo)       {}
func (quietEvents) SnapshotCreated(raftio.SnapshotInfo)         {}
func (quietEvents) SnapshotCompacted(raftio.SnapshotInfo)       {}
func (quietEvents) LogCompacted(raftio.EntryInfo)               {}
func (quietEvents) LogDBCompacted(raftio.EntryInfo)             {}
