package cluster

import (
	"context"
	"errors"
)

// Node is one member of the group. All methods are safe for concurrent use.
type Node struct {
	cfg Config
}

var errNotYet = errors.New("cluster: not implemented yet")

// Start starts the member and returns once its Raft node runs; whether it can
// serve is told by Ready and Status.
func Start(cfg Config) (*Node, error) { return nil, errNotYet }

// Get appends the local replica's value of key to dst. It never waits.
func (n *Node) Get(dst, key []byte) (out []byte, found bool) { return dst, false }

// List calls yield for every key of the local replica at one applied index, in
// bytewise key order, until it returns false. The slices are valid during the
// call only.
func (n *Node) List(yield func(key, value []byte) bool) {}

// Set stores a copy of value under key and returns when the set is applied on
// the local replica, or with an *Error.
func (n *Node) Set(ctx context.Context, key, value []byte) error { return errNotYet }

// Delete removes key; a key that is not there is no error.
func (n *Node) Delete(ctx context.Context, key []byte) error { return errNotYet }

// Barrier returns when the local replica holds everything that was
// acknowledged anywhere before the call, or with an *Error.
func (n *Node) Barrier(ctx context.Context) error { return errNotYet }

// Status returns the node's view at this moment.
func (n *Node) Status() Status { return Status{ReplicaID: n.cfg.ReplicaID} }

// Ready returns nil when a leader is known and the local replica has caught up
// since the start, otherwise an error that says what is missing.
func (n *Node) Ready() error { return errNotYet }

// Close stops the member. Calls under way return with an error.
func (n *Node) Close() error { return nil }
