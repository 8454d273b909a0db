package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/raftproxy/raftproxy/internal/group"
)

// TestSetHereReadThere sets through every node and reads on all others.
func TestSetHereReadThere(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3})
	for _, from := range g.Nodes() {
		key := fmt.Sprintf("from-%d", from.ID)
		if out := mustPsql(t, from.URL(), "select raftable('"+key+"', 'v"+key+"')"); out != "" {
			t.Errorf("a set printed %q", out)
		}
		if out := mustPsql(t, from.URL(), "select raftable('"+key+"')"); out != "v"+key {
			t.Errorf("node %d does not see its own set: %q", from.ID, out)
		}
		for _, to := range g.Nodes() {
			waitForOutput(t, to.URL(), "select raftable('"+key+"')", "v"+key)
		}
	}
	for _, n := range g.Nodes() {
		if out := mustPsql(t, n.URL(), "select 6 * 7"); out != "42" {
			t.Errorf("PostgreSQL says %q", out)
		}
	}
	mustPsql(t, g.Nodes()[0].URL(), "select raftable('from-1', null)")
	for _, n := range g.Nodes() {
		waitForOutput(t, n.URL(), "select count(*) from (select 1) x", "1")
		waitForOutput(t, n.URL(), "select * from raftable()", "from-2|vfrom-2\nfrom-3|vfrom-3")
	}
}

// acknowledged is what sets were answered with success; each key is set once only.
type acknowledged struct {
	mu sync.Mutex
	kv map[string]string
}

func (a *acknowledged) add(key, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kv[key] = value
}

func (a *acknowledged) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.kv)
}

// writer sets key after key, through another node whenever one fails, until ctx ends.
func writer(ctx context.Context, t *testing.T, g *group.Group, name string, set func(ctx context.Context, url, key, value string) error, acks *acknowledged) {
	nodes := g.Nodes()
	at := len(name) // anywhere
	for i := 0; ctx.Err() == nil; i++ {
		key, value := name+"-"+strconv.Itoa(i), "value-"+strconv.Itoa(i)
		if err := set(ctx, nodes[at%len(nodes)].URL(), key, value); err == nil {
			acks.add(key, value)
			continue
		} else if bad := wrongError(err); bad != "" && ctx.Err() == nil {
			t.Errorf("%s: %s: %v", key, bad, err)
		}
		at++
	}
}

// wrongError says what is wrong with the error of a set, by what connection pools and frameworks make of its class.
func wrongError(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "" // the connection broke: the node was killed
	}
	switch {
	case pg.Code == "57P01" || strings.HasPrefix(pg.Code, "08"):
		return "" // the end of a session or a start that PostgreSQL did not answer
	case pg.Code == "55000" || pg.Code == "40003" || pg.Code == "53000" || pg.Code == "57014":
		return ""
	}
	return "an error that no set should have"
}

// pgxWriter keeps a connection as long as it works.
type pgxWriter struct {
	conn *pgx.Conn
	url  string
	mode pgx.QueryExecMode
}

func (w *pgxWriter) set(ctx context.Context, url, key, value string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if w.conn == nil || w.conn.IsClosed() || w.url != url {
		w.close()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		w.conn, w.url = conn, url
	}
	_, err := w.conn.Exec(ctx, "select raftable($1, $2)", w.mode, key, value)
	return err
}

func (w *pgxWriter) close() {
	if w.conn != nil {
		_ = w.conn.Close(context.Background())
	}
}

// startWriters starts clients of several kinds; stop ends them and returns when they have ended.
func startWriters(t *testing.T, g *group.Group, acks *acknowledged) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for name, mode := range map[string]pgx.QueryExecMode{
		"prepared": pgx.QueryExecModeCacheStatement, "described": pgx.QueryExecModeDescribeExec,
		"unnamed": pgx.QueryExecModeExec, "simple": pgx.QueryExecModeSimpleProtocol,
	} {
		w := &pgxWriter{mode: mode}
		wg.Go(func() {
			defer w.close()
			writer(ctx, t, g, name, w.set, acks)
		})
	}
	wg.Go(func() {
		writer(ctx, t, g, "psql", func(ctx context.Context, url, key, value string) error {
			_, err := psql(ctx, url, "select raftable('"+key+"', '"+value+"')")
			return err
		}, acks)
	})
	return func() { cancel(); wg.Wait() }
}

// TestAcknowledgedSetsSurvive kills the leader during a stream of sets, and then all nodes at once.
func TestAcknowledgedSetsSurvive(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3})
	acks := &acknowledged{kv: map[string]string{}}
	stop := startWriters(t, g, acks)
	defer stop()
	more := func(what string, n int) {
		t.Helper()
		goal := acks.count() + n
		waitFor(t, what, func() error {
			if got := acks.count(); got < goal {
				return fmt.Errorf("%d sets acknowledged, waiting for %d", got, goal)
			}
			return nil
		})
	}
	more("the first sets", 200)
	leader, err := g.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	more("sets without the first leader", 200)
	next, err := g.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next == leader {
		t.Fatal("a killed node leads")
	}
	if err := errors.Join(leader.Start(t.Context()), leader.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	more("sets with the old leader back", 200)
	for _, n := range g.Nodes() { // all signals before any wait
		if err := n.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for _, n := range g.Nodes() {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range g.Nodes() {
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range g.Nodes() {
		if err := n.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkAcknowledged(t, g, acks)
}

// checkAcknowledged finds every acknowledged set on every node, and nothing that nobody wrote.
func checkAcknowledged(t *testing.T, g *group.Group, acks *acknowledged) {
	t.Helper()
	t.Logf("%d acknowledged sets", acks.count())
	for _, n := range g.Nodes() {
		waitFor(t, fmt.Sprintf("all acknowledged sets on node %d", n.ID), func() error {
			rows, err := table(t.Context(), n.URL())
			if err != nil {
				return err
			}
			found := map[string]string{}
			for _, kv := range rows {
				found[kv[0]] = kv[1]
			}
			for key, value := range acks.kv {
				if found[key] != value {
					return fmt.Errorf("%s is %q, acknowledged was %q", key, found[key], value)
				}
			}
			for key, value := range found {
				if _, number, _ := strings.Cut(key, "-"); value != "value-"+number {
					t.Fatalf("%s is %q, which nobody wrote", key, value)
				}
			}
			return nil
		})
	}
}

// TestANodeThatWasAway is the test of the original extension: values of several sizes set on every node, while one of them
// is away for a time; then every node has every key, one by one and in the list.
func TestANodeThatWasAway(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3})
	want := map[string]string{}
	set := func(n *group.Node, when string) {
		t.Helper()
		for _, size := range []int{1, 100, 1000, 3000} {
			key := fmt.Sprintf("%s/node%d/%d", when, n.ID, size)
			value := strings.Repeat(strconv.Itoa(int(n.ID)), size)
			mustPsql(t, n.URL(), "select raftable('"+key+"', '"+value+"')")
			want[key] = value
		}
	}
	for _, away := range g.Nodes() {
		for _, n := range g.Nodes() {
			set(n, fmt.Sprintf("before-%d", away.ID))
		}
		if err := away.Stop(); err != nil {
			t.Fatal(err)
		}
		for _, n := range g.Nodes() {
			if n != away {
				// Where the leader went, the others take a moment to agree on a new one.
				waitFor(t, "a set without the node", func() error {
					_, err := psql(t.Context(), n.URL(), "select raftable('ping', 'x')")
					return err
				})
				set(n, fmt.Sprintf("without-%d", away.ID))
			}
		}
		if err := errors.Join(away.Start(t.Context()), away.WaitReady(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	want["ping"] = "x"
	for _, n := range g.Nodes() {
		conn, err := pgx.Connect(t.Context(), n.URL())
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			waitFor(t, key, func() error {
				var got *string
				if err := conn.QueryRow(t.Context(), "select raftable('"+key+"')").Scan(&got); err != nil {
					return err
				}
				if got == nil || *got != value {
					return errors.New("is not there yet")
				}
				return nil
			})
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
		var list []string
		for _, key := range slices.Sorted(maps.Keys(want)) {
			list = append(list, "("+key+","+want[key]+")")
		}
		if out := mustPsql(t, n.URL(), "select raftable()"); out != strings.Join(list, "\n") {
			t.Errorf("node %d: list of %d bytes differs", n.ID, len(out))
		}
	}
}
