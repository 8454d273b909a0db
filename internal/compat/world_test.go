package compat

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/cluster"
	"github.com/raftproxy/raftproxy/internal/pgtest"
	"github.com/raftproxy/raftproxy/proxy"
)

const (
	readyLimit = time.Minute           // for the table to have a leader
	runLimit   = 2 * time.Minute       // for one program
	endLimit   = 10 * time.Second      // for the sessions of programs that have ended to end
	pollEvery  = 5 * time.Millisecond  // the pace of polling
	setTimeout = 30 * time.Second      // of a set: the disk may be busy, and no test here is about that
	portTries  = 10                    // somebody else may take a free port before we do
	password   = `it's "scram" \ паро` // of the superuser: every program must quote it
)

// world is what all sub-tests share: a server that asks for a password, a replicated table of one member, a proxy.
type world struct {
	pg    *pgtest.Server
	table *cluster.Node
	proxy *proxy.Server
	host  string
	port  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.WarnLevel)
	logger := zerolog.New(zerolog.NewTestWriter(t))
	w := &world{
		pg: pgtest.New(t, pgtest.Options{
			Auth: "scram-sha-256", Password: password, Config: []string{"wal_level = logical", "wal_keep_size = '64MB'"},
		}),
		table: startTable(t, logger),
	}
	var err error
	w.proxy, err = proxy.New(proxy.Config{Upstream: w.pg.Addr(), Table: w.table, Logger: logger, SetTimeout: setTimeout})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.proxy.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), endLimit)
		defer cancel()
		if err := w.proxy.Shutdown(ctx); err != nil {
			t.Errorf("end of the proxy: %v", err)
		}
		if err := <-done; !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("the proxy ended with %v", err)
		}
	})
	if w.host, w.port, err = net.SplitHostPort(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	return w
}

// startTable starts a group of one and waits until it takes sets.
func startTable(t *testing.T, logger zerolog.Logger) *cluster.Node {
	t.Helper()
	dir := t.TempDir()
	var node *cluster.Node
	for try := 1; node == nil; try++ {
		addr := freeAddress(t)
		var err error
		node, err = cluster.Start(cluster.Config{
			ReplicaID: 1, RaftAddress: addr, Members: map[uint64]string{1: addr},
			DataDir: filepath.Join(dir, strconv.Itoa(try)), ShmPath: filepath.Join(dir, "table"), Logger: logger,
		})
		if err != nil && try == portTries {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Errorf("end of the table: %v", err)
		}
	})
	eventually(t, readyLimit, "the table is ready", func() bool { return node.Ready() == nil })
	return node
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually polls a condition.
func eventually(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// rows is the table's content as the member has it, asked without any proxy.
func (w *world) rows() map[string]string {
	rows := map[string]string{}
	w.table.List(func(key, value []byte) bool {
		rows[string(key)] = string(value)
		return true
	})
	return rows
}

// clear empties the table.
func (w *world) clear(t *testing.T) {
	t.Helper()
	for key := range w.rows() {
		if err := w.table.Delete(t.Context(), []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
}

// env is the environment of a client program; the variables are those that libpq and most drivers read.
func (w *world) env(host, port string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC",
		"PGHOST=" + host, "PGPORT=" + port, "PGUSER=" + pgtest.Superuser, "PGPASSWORD=" + password,
		"PGDATABASE=" + pgtest.DefaultDatabase, "PGCONNECT_TIMEOUT=60",
	}
}

// through is the environment that leads to the proxy, direct the one that leads past it.
func (w *world) through() []string { return w.env(w.host, w.port) }
func (w *world) direct() []string  { return w.env("127.0.0.1", strconv.Itoa(w.pg.Port())) }
