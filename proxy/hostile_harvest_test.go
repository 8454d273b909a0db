package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// harvestOf is a harvested statement of n rows, each with a value and some more.
func harvestOf(n int) string {
	return fmt.Sprintf("SELECT raftable('k' || to_char(n, 'FM0000000'), n::text), repeat('x', 1000) FROM generate_series(0, %d) n", n-1)
}

// prefixOf says whether the table has the sets of the first rows of harvestOf and no others, and of how many.
func prefixOf(t *testing.T, table *mapTable) (n int) {
	t.Helper()
	next := 0
	table.List(func(key, value []byte) bool {
		if want := fmt.Sprintf("k%07d", next); string(key) != want || string(value) != itoa(next) {
			t.Fatalf("key %d is %s with %s, want %s: what was set is no prefix", next, key, value, want)
		}
		next++
		return true
	})
	return next
}

// blockAt has sets wait behind the first n, until they are given up or the returned function is called.
func blockAt(table *mapTable, n int64, then func(ctx context.Context) error) (waiting chan struct{}, release func()) {
	waiting = make(chan struct{})
	open := make(chan struct{})
	var sets atomic.Int64
	table.block = func(ctx context.Context) error {
		if sets.Add(1) <= n {
			return nil
		}
		select {
		case <-open:
			return nil
		default:
		}
		select {
		case waiting <- struct{}{}:
		case <-open:
			return nil
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return then(ctx)
		}
	}
	return waiting, func() { close(open) }
}

// TestHarvestCancelled cancels a harvest while a set waits. The error says how far the statement had come, and the rows before
// have been seen.
func TestHarvestCancelled(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	for _, c := range []struct{ code, detail string }{
		{"57014", `D="The sets of the 700 rows before have taken effect; this one and the next ones have not."`},
		{"40003", `D="The sets of the 700 rows before have taken effect; this one and the next ones may have been applied, or may yet be."`},
	} {
		t.Run(c.code, func(t *testing.T) {
			table := newMapTable()
			waiting, _ := blockAt(table, 700, func(ctx context.Context) error {
				if !errors.Is(context.Cause(ctx), errCanceled) {
					return &mapError{code: "55000", message: "no leader"}
				}
				return &mapError{code: c.code, message: "canceling statement due to user request"}
			})
			_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t), SetTimeout: time.Minute})
			w := dialWire(t, addr)
			w.send(query(harvestOf(2000)))
			<-waiting
			cancelRequest(t, addr, w.key)
			got := w.run(&script{lines: []string{"> wait 703"}})
			if last := strings.Join(got[len(got)-2:], "\n"); !strings.Contains(last, `C="`+c.code+`"`) || !strings.Contains(last, c.detail) || !strings.HasSuffix(last, "Z I") {
				t.Errorf("the last messages are\n%s", last)
			}
			if n := strings.Count(strings.Join(got, "\n"), "\nD "); n != 700 {
				t.Errorf("%d rows were seen", n)
			}
			if n := prefixOf(t, table); n != 700 {
				t.Errorf("%d keys were set", n)
			}
			w.expect("SELECT raftable('k0000007')", `D "7"`)
		})
	}
}

// TestHarvestCancelledAtTheServer cancels one while postgres works on a row.
func TestHarvestCancelledAtTheServer(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	control := dialWire(t, pg.Addr())
	for _, what := range []string{"rows as they come", "rows that are held"} {
		t.Run(what, func(t *testing.T) {
			table.clear()
			w := dialWire(t, addr)
			text := "SELECT raftable('k' || to_char(n, 'FM0000000'), n::text), pg_sleep(CASE WHEN n = 20 THEN 1000 ELSE 0 END) FROM generate_series(0, 30) n"
			if what != "rows as they come" {
				w.expect("CREATE TEMP TABLE c (n int)", "C CREATE TABLE")
				text = "INSERT INTO c SELECT n FROM generate_series(0, 30) n RETURNING raftable('k' || to_char(n, 'FM0000000'), n::text), pg_sleep(CASE WHEN n = 20 THEN 1000 ELSE 0 END)"
			}
			w.send(query(text))
			eventually(t, "the statement sleeps", func() bool {
				return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), `D "1"`)
			})
			cancelRequest(t, addr, w.key)
			got := strings.Join(w.run(&script{lines: []string{"> query \"SELECT 1\"", "> wait"}}), "\n")
			got += strings.Join(w.run(&script{lines: []string{"> query \"SELECT 2\"", "> wait"}}), "\n")
			if !strings.Contains(got, `C="57014"`) {
				t.Errorf("got\n%s", got)
			}
			if n := prefixOf(t, table); n > 20 {
				t.Errorf("%d keys were set", n)
			}
		})
	}
}

// TestHarvestDrained tells a session to go while a set of a harvest waits. It goes when the statement has ended.
func TestHarvestDrained(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting, release := blockAt(table, 700, func(ctx context.Context) error { return ctx.Err() })
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t), SetTimeout: time.Minute})
	w := dialWire(t, addr)
	w.send(query(harvestOf(2000)))
	<-waiting
	ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	eventually(t, "the session is told", func() bool {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		for s := range srv.sessions {
			return s.draining.Load()
		}
		return false
	})
	release()
	got := w.run(&script{lines: []string{"> wait 2005"}})
	if n := strings.Count(strings.Join(got, "\n"), "\nD "); n != 2000 {
		t.Errorf("%d rows were seen", n)
	}
	if last := strings.Join(got[max(0, len(got)-4):], "\n"); !strings.Contains(last, "C SELECT 2000\nZ I\n") || !strings.Contains(last, `C="57P01"`) {
		t.Errorf("the last messages are\n%s", last)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if n := prefixOf(t, table); n != 2000 {
		t.Errorf("%d keys were set", n)
	}
}

// TestHarvestCutOff ends a session whose set of a harvest will never end.
func TestHarvestCutOff(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting, _ := blockAt(table, 600, func(context.Context) error { return &mapError{code: "57014", message: "ended"} })
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t), SetTimeout: time.Hour})
	w := dialWire(t, addr)
	w.send(query(harvestOf(2000)))
	<-waiting
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Shutdown(ctx) }()
	select {
	case <-done:
	case <-time.After(wireTimeout):
		t.Fatal("Shutdown hangs")
	}
	eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })
	if n := prefixOf(t, table); n != 600 {
		t.Errorf("%d keys were set", n)
	}
}

// TestHarvestServerDies takes the server away in the middle of a harvest.
func TestHarvestServerDies(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting, release := blockAt(table, 3000, func(ctx context.Context) error { return ctx.Err() })
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t), SetTimeout: time.Minute})
	w := dialWire(t, addr)
	w.send(query(harvestOf(1_000_000)))
	<-waiting
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	release()
	rows := 0
	for {
		typ, body, err := w.read()
		if err != nil {
			if errorKind(err) != "connection closed" {
				t.Error(err)
			}
			break
		}
		switch typ {
		case 'D':
			rows++
		case 'T':
		case 'E':
			if line := transcribe(typ, body); !strings.Contains(line, `C="57P0`) {
				t.Errorf("the client is told %s", line)
			}
		default:
			t.Fatalf("the client is told %s", transcribe(typ, body))
		}
	}
	eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })
	if n := prefixOf(t, table); n < rows || n < 3000 || n >= 1_000_000 {
		t.Errorf("%d rows were seen, %d keys set", rows, n)
	}
}

// TestHarvestClientNeverReads stops the client's own server only, and a bounded amount is set ahead of what it reads.
func TestHarvestClientNeverReads(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	srv, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: table, Logger: testLogger(t)})
	other, control := dialWire(t, addr), dialWire(t, pg.Addr())
	stuck := func() bool {
		return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"), `D "1"`)
	}
	w := dialWire(t, addr)
	h := watchHeap(t)
	w.send(query(harvestOf(1_000_000)))
	eventually(t, "the server waits for its client", stuck)
	for range 50 {
		other.expect("SELECT raftable('k0000001')", `D "1"`)
		other.expect("SELECT repeat('y', 100000)", "D ")
	}
	if !stuck() {
		t.Error("the server does not wait any more")
	}
	h.check()
	if n := prefixOf(t, table); n == 0 || n > 100_000 {
		t.Errorf("%d keys were set", n)
	}
	w.c.Close()
	eventually(t, "its session ends", func() bool { return srv.Sessions() == 1 })
	eventually(t, "its server ends", func() bool {
		return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ARRAY%'"), `D "0"`)
	})
	prefixOf(t, table)
}

// manyCalls is a statement of a size with calls for the keys k0, k1 and so on.
func manyCalls(calls, size int) string {
	var b strings.Builder
	b.WriteString("SELECT count(*) FROM (VALUES ('0')")
	for i := range calls {
		fmt.Fprintf(&b, ", (raftable('k%d'))", i)
	}
	b.WriteString(") v(x) WHERE x IS NOT NULL /*")
	return b.String() + strings.Repeat("y", size-b.Len()-2) + "*/"
}

// TestLargestStatementWithManyCalls has a statement of the largest size that is looked into, with as many calls as are values
// of their own, and with more. The memory that it takes is a few times its size.
func TestLargestStatementWithManyCalls(t *testing.T) {
	for _, calls := range []int{10_000, 20_000} {
		s, said := modelSession(t)
		h := watchHeap(t)
		text := manyCalls(calls, 16<<20-100)
		feedAll(t, s, query(text), query(textOurs))
		h.look()
		if got := types(said.Bytes()); strings.Contains(got, "E") || !strings.HasSuffix(got, "CZI TDCZI ") {
			t.Errorf("answers %q", got)
		}
		if grown := int64(h.peak) - int64(h.first); grown > 512<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	}
}

// TestManyCallsPostgres has PostgreSQL run statements with many calls.
func TestManyCallsPostgres(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: table, Logger: testLogger(t)})
	for i := range 100 {
		table.put("k"+itoa(i), itoa(i))
	}
	w := dialWire(t, addr)
	for _, calls := range []int{1000, 11_000} {
		w.deadline()
		w.send(query(manyCalls(calls, 2<<20)))
		w.ready = 1
		got := strings.Join(w.run(&script{lines: []string{"> wait"}}), "\n")
		if !strings.Contains(got, `D "101"`) {
			t.Errorf("%d calls: %s", calls, got)
		}
	}
	w.expect("SELECT raftable('k1')", `D "1"`)
}

// TestTooManyValues has a client that uses up all parameters that a statement can have.
func TestTooManyValues(t *testing.T) {
	s, said := modelSession(t)
	text := "SELECT raftable('k'), $" + itoa(maxValues) + "::text"
	feedAll(t, s, message(t, []string{"parse", "", text}), syncMessage)
	if got := types(said.Bytes()); got != "EZI " || !bytes.Contains(said.Bytes(), []byte("C54000\x00")) {
		t.Errorf("answers %q", said.Bytes())
	}
	said.Reset()
	feedAll(t, s, query(textOurs))
	if got := types(said.Bytes()); got != "TDCZI " {
		t.Errorf("answers to a query %q", got)
	}
}

// TestWholeTable asks for what needs all of the table: one of 100,000 keys, and one that is too large.
func TestWholeTable(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	for i := range 100_000 {
		table.put(fmt.Sprintf("k%06d", i), itoa(i))
	}
	w.expect("SELECT count(*), sum(value::int), min(key), max(key) FROM raftable()", `D "100000" "4999950000" "k000000" "k099999"`)
	w.expect("SELECT key FROM raftable() WHERE value = '77777'", `D "k077777"`)
	w.expect("SELECT sum(raftable('k' || to_char(n, 'FM000000'))::int) FROM generate_series(0, 99999) n", `D "4999950000"`)
	w.expect("SELECT a.value FROM raftable() a JOIN raftable() b USING (key) ORDER BY 1 DESC LIMIT 1", `D "99999"`)

	table.clear()
	for i := range 65 {
		table.put(itoa(i), strings.Repeat("x", 1<<20))
	}
	for _, text := range []string{"SELECT count(*) FROM raftable()", "SELECT raftable(n::text) FROM generate_series(1, 3) n WHERE raftable(n::text) IS NOT NULL",
		"SELECT 1; SELECT count(*) FROM raftable()", "COPY (SELECT * FROM raftable()) TO STDOUT"} {
		w.expect(text, `C="54000"`)
		w.expect("SELECT length(raftable('7'))", `D "1048576"`)
	}
	lines := []string{`> parse "" "SELECT count(*) FROM raftable()"`, `> bind "" ""`, `> execute ""`, `> parse "" "SELECT 7"`, "> sync", "> wait"}
	if got := strings.Join(w.run(&script{lines: lines}), "\n"); !strings.Contains(got, `C="54000"`) || !strings.HasSuffix(got, "\nZ I") || strings.Count(got, "\n") != 2 {
		t.Errorf("in the extended protocol:\n%s", got)
	}
	w.expect("BEGIN", "Z T")
	w.expect("SELECT count(*) FROM raftable()", "Z E")
	w.expect("ROLLBACK", "Z I")
	w.expect("SELECT length(raftable('7'))", `D "1048576"`)
	w.expect("SELECT sum(length(value)) FROM (SELECT raftable('7') AS value) s", `D "1048576"`)
}
