package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/raftproxy/raftproxy/internal/admin"
	"github.com/raftproxy/raftproxy/internal/config"
	"github.com/raftproxy/raftproxy/shm"
)

// endpoint is how a command finds a node.
type endpoint struct {
	Admin   string        `name:"admin" env:"RAFTPROXY_ADMIN" default:"127.0.0.1:8001" placeholder:"HOST:PORT" help:"Admin endpoint of the node."`
	Timeout time.Duration `name:"timeout" default:"15s" help:"Time for the whole command."`
}

// with calls do with a client of the node.
func (e endpoint) with(do func(ctx context.Context, c *admin.Client) error) error {
	c := admin.NewClient(e.Admin)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), e.Timeout)
	defer cancel()
	if err := do(ctx, c); err != nil {
		return fmt.Errorf("node at %s: %w", e.Admin, err)
	}
	return nil
}

// reading is how a command reads.
type reading struct {
	Linearizable bool `name:"linearizable" help:"See everything that was acknowledged on any node before."`
}

type getCmd struct {
	endpoint `embed:""`
	reading  `embed:""`
	Key      string `arg:"" help:"The key."`
}

// Run prints the value and a newline; a key that is not there is an error.
func (c *getCmd) Run(s streams) error {
	return c.with(func(ctx context.Context, a *admin.Client) error {
		value, found, err := a.Get(ctx, c.Key, c.Linearizable)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("there is no key %q", c.Key)
		}
		_, err = fmt.Fprintf(s.out, "%s\n", value)
		return err
	})
}

type setCmd struct {
	endpoint `embed:""`
	Key      string `arg:"" help:"The key."`
	Value    string `arg:"" help:"The value, or - to read all of the standard input."`
}

// Run sets the key.
func (c *setCmd) Run(s streams) error {
	value := []byte(c.Value)
	if c.Value == "-" {
		var err error
		if value, err = io.ReadAll(s.in); err != nil {
			return err
		}
	}
	return c.with(func(ctx context.Context, a *admin.Client) error { return a.Set(ctx, c.Key, value) })
}

type deleteCmd struct {
	endpoint `embed:""`
	Key      string `arg:"" help:"The key."`
}

// Run deletes the key.
func (c *deleteCmd) Run(streams) error {
	return c.with(func(ctx context.Context, a *admin.Client) error { return a.Delete(ctx, c.Key) })
}

type listCmd struct {
	endpoint `embed:""`
	reading  `embed:""`
	JSON     bool   `name:"json" help:"Print JSON instead of lines of key, tab and value with \\t, \\n, \\r and \\\\ for what would spoil them."`
	Shm      string `name:"shm" placeholder:"PATH" help:"Read the shared-memory segment of a node on this machine instead of asking its admin endpoint."`
}

// Run prints the table.
func (c *listCmd) Run(s streams) error {
	if c.Shm != "" {
		if c.Linearizable {
			return &usageError{[]string{"list: --linearizable needs the node itself: leave out --shm"}}
		}
		return c.fromShm(s.out)
	}
	return c.with(func(ctx context.Context, a *admin.Client) error {
		var failed error
		write := writeLines
		if c.JSON {
			write = admin.WriteList
		}
		err := write(s.out, func(yield func(key, value []byte) bool) {
			failed = a.List(ctx, c.Linearizable, func(e admin.Entry) error {
				if !yield([]byte(e.Key), []byte(e.Value)) {
					return io.ErrClosedPipe // write has the true reason
				}
				return nil
			})
		})
		if err == nil {
			err = failed
		}
		return err
	})
}

func (c *listCmd) fromShm(w io.Writer) error {
	r, err := shm.Open(c.Shm)
	if err != nil {
		return fmt.Errorf("list: %s: %w", c.Shm, err)
	}
	defer func() { _ = r.Close() }()
	p, err := r.Picture()
	if err != nil {
		return fmt.Errorf("list: %s: %w", c.Shm, err)
	}
	write := writeLines
	if c.JSON {
		write = admin.WriteList
	}
	return write(w, p.All())
}

// lineEscapes are those of PostgreSQL's COPY.
var lineEscapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// writeLines writes an entry a line.
func writeLines(w io.Writer, all func(yield func(key, value []byte) bool)) error {
	out := bufio.NewWriter(w)
	var err error
	all(func(key, value []byte) bool {
		_, err = fmt.Fprintf(out, "%s\t%s\n", lineEscapes.Replace(string(key)), lineEscapes.Replace(string(value)))
		return err == nil
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

type statusCmd struct {
	endpoint `embed:""`
	JSON     bool `name:"json" xor:"form" help:"Print JSON."`
	Ready    bool `name:"ready" xor:"form" help:"Print whether the node is ready, and fail if it is not, as a health check wants it."`
}

// Run prints the status.
func (c *statusCmd) Run(s streams) error {
	return c.with(func(ctx context.Context, a *admin.Client) error {
		if c.Ready {
			return checkReady(ctx, a, s.out)
		}
		st, err := a.Status(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			e := json.NewEncoder(s.out)
			e.SetIndent("", "  ")
			return e.Encode(st)
		}
		return writeStatus(s.out, st)
	})
}

// checkReady fails with what a node lacks to be ready.
func checkReady(ctx context.Context, a *admin.Client, out io.Writer) error {
	r, err := a.Readiness(ctx)
	if err != nil {
		return err
	}
	if r.Ready {
		_, err = fmt.Fprintln(out, "ready")
		return err
	}
	var missing []string
	for _, c := range r.Checks {
		if !c.OK {
			missing = append(missing, c.Name+": "+c.Reason)
		}
	}
	return errors.New("not ready: " + strings.Join(missing, "; "))
}

// writeStatus writes a status for people.
func writeStatus(w io.Writer, s admin.Status) error {
	state, leader, lag := "ready", "none known", ""
	if !s.Ready {
		state = "not ready: " + s.ReadyReason
	}
	if s.LeaderID != 0 {
		leader = fmt.Sprintf("node %d", s.LeaderID)
	}
	if s.CommitLag != nil {
		lag = fmt.Sprintf(" (%d behind)", *s.CommitLag)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "node\t%d of %d, raftproxy %s\n", s.ReplicaID, len(s.Members), s.Version)
	_, _ = fmt.Fprintf(t, "replica\t%s\n", state)
	_, _ = fmt.Fprintf(t, "leader\t%s, term %d\n", leader, s.Term)
	_, _ = fmt.Fprintf(t, "applied\t%d%s\n", s.AppliedIndex, lag)
	_, _ = fmt.Fprintf(t, "table\t%d keys, %d bytes of %v\n", s.Keys, s.Bytes, config.Size(s.Quota))
	_, _ = fmt.Fprintf(t, "state hash\t%s\n", s.StateHash)
	_, _ = fmt.Fprintf(t, "segment\t%s, generation %d\n", s.ShmPath, s.Generation)
	_, _ = fmt.Fprintf(t, "disk\t%d MiB free\n", s.DiskFree>>20)
	_, _ = fmt.Fprintf(t, "in flight\t%d sets and deletes\n", s.InFlight)
	_, _ = fmt.Fprintf(t, "sessions\t%d\n", s.Sessions)
	for _, m := range s.Members {
		reach := "not known whether reachable"
		switch {
		case m.Self:
			reach = "this node"
		case m.Reachable != nil && *m.Reachable:
			reach = "reachable"
		case m.Reachable != nil:
			reach = "not reachable"
		}
		_, _ = fmt.Fprintf(t, "member %d\t%s, %s\n", m.ID, m.Address, reach)
	}
	return t.Flush()
}
