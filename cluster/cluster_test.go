package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if settings := os.Getenv(childEnv); settings != "" {
		runChild(settings)
	}
	useLogger(zerolog.Nop()) // some tests use parts of dragonboat without a node
	goleak.VerifyTestMain(m)
}

// group is some members in this process.
type group struct {
	t       testing.TB
	configs map[uint64]Config
	nodes   map[uint64]*Node // those that run
}

// newGroup prepares members 1..size; change may alter their settings.
func newGroup(t testing.TB, size int, change func(*Config)) *group {
	t.Helper()
	g := &group{t: t, configs: make(map[uint64]Config), nodes: make(map[uint64]*Node)}
	members := make(map[uint64]string)
	for id := range uint64(size) {
		members[id+1] = freeAddress(t)
	}
	dir := t.TempDir()
	shm, err := os.MkdirTemp("/dev/shm", "raftproxy-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	for id, address := range members {
		cfg := Config{
			ReplicaID:   id,
			RaftAddress: address,
			Members:     maps.Clone(members),
			DataDir:     filepath.Join(dir, fmt.Sprint(id)),
			ShmPath:     filepath.Join(shm, fmt.Sprint(id), "table"),
			RTT:         10 * time.Millisecond,
			Logger:      testLogger(t),
		}
		if change != nil {
			change(&cfg)
		}
		g.configs[id] = cfg
	}
	t.Cleanup(g.stopAll)
	return g
}

// testLogger writes to the test's output with RAFTPROXY_TEST_LOG=debug or the like.
func testLogger(t testing.TB) zerolog.Logger {
	level, err := zerolog.ParseLevel(os.Getenv("RAFTPROXY_TEST_LOG"))
	if err != nil || level == zerolog.NoLevel {
		return zerolog.Nop()
	}
	return zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: "05.000", NoColor: true}).
		Level(level).With().Timestamp().Str("test", t.Name()).Logger()
}

// freeAddress asks the kernel for a port, on a loopback address of our own so
// that nobody else takes it before we do.
func freeAddress(t testing.TB) string {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startGroup(t testing.TB, size int, change func(*Config)) *group {
	t.Helper()
	g := newGroup(t, size, change)
	g.startAll()
	return g
}

func (g *group) start(id uint64) *Node {
	g.t.Helper()
	n, err := Start(g.configs[id])
	if err != nil {
		g.t.Fatalf("starting %d: %v", id, err)
	}
	g.nodes[id] = n
	return n
}

// startAll starts all members and waits until they are ready.
func (g *group) startAll() {
	g.t.Helper()
	for id := range g.configs {
		if g.nodes[id] == nil {
			g.start(id)
		}
	}
	g.awaitReady()
}

func (g *group) awaitReady() {
	g.t.Helper()
	for id, n := range g.nodes {
		poll(g.t, fmt.Sprintf("member %d is ready", id), n.Ready)
	}
}

func (g *group) stop(id uint64) {
	g.t.Helper()
	n := g.nodes[id]
	delete(g.nodes, id)
	if err := n.Close(); err != nil {
		g.t.Errorf("closing %d: %v", id, err)
	}
}

func (g *group) stopAll() {
	for id := range g.nodes {
		g.stop(id)
	}
}

// leader returns the id that all running members take for the leader.
func (g *group) leader() uint64 {
	g.t.Helper()
	var id uint64
	poll(g.t, "a leader", func() error {
		id = 0
		for _, n := range g.nodes {
			l := n.Status().LeaderID
			if l == 0 || g.nodes[l] == nil || id != 0 && id != l {
				return fmt.Errorf("%d, %d", id, l)
			}
			id = l
		}
		return nil
	})
	return id
}

// agree waits until all running members have the same content, and returns it.
func (g *group) agree() map[string]string {
	g.t.Helper()
	poll(g.t, "equal state hashes", func() error {
		seen := ""
		for id, n := range g.nodes {
			s := n.Status()
			this := fmt.Sprintf("%d %s", s.AppliedIndex, s.StateHash)
			if seen != "" && seen != this {
				return fmt.Errorf("member %d has %s, another %s", id, this, seen)
			}
			seen = this
		}
		return nil
	})
	var content map[string]string
	for id, n := range g.nodes {
		c := listed(n)
		if content != nil && !maps.Equal(c, content) {
			g.t.Fatalf("member %d has other content with the same hash", id)
		}
		content = c
	}
	return content
}

func listed(n *Node) map[string]string {
	content := make(map[string]string)
	for k, v := range n.List {
		content[string(k)] = string(v)
	}
	return content
}

// poll waits until check returns nil.
func poll(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("waiting for %s: %v", what, err)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustSet(t testing.TB, n *Node, key, value string) {
	t.Helper()
	if err := n.Set(within(t, 20*time.Second), []byte(key), []byte(value)); err != nil {
		t.Fatalf("setting %q: %v", key, describe(err))
	}
}

// describe shows all fields of an error.
func describe(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return fmt.Sprintf("%s %s | %s | %s", e.Code, e.Message, e.DetailText, e.HintText)
	}
	return fmt.Sprint(err)
}

func wantCode(t testing.TB, err error, code string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %s, want code %s", describe(err), code)
	}
	return e
}

func wantValue(t testing.TB, n *Node, key, want string) {
	t.Helper()
	got, ok := n.Get(nil, []byte(key))
	if !ok || !bytes.Equal(got, []byte(want)) {
		t.Fatalf("Get(%q) = %q, %v, want %q", key, got, ok, want)
	}
}
