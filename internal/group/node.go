package group

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/raftproxy/raftproxy/internal/admin"
	"github.com/raftproxy/raftproxy/internal/child"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

const (
	readyLimit = 90 * time.Second // with a race-enabled binary on a machine that is busy
	stopGrace  = 30 * time.Second
	portLimit  = 30 * time.Second // for a port of a node that was stopped to become free again
	askLimit   = 5 * time.Second  // for one answer of the admin endpoint
	pollEvery  = 20 * time.Millisecond
	logTail    = 4 << 10
)

// errPortTaken is the fault of a node that somebody else was faster than.
var errPortTaken = errors.New("a port was taken")

// Node is one member: a raftproxy process and its PostgreSQL.
type Node struct {
	ID       uint64
	Raft     string // addresses, host:port; the same over stops and starts
	Listen   string
	Admin    string
	Postgres *pgtest.Server

	group  *Group
	dir    string
	proc   *child.Process
	client *admin.Client
	logOld int64 // size of the log when the process was started
}

func (n *Node) startPostgres(ctx context.Context) error {
	if err := os.Mkdir(n.dir, 0o711); err != nil {
		return err
	}
	o := n.group.o.Postgres
	o.Dir = n.dir
	if n.group.o.Templates {
		o.Templates = filepath.Join(n.group.dir, "templates")
	}
	var err error
	n.Postgres, err = pgtest.Start(ctx, o)
	return err
}

// Dir is the node's own directory, removed with the group.
func (n *Node) Dir() string { return n.dir }

// DataDir is where the node keeps its log and snapshots.
func (n *Node) DataDir() string { return filepath.Join(n.dir, "raft") }

// ShmPath is the node's shared-memory segment.
func (n *Node) ShmPath() string {
	return filepath.Join(n.group.shm, "node"+strconv.FormatUint(n.ID, 10), "table")
}

// LogFile is what the node wrote to its standard error.
func (n *Node) LogFile() string { return filepath.Join(n.dir, "log") }

// Client talks to the node's admin endpoint.
func (n *Node) Client() *admin.Client { return n.client }

// URL connects the superuser to the node's PostgreSQL through the node.
func (n *Node) URL() string { return pgtest.URL(n.Listen, n.Postgres.Password()) }

// Pid is the process id of the latest start.
func (n *Node) Pid() int { return n.proc.Pid() }

// Done is closed when the process of the latest start has ended.
func (n *Node) Done() <-chan struct{} { return n.proc.Done() }

// Running says whether the process runs.
func (n *Node) Running() bool { return n.proc != nil && n.proc.Running() }

// Args are the arguments that the node is started with.
func (n *Node) Args() []string {
	args := []string{
		"serve", "--node-id", strconv.FormatUint(n.ID, 10), "--peers", n.group.peers(), "--data-dir", n.DataDir(),
		"--shm-path", n.ShmPath(), "--listen", n.Listen, "--upstream", n.Postgres.Addr(), "--admin", n.Admin,
	}
	if n.group.o.Args != nil {
		args = append(args, n.group.o.Args(n)...)
	}
	return args
}

// launch starts the process and does not wait for it.
func (n *Node) launch() error {
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	n.logOld = info.Size()
	cmd := exec.Command(n.group.o.Binary, n.Args()...)
	cmd.Stdout, cmd.Stderr = log, log
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RAFTPROXY_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	if n.client != nil {
		n.client.Close()
	}
	n.client = admin.NewClient(n.Admin)
	n.proc, err = child.Start(cmd, syscall.SIGKILL)
	return err
}

// Start starts the process again, on its old addresses, and does not wait until it is ready.
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, portLimit)
	defer cancel()
	for {
		if err := n.launch(); err != nil {
			return err
		}
		err := n.waitAlive(ctx)
		if !errors.Is(err, errPortTaken) || ctx.Err() != nil {
			return err
		}
	}
}

// waitAlive waits until the admin endpoint answers.
func (n *Node) waitAlive(ctx context.Context) error {
	return poll(ctx, func() error {
		if err := n.ended(); err != nil {
			return permanent{err}
		}
		ctx, cancel := n.asking(ctx)
		defer cancel()
		_, err := n.client.Status(ctx)
		return err
	})
}

// asking bounds one question to the admin endpoint. It ends with the process too: where that could not bind the port,
// somebody else holds it, who may never answer.
func (n *Node) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	done := n.proc.Done()
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// WaitReady waits until the node says that it is ready; an end of its process is an error.
func (n *Node) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	err := poll(ctx, func() error {
		if err := n.ended(); err != nil {
			return permanent{err}
		}
		ctx, cancel := n.asking(ctx)
		defer cancel()
		r, err := n.client.Readiness(ctx)
		if err == nil && !r.Ready {
			err = fmt.Errorf("%+v", r.Checks)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("node %d is not ready: %w\n%s", n.ID, err, n.LogTail())
	}
	return nil
}

// ended says how the process ended, and nil while it runs.
func (n *Node) ended() error {
	if n.Running() {
		return nil
	}
	err := fmt.Errorf("its process ended: %v", n.proc.Wait())
	if strings.Contains(n.Log(), syscall.EADDRINUSE.Error()) {
		err = fmt.Errorf("%w: %w", err, errPortTaken)
	}
	return err
}

// Stop ends the process by SIGTERM and reports an exit code that is not 0.
func (n *Node) Stop() error {
	if n.proc == nil {
		return nil
	}
	if err := n.proc.Stop(syscall.SIGTERM, stopGrace); err != nil {
		return err
	}
	if err := n.proc.Wait(); err != nil {
		return fmt.Errorf("node %d after SIGTERM: %w", n.ID, err)
	}
	return nil
}

// Signal sends a signal to the process.
func (n *Node) Signal(sig syscall.Signal) error { return n.proc.Signal(sig) }

// Kill ends the process by SIGKILL.
func (n *Node) Kill() error {
	if n.proc == nil {
		return nil
	}
	return n.proc.Kill()
}

// ExitCode waits for the end of the process; -1 means a signal.
func (n *Node) ExitCode() int { return n.proc.ExitCode() }

// forget removes what the node kept, for a start as a new member of a new group.
func (n *Node) forget() error {
	return errors.Join(os.RemoveAll(n.DataDir()), os.RemoveAll(filepath.Dir(n.ShmPath())), os.RemoveAll(n.LogFile()))
}

func (n *Node) close() error {
	err := n.Kill()
	if n.client != nil {
		n.client.Close()
	}
	if n.Postgres != nil {
		err = errors.Join(err, n.Postgres.Close())
	}
	return err
}

// Log is what the process of the latest start wrote.
func (n *Node) Log() string {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(b[min(n.logOld, int64(len(b))):])
}

// LogTail is the end of Log.
func (n *Node) LogTail() string {
	log := n.Log()
	return log[max(0, len(log)-logTail):]
}

// permanent is an error that polling again does not help.
type permanent struct{ error }

// Unwrap gives the error itself.
func (p permanent) Unwrap() error { return p.error }

// poll asks until there is no error, a permanent one, or ctx has ended; then the last error is the answer.
func poll(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		var p permanent
		if err == nil {
			return nil
		} else if errors.As(err, &p) {
			return p.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}
