// Package group runs a whole group of raftproxy nodes on this machine as processes of one binary, each beside a
// throw-away PostgreSQL of its own: for the demo and for end-to-end tests. Nodes are known to it only by their command
// line, their exit and their admin endpoint.
package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// maxTries bounds how often new ports are chosen because somebody else took one.
const maxTries = 10

// Options of a group.
type Options struct {
	Binary    string               // of raftproxy
	Nodes     int                  // how many
	Dir       string               // where the group's directory is put; default: the place for temporary files
	Args      func(*Node) []string // further arguments of "serve", after ours, asked at every start; nil: none
	Postgres  pgtest.Options       // of every node's server; Dir is ours
	Templates bool                 // keep the data directories made by initdb inside of the group's directory, so that nothing stays
}

// Group is a running group. Its methods are safe for concurrent use, those of one Node are not with each other.
type Group struct {
	o     Options
	dir   string
	shm   string // directory of the segments
	nodes []*Node
}

// Start starts a group and waits until every node is ready. The caller must Close it.
func Start(ctx context.Context, o Options) (*Group, error) {
	if o.Nodes < 1 {
		return nil, errors.New("a group has one node at least")
	}
	g := &Group{o: o}
	if err := g.start(ctx); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Group) start(ctx context.Context) error {
	if err := g.makeDirs(); err != nil {
		return err
	}
	for id := 1; id <= g.o.Nodes; id++ {
		g.nodes = append(g.nodes, &Node{ID: uint64(id), group: g, dir: filepath.Join(g.dir, "node"+strconv.Itoa(id))})
	}
	if err := g.each(func(n *Node) error { return n.startPostgres(ctx) }); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := g.tryPorts(ctx)
		if err == nil || try == maxTries || !errors.Is(err, errPortTaken) {
			return err
		}
		// The Raft addresses are the group's identity, so a taken one means a new group on empty disks.
		if err := g.each(func(n *Node) error { return errors.Join(n.Kill(), n.forget()) }); err != nil {
			return err
		}
	}
}

// makeDirs makes the group's directory, which the server's account must be able to pass through, and that of the segments.
func (g *Group) makeDirs() error {
	var err error
	if g.dir, err = os.MkdirTemp(g.o.Dir, "raftproxy-group"); err != nil {
		return err
	}
	if err = os.Chmod(g.dir, 0o711); err != nil {
		return err
	}
	g.shm = filepath.Join(g.dir, "shm")
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		if g.shm, err = os.MkdirTemp("/dev/shm", "raftproxy-group"); err != nil {
			return err
		}
	}
	return nil
}

// tryPorts gives every node ports that nobody uses at this moment, and starts them all.
func (g *Group) tryPorts(ctx context.Context) error {
	// All ports are taken at the same time before any is given back, so that no two are the same.
	addresses, err := freeAddresses(3 * len(g.nodes))
	if err != nil {
		return err
	}
	for i, n := range g.nodes {
		n.Raft, n.Listen, n.Admin = addresses[3*i], addresses[3*i+1], addresses[3*i+2]
	}
	// One after the other: where a node cannot start the rest need not try.
	for _, n := range g.nodes {
		if err := n.launch(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return g.each(func(n *Node) error {
		err := n.WaitReady(ctx)
		if err != nil {
			cancel() // the others may never be ready without it
		}
		return err
	})
}

// Nodes are the nodes by id, the first has id 1.
func (g *Group) Nodes() []*Node { return g.nodes }

// Dir is the group's directory, removed by Close.
func (g *Group) Dir() string { return g.dir }

// peers is the setting that all nodes share.
func (g *Group) peers() string {
	members := make([]string, len(g.nodes))
	for i, n := range g.nodes {
		members[i] = fmt.Sprintf("%d=%s", n.ID, n.Raft)
	}
	return strings.Join(members, ",")
}

// Leader asks the nodes that run until one knows a leader that runs.
func (g *Group) Leader(ctx context.Context) (*Node, error) {
	var leader *Node
	err := poll(ctx, func() error {
		for _, n := range g.nodes {
			if !n.Running() {
				continue
			}
			asking, cancel := n.asking(ctx)
			s, err := n.Client().Status(asking)
			cancel()
			if err != nil || s.LeaderID == 0 || s.LeaderID > uint64(len(g.nodes)) {
				continue
			}
			if l := g.nodes[s.LeaderID-1]; l.Running() {
				leader = l
				return nil
			}
		}
		return errors.New("no node knows a leader that runs")
	})
	return leader, err
}

// Close ends all processes and removes all files.
func (g *Group) Close() error {
	err := g.each(func(n *Node) error { return n.close() })
	for _, dir := range []string{g.dir, g.shm} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// each does it for all nodes at once.
func (g *Group) each(do func(*Node) error) error {
	errs := make([]error, len(g.nodes))
	var wg sync.WaitGroup
	for i, n := range g.nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// freeAddresses asks the kernel for n different loopback addresses that nobody listens on.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}
