// Package admin is a node's HTTP endpoint for operators and scripts, and the client of it that the command line uses:
// health, readiness, status, and the keys of the table. It must not know how the table works; it declares what it needs.
package admin

import "strings"

// Status is what GET /v1/status answers: a node's view of itself and of its group at one moment.
type Status struct {
	Version      string   `json:"version"`
	Sessions     int      `json:"sessions"` // of clients
	ReplicaID    uint64   `json:"replica_id"`
	RaftAddress  string   `json:"raft_address"`
	LeaderID     uint64   `json:"leader_id"` // 0: none known
	Term         uint64   `json:"term"`
	AppliedIndex uint64   `json:"applied_index"`
	CommitIndex  uint64   `json:"commit_index"`         // as far as this node knows
	CommitLag    *uint64  `json:"commit_lag,omitempty"` // entries committed and not applied here; nil: not known
	Keys         uint64   `json:"keys"`
	Bytes        uint64   `json:"bytes"` // of all keys and values
	Quota        int64    `json:"quota"`
	InFlight     int      `json:"in_flight"`  // sets and deletes of this node without an answer yet
	DiskFree     uint64   `json:"disk_free"`  // bytes, where the Raft log is
	StateHash    string   `json:"state_hash"` // equal on all members at one applied index
	Generation   uint64   `json:"generation"` // of the shared-memory segment
	ShmPath      string   `json:"shm_path"`
	Members      []Member `json:"members"` // by id
	Ready        bool     `json:"ready"`
	ReadyReason  string   `json:"ready_reason"` // why it is not; empty when it is
}

// Member is one member of the group as the answering node sees it.
type Member struct {
	ID        uint64 `json:"id"`
	Address   string `json:"address"`
	Reachable *bool  `json:"reachable"` // null: not known
	Self      bool   `json:"self"`
}

// Readiness is what GET /readyz answers, with status 200 when ready and 503 when not.
type Readiness struct {
	Ready  bool          `json:"ready"`
	Checks []CheckResult `json:"checks"`
}

// CheckResult is one thing that a node needs to be ready.
type CheckResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"` // why it is not
}

// Entry is a key with its value.
type Entry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Failure is the body of every answer that reports an error, and the error that Client returns for it.
type Failure struct {
	SQLState string `json:"sqlstate,omitempty"` // what a client of the SQL interface would see; empty for faults of HTTP use
	Message  string `json:"message"`
	Detail   string `json:"detail,omitempty"`
	Hint     string `json:"hint,omitempty"`
}

// Error is one line with everything that is known.
func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString(f.Message)
	if f.SQLState != "" {
		b.WriteString(" (SQLSTATE " + f.SQLState + ")")
	}
	if f.Detail != "" {
		b.WriteString("; detail: " + f.Detail)
	}
	if f.Hint != "" {
		b.WriteString("; hint: " + f.Hint)
	}
	return b.String()
}
