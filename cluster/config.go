package cluster

import (
	"time"

	"github.com/rs/zerolog"
)

// Limits and defaults that Config's zero values stand for.
const (
	DefaultMaxKeyLength       = 64              // characters
	DefaultMaxValueSize       = int64(1) << 20  // bytes
	HardMaxValueSize          = int64(64) << 20 // bytes; no setting goes past it
	DefaultQuota              = int64(256) << 20
	DefaultMaxInFlight        = 2048
	DefaultRTT                = 20 * time.Millisecond
	DefaultElectionRTT        = 25
	DefaultHeartbeatRTT       = 2
	DefaultSnapshotEntries    = 100_000
	DefaultCompactionOverhead = 10_000
)

// Config is what a Node needs to know. Zero values take the defaults above;
// ReplicaID, RaftAddress, Members and DataDir have none.
type Config struct {
	// ReplicaID is this member's number, never 0 and never used again for
	// another member or another disk.
	ReplicaID uint64
	// RaftAddress is the host:port at which the other members reach this one.
	RaftAddress string
	// ListenAddress is the host:port to bind; empty means RaftAddress.
	ListenAddress string
	// Members are the first members, replica id to Raft address, this one
	// included. They count at the very first start only; afterwards the
	// membership comes from disk.
	Members map[uint64]string
	// DataDir holds the identity, the Raft log and the snapshots.
	DataDir string
	// ShmPath is the path of the shared-memory segment; empty means a path
	// under /dev/shm that is derived from DataDir.
	ShmPath string

	// MaxKeyLength is in characters, MaxValueSize and Quota are in bytes. They
	// are checked here before a command is proposed, so members may differ.
	MaxKeyLength int
	MaxValueSize int64
	Quota        int64
	// MaxInFlight bounds the sets and deletes of this node that have been
	// proposed and not yet been answered.
	MaxInFlight int

	// RTT is the Raft clock tick; ElectionRTT and HeartbeatRTT count ticks.
	RTT          time.Duration
	ElectionRTT  uint64
	HeartbeatRTT uint64
	// SnapshotEntries is how many log entries make a snapshot due,
	// CompactionOverhead how many entries before it are kept for members that
	// lag behind.
	SnapshotEntries    uint64
	CompactionOverhead uint64

	// Logger receives the node's own lines and dragonboat's.
	Logger zerolog.Logger
}
