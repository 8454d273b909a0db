// Package demo shows a group of nodes at work on one machine: it starts them, says how to use them, and removes all
// traces when it is told to end. It knows the nodes as processes only.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/raftproxy/raftproxy/internal/group"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// MaxNodes is the most nodes that a demo runs.
const MaxNodes = 9

// Options of a demo.
type Options struct {
	Binary string    // of raftproxy
	Nodes  int       // 1 to MaxNodes
	Out    io.Writer // for people
	Dir    string    // where to put everything; default: the place for temporary files
}

// Run runs a demo until ctx ends, which is no error, or until one of its processes ends, which is.
func Run(ctx context.Context, o Options) (err error) {
	if _, err := fmt.Fprintf(o.Out, "Starting %s with a throw-away PostgreSQL each …\n", count(o.Nodes)); err != nil {
		return err
	}
	g, err := group.Start(ctx, group.Options{
		Binary: o.Binary, Nodes: o.Nodes, Dir: o.Dir, Templates: true,
		Args: func(*group.Node) []string { return []string{"--log-format=console", "--drain-timeout=1s"} },
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to end before it had begun
		}
		return err
	}
	defer func() {
		_, _ = fmt.Fprintln(o.Out, "Ending the nodes and removing their files …")
		err = errors.Join(err, stop(g), g.Close())
	}()
	leader, err := g.Leader(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if _, err := io.WriteString(o.Out, text(o.Binary, g, leader)); err != nil {
		return err
	}
	return watch(ctx, g)
}

// stop ends the nodes in order, so that psql sessions hear of it.
func stop(g *group.Group) error {
	errs := make(chan error)
	for _, n := range g.Nodes() {
		go func() {
			var err error
			if n.Running() {
				err = n.Stop()
			}
			errs <- err
		}()
	}
	var all error
	for range g.Nodes() {
		all = errors.Join(all, <-errs)
	}
	return all
}

// watch waits for the end of ctx or of a process.
func watch(ctx context.Context, g *group.Group) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2*len(g.Nodes()))
	report := func(done <-chan struct{}, say func() error) {
		select {
		case <-done:
			ended <- say()
		case <-ctx.Done():
		}
	}
	for _, n := range g.Nodes() {
		go report(n.Done(), func() error {
			return fmt.Errorf("node %d (process %d) has ended, the last it said was:\n%s", n.ID, n.Pid(), n.LogTail())
		})
		go report(n.Postgres.Done(), func() error {
			return fmt.Errorf("PostgreSQL of node %d has ended, the last it said was:\n%s", n.ID, n.Postgres.LogTail())
		})
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// text is what a person needs to use the group.
func text(binary string, g *group.Group, leader *group.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nReady: %s. Node %d leads.\n\n", count(len(g.Nodes())), leader.ID)
	for _, n := range g.Nodes() {
		host, port, _ := net.SplitHostPort(n.Listen)
		fmt.Fprintf(&b, "  node %d:  psql -h %s -p %s -U %s %s\n", n.ID, host, port, pgtest.Superuser, pgtest.DefaultDatabase)
		fmt.Fprintf(&b, "           %s status --admin %s\n", binary, n.Admin)
	}
	b.WriteString(`
Try on one node:
  select raftable('greeting', 'hello');     -- set
and on another:
  select raftable('greeting');              -- get
  select * from raftable();                 -- list
  select raftable('greeting', null);        -- delete

Ctrl-C ends the nodes and removes everything.
`)
	return b.String()
}

func count(nodes int) string {
	if nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", nodes)
}
