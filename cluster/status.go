package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lni/dragonboat/v4"
)

// Status is a node's view of itself and of the group at one moment.
type Status struct {
	ReplicaID    uint64         `json:"replica_id"`
	RaftAddress  string         `json:"raft_address"`
	LeaderID     uint64         `json:"leader_id"` // 0: none known
	Term         uint64         `json:"term"`
	AppliedIndex uint64         `json:"applied_index"`
	CommitIndex  uint64         `json:"commit_index"`         // as far as this node knows
	CommitLag    *uint64        `json:"commit_lag,omitempty"` // entries known to be committed and not applied here; nil: not known
	Keys         uint64         `json:"keys"`
	Bytes        uint64         `json:"bytes"` // of live keys and values
	Quota        int64          `json:"quota"`
	InFlight     int            `json:"in_flight"`  // sets and deletes of this node without an answer yet
	DiskFree     uint64         `json:"disk_free"`  // bytes, where the log is
	StateHash    string         `json:"state_hash"` // 16 hex digits, equal on every member at the same applied index
	Generation   uint64         `json:"generation"` // of the shared-memory segment
	ShmPath      string         `json:"shm_path"`
	Members      []MemberStatus `json:"members"` // by id
	Ready        bool           `json:"ready"`
	ReadyReason  string         `json:"ready_reason"` // why it is not, empty when it is
}

// MemberStatus is one member as this node sees it.
type MemberStatus struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	// Reachable is whether the last try to send something to the member came
	// through; nil while this node has not sent it anything, as is usual between
	// two members that do not lead.
	Reachable *bool `json:"reachable"`
	Self      bool  `json:"self"`
}

// Status returns the node's view at this moment.
func (n *Node) Status() Status {
	leader := n.events.leader.Load()
	header := n.reader.Header()
	inFlight, _ := n.sess.load()
	s := Status{
		ReplicaID:    n.cfg.ReplicaID,
		RaftAddress:  n.cfg.RaftAddress,
		LeaderID:     leader.id,
		Term:         leader.term,
		AppliedIndex: header.Applied,
		CommitIndex:  n.logs.committed.Load(),
		Keys:         uint64(header.Keys),
		Bytes:        header.Bytes,
		Quota:        n.cfg.Quota,
		InFlight:     inFlight,
		DiskFree:     n.space.now(),
		StateHash:    fmt.Sprintf("%016x", header.StateHash),
		Generation:   header.Generation,
		ShmPath:      n.cfg.ShmPath,
		Members:      n.members(),
	}
	// The applied index in the segment is that of the last command; entries
	// without a command, such as the first of each leader, are applied as well.
	lag := s.CommitIndex - min(s.CommitIndex, max(n.logs.applied.Load(), header.Applied))
	s.CommitLag = &lag
	if err := n.Ready(); err != nil {
		s.ReadyReason = err.Error()
	} else {
		s.Ready = true
	}
	return s
}

// members lists the members by id.
func (n *Node) members() []MemberStatus {
	addresses := n.addresses()
	list := make([]MemberStatus, 0, len(addresses))
	for _, id := range slices.Sorted(maps.Keys(addresses)) {
		m := MemberStatus{ID: id, Address: addresses[id], Self: id == n.cfg.ReplicaID}
		if m.Self {
			yes := true
			m.Reachable = &yes
		} else {
			m.Reachable = n.events.reachable(m.Address)
		}
		list = append(list, m)
	}
	return list
}

// addresses returns the members that the log knows, or the first members while
// it knows none.
func (n *Node) addresses() map[uint64]string {
	n.hostMu.RLock()
	defer n.hostMu.RUnlock()
	if n.host != nil {
		info := n.host.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true})
		for _, shard := range info.ShardInfoList {
			if len(shard.Replicas) > 0 {
				return shard.Replicas
			}
		}
	}
	return n.data.id.Members
}

// unreachable names the members that could not be reached when last tried.
func (n *Node) unreachable() []string {
	var names []string
	for _, m := range n.members() {
		if m.Reachable != nil && !*m.Reachable {
			names = append(names, fmt.Sprintf("%d (%s)", m.ID, m.Address))
		}
	}
	return names
}

func (n *Node) unreachableHint() string {
	names := n.unreachable()
	if len(names) == 0 {
		return "A leader needs more than half of the members to be running and connected."
	}
	return "Members that cannot be reached: " + strings.Join(names, ", ") + "."
}

// Ready returns nil when a leader is known and the local replica has caught up
// since the start, otherwise an error that says what is missing.
func (n *Node) Ready() error {
	select {
	case <-n.closing:
		return errClosed
	default:
	}
	if err := n.fsm.fault(); err != nil {
		return err
	}
	if n.events.leader.Load().id == 0 {
		if names := n.unreachable(); len(names) > 0 {
			return errors.New("no leader is known; members that cannot be reached: " + strings.Join(names, ", "))
		}
		return errors.New("no leader is known")
	}
	if !n.caughtUp.Load() {
		return errors.New("the replica has not caught up with the leader yet")
	}
	return nil
}
