package cluster

// Status is a node's view of itself and of the group at one moment.
type Status struct {
	ReplicaID    uint64         `json:"replica_id"`
	RaftAddress  string         `json:"raft_address"`
	LeaderID     uint64         `json:"leader_id"` // 0: none known
	Term         uint64         `json:"term"`
	AppliedIndex uint64         `json:"applied_index"`
	CommitLag    *uint64        `json:"commit_lag,omitempty"` // entries committed and not applied here; nil: not known
	Keys         uint64         `json:"keys"`
	Bytes        uint64         `json:"bytes"` // of live keys and values
	Quota        int64          `json:"quota"`
	InFlight     int            `json:"in_flight"`
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
	// Reachable is nil while nothing is known about the connection.
	Reachable *bool `json:"reachable"`
	Self      bool  `json:"self"`
}
