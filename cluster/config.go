package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/shm"
)

// Limits and defaults that Config's zero values stand for.
const (
	DefaultMaxKeyLength       = 64              // characters
	DefaultMaxValueSize       = int64(1) << 20  // bytes
	HardMaxValueSize          = int64(64) << 20 // bytes; no setting goes past it
	DefaultQuota              = int64(256) << 20
	DefaultMaxInFlight        = 2048
	DefaultRTT                = 50 * time.Millisecond
	DefaultElectionRTT        = 10
	DefaultHeartbeatRTT       = 1
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

	test testHooks
}

// testHooks change a node from inside this package's tests.
type testHooks struct {
	freeSpace   func() (uint64, error) // instead of asking the file system
	proposeMore int                    // propose every command so many times more
	applied     func(command []byte)   // told of every command of this node that was applied
	segment     shm.Options            // but for Path
}

// What settings may be at most. Keys are kept far below what a command may carry
// at four bytes a character.
const (
	maxKeyLengthLimit = 4096
	maxInFlightLimit  = 1 << 14
)

// complete checks the settings and fills in the defaults.
func (c *Config) complete() error {
	defaultTo(&c.MaxKeyLength, DefaultMaxKeyLength)
	defaultTo(&c.MaxValueSize, DefaultMaxValueSize)
	defaultTo(&c.Quota, DefaultQuota)
	defaultTo(&c.MaxInFlight, DefaultMaxInFlight)
	defaultTo(&c.RTT, DefaultRTT)
	defaultTo(&c.ElectionRTT, DefaultElectionRTT)
	defaultTo(&c.HeartbeatRTT, DefaultHeartbeatRTT)
	defaultTo(&c.SnapshotEntries, DefaultSnapshotEntries)
	defaultTo(&c.CompactionOverhead, DefaultCompactionOverhead)
	switch {
	case c.ReplicaID == 0:
		return errors.New("the replica id must not be 0")
	case c.DataDir == "":
		return errors.New("the data directory is missing")
	case c.MaxKeyLength < 0 || c.MaxKeyLength > maxKeyLengthLimit:
		return fmt.Errorf("the key length %d is not in 1..%d characters", c.MaxKeyLength, maxKeyLengthLimit)
	case c.MaxValueSize < 0 || c.MaxValueSize > HardMaxValueSize:
		return fmt.Errorf("the value size %d is not in 1..%d bytes", c.MaxValueSize, HardMaxValueSize)
	case c.Quota < 0:
		return fmt.Errorf("the quota %d is negative", c.Quota)
	case c.MaxInFlight < 0 || c.MaxInFlight > maxInFlightLimit:
		return fmt.Errorf("%d sets in flight are not in 1..%d", c.MaxInFlight, maxInFlightLimit)
	case c.RTT < time.Millisecond || c.RTT%time.Millisecond != 0:
		return fmt.Errorf("the Raft tick %v is not a whole number of milliseconds", c.RTT)
	case c.ElectionRTT <= 2*c.HeartbeatRTT:
		return fmt.Errorf("an election after %d ticks leaves no room for heartbeats every %d ticks; it must be more than twice as many",
			c.ElectionRTT, c.HeartbeatRTT)
	}
	return c.completeAddresses()
}

func (c *Config) completeAddresses() (err error) {
	if err := checkAddress(c.RaftAddress); err != nil {
		return fmt.Errorf("the Raft address %w", err)
	}
	if c.ListenAddress == "" {
		c.ListenAddress = c.RaftAddress
	}
	if strings.HasPrefix(c.ListenAddress, ":") {
		c.ListenAddress = "0.0.0.0" + c.ListenAddress
	}
	if err := checkAddress(c.ListenAddress); err != nil {
		return fmt.Errorf("the Raft listen address %w", err)
	}
	if err := checkListen(c.ListenAddress); err != nil {
		return fmt.Errorf("the Raft listen address %w", err)
	}
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return err
	}
	if c.ShmPath == "" {
		sum := sha256.Sum256([]byte(c.DataDir))
		c.ShmPath = filepath.Join("/dev/shm", "raftproxy-"+hex.EncodeToString(sum[:6]), "table")
	}
	return nil
}

// checkMembers checks the list of first members; it matters at the first start.
func (c *Config) checkMembers() error {
	if c.Members[c.ReplicaID] == "" {
		return fmt.Errorf("the list of members lacks this one, replica %d", c.ReplicaID)
	}
	if own := c.Members[c.ReplicaID]; own != c.RaftAddress {
		return fmt.Errorf("the list of members gives replica %d the address %s, but its Raft address is %s",
			c.ReplicaID, own, c.RaftAddress)
	}
	seen := make(map[string]uint64)
	for id, address := range c.Members {
		if id == 0 {
			return errors.New("the list of members has a replica 0")
		}
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("the address of member %d %w", id, err)
		}
		if other, ok := seen[address]; ok {
			return fmt.Errorf("members %d and %d have the same address %s", min(id, other), max(id, other), address)
		}
		seen[address] = id
	}
	return nil
}

// checkAddress takes what dragonboat takes: an IPv4 address or a host name, and
// a port.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q has no port in 1..65535", address)
	}
	if strings.Contains(host, ":") {
		return fmt.Errorf("%q is an IPv6 address, which Raft traffic cannot use; give IPv4 or a host name", address)
	}
	if !config.IsValidAddress(address) {
		return fmt.Errorf("%q has neither an IPv4 address nor a host name", address)
	}
	return nil
}

// checkListen finds a host name without an IPv4 address, on which dragonboat
// would listen nowhere without a word.
func checkListen(address string) error {
	host, _, _ := net.SplitHostPort(address)
	ips, err := net.LookupIP(host)
	if err != nil {
		return fmt.Errorf("%q does not resolve: %w", address, err)
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return nil
		}
	}
	return fmt.Errorf("%q has no IPv4 address", address)
}

func defaultTo[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}
