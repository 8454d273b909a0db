package proxy

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// gather is the messages of lines of a script.
func gather(t testing.TB, lines ...string) (b []byte) {
	t.Helper()
	for _, line := range lines {
		b = append(b, message(t, splitWords(line))...)
	}
	return b
}

// onlySession is the server's one session.
func (s *Server) onlySession(t testing.TB) *session {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) != 1 {
		t.Fatalf("there are %d sessions", len(s.sessions))
	}
	for one := range s.sessions {
		return one
	}
	return nil
}

// watchedTable is a table that tells of each get.
type watchedTable struct {
	*mapTable
	told func()
}

func (t *watchedTable) Get(dst, key []byte) ([]byte, bool) {
	t.told()
	return t.mapTable.Get(dst, key)
}

// TestManyBinds has a pipeline of statements that PostgreSQL runs with a long value of the table: what of it the proxy holds is bounded.
func TestManyBinds(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	const size, n = 10_000, 100
	var watched atomic.Pointer[session]
	var longest, gets atomic.Int64
	table := &watchedTable{newMapTable(), func() { // called by the goroutine that runs the client's side
		if s := watched.Load(); s != nil {
			longest.Store(max(longest.Load(), int64(len(s.front.queued))))
			gets.Add(1)
		}
	}}
	table.put("k", strings.Repeat("v", size))
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.run(&script{lines: []string{`> parse "s" "SELECT length(raftable('k'))"`, "> sync", "> wait"}})
	watched.Store(srv.onlySession(t))
	lines := slices.Repeat([]string{`> bind "" "s"`, `> execute ""`}, n)
	if said := w.run(&script{lines: append(lines, "> sync", "> wait")}); len(said) != 3*n+1 || said[1] != `D "10000"` {
		t.Errorf("%d messages: %.200q", len(said), said)
	}
	if held := longest.Load(); gets.Load() != n || held < bufferSize/2 || held > bufferSize+size+1000 {
		t.Errorf("there are %d gets, and up to %d bytes are held", gets.Load(), held)
	}
}

// TestHeldRows has a set fail in the last of the rows that a statement has written. The client gets no rows of it, unless there are too many to be
// held that long.
func TestHeldRows(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("CREATE TABLE t (n int, v text)", "C CREATE")
	for _, c := range []struct {
		rows, size int
		some       bool
	}{{10, 1000, false}, {harvestRows + 10, 1000, false}, {2 * heldLimit / 50_000, 50_000, true}} {
		t.Run(fmt.Sprintf("%d rows of %d bytes", c.rows, c.size), func(t *testing.T) {
			w.deadline()
			w.send(query(fmt.Sprintf(`INSERT INTO t SELECT g, repeat('x', %d) FROM generate_series(1, %d) g
				RETURNING v, raftable(CASE WHEN n < %d THEN 'k' END, n::text)`, c.size, c.rows, c.rows)))
			var said []byte
			rows := 0
			for typ, body, err := w.read(); ; typ, body, err = w.read() {
				if err != nil {
					t.Fatal(err)
				}
				if typ == 'D' {
					rows++
					continue
				}
				if said = append(said, typ); typ == 'E' && !strings.Contains(string(body), "C22004\x00") {
					t.Errorf("the error is %s", errorFields(body))
				}
				if typ == 'Z' {
					break
				}
			}
			want := "EZ"
			if c.some {
				want = "TEZ"
			}
			if string(said) != want || (rows > 0) != c.some || rows >= c.rows {
				t.Errorf("the client gets %q, and %d rows", said, rows)
			}
			w.expect("SELECT count(*) FROM t", `D "0"`)
		})
	}
}

// TestSumOfValues has statements need more values than can be sent together. Each is small enough by itself.
func TestSumOfValues(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	const n = maxWholeTable >> 20
	var all string
	table.put("one", "v")
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	for i := range n {
		key := fmt.Sprint("k", i)
		table.put(key, strings.Repeat("v", 1<<20))
		all += "length(raftable('" + key + "')) + "
	}
	w.expect("SELECT "+all+"length(raftable('none'))", "D NULL")
	w.expect("SELECT "+all+"length(raftable('one'))", `C="54000"`)
	w.expect("SELECT "+all+"0", fmt.Sprintf(`D "%d"`, n<<20))
}

// TestLargeBindInPieces sends Bind messages that are too large to be looked at for their own sake, cut behind the header and in the
// middle of the statement's name.
func TestLargeBindInPieces(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t), InspectLimit: 1000})
	value := strings.Repeat("v", 100_000)
	for _, cut := range []int{1, headerSize, headerSize + 1, headerSize + 4, headerSize + 10, 50_000} {
		t.Run(itoa(cut), func(t *testing.T) {
			w := dialWire(t, addr)
			w.run(&script{lines: []string{
				`> parse "local" "SELECT raftable('k', $1)"`, `> parse "other" "SELECT length($1::text)"`,
				`> parse "rewritten" "SELECT raftable('k'), length($1::text)"`, "> sync", "> wait",
			}})
			s := srv.onlySession(t)
			for _, c := range []struct{ name, want string }{
				{"local", `D ""`}, {"other", `D "100000"`}, {"rewritten", "D " + quoted([]byte(value)) + ` "100000"`},
			} {
				bind := gather(t, fmt.Sprintf("bind %q %q %q", "", c.name, value))
				w.send(bind[:cut])
				eventually(t, "the beginning is read", func() bool {
					unread, err := unix.IoctlGetInt(s.front.side.sock.fd, unix.SIOCINQ)
					return err == nil && unread == 0 && s.front.side.state.Load() == sideIdle
				})
				w.send(append(bind[cut:], gather(t, `execute ""`, "sync")...))
				w.ready++
				if said := w.run(&script{lines: []string{"> wait"}}); len(said) != 4 || said[1] != c.want {
					t.Errorf("%s: %.200q", c.name, said)
				}
			}
			w.c.Close()
			eventually(t, "the session has ended", func() bool { return srv.Sessions() == 0 })
		})
	}
}

// largeScripts have messages that are too large to be read, between others that are answered from the table.
var largeScripts = []struct{ name, lines string }{
	{"an unnamed statement", `
		parse "" "SELECT raftable('k')"
		parse "" "SELECT '{x*1000}'"
		bind "" ""
		describe P ""
		execute ""
		sync
		wait`},
	{"an unnamed statement behind a Sync", `
		parse "" "SELECT raftable('k')"
		bind "" ""
		execute ""
		sync
		wait
		parse "" "SELECT '{x*1000}'"
		describe S ""
		bind "" ""
		execute ""
		sync
		wait
		parse "" "SELECT raftable('k')"
		bind "" ""
		execute ""
		sync
		wait`},
	{"a wrong unnamed statement", `
		parse "" "SELECT raftable('k')"
		parse "" "SELECT '{x*1000}' nonsense nonsense"
		bind "" ""
		execute ""
		sync
		wait
		bind "" ""
		execute ""
		sync
		wait`},
	{"a name that is taken", `
		parse "s" "SELECT raftable('k')"
		parse "s" "SELECT '{x*1000}'"
		sync
		wait
		bind "" "s"
		execute ""
		sync
		wait`},
	{"a name that was given up", `
		parse "s" "SELECT raftable('k')"
		sync
		wait
		query "DEALLOCATE s"
		wait
		parse "s" "SELECT length('{x*1000}')"
		bind "" "s"
		execute ""
		sync
		wait`},
	{"a query ends what has no name", `
		query "BEGIN"
		wait
		parse "" "SELECT raftable('k')"
		bind "" ""
		sync
		query "SELECT length('{x*1000}')"
		execute ""
		sync
		wait
		query "ROLLBACK"
		wait
		bind "" ""
		execute ""
		sync
		wait`},
	{"a portal of the server's in place of one from the table", `
		parse "a" "SELECT raftable('k')"
		parse "b" "SELECT length($1::text)"
		query "BEGIN"
		wait
		bind "" "a"
		bind "" "b" "{x*1000}"
		execute ""
		sync
		wait
		bind "p" "a"
		sync
		wait
		bind "p" "b" "{x*1000}"
		sync
		wait
		query "ROLLBACK"
		wait`},
	{"a portal from the table in place of one of the server's", `
		parse "a" "SELECT raftable('k', $1)"
		parse "b" "SELECT length($1::text)"
		query "BEGIN"
		wait
		bind "" "b" "{x*1000}"
		bind "" "a" "{y*1000}"
		execute ""
		sync
		wait
		bind "" "b" "{x*1000}"
		execute ""
		sync
		wait
		query "COMMIT"
		wait
		query "SELECT length(raftable('k'))"
		wait`},
	{"behind an error", `
		parse "a" "SELECT raftable('k')"
		parse "b" "SELECT length($1::text)"
		sync
		wait
		parse "" "SELECT raftable(1, 2, 3, 4)"
		bind "" "b" "{x*1000}"
		execute ""
		parse "" "SELECT '{x*1000}'"
		sync
		wait
		parse "" "SELECT 1/0"
		bind "" ""
		execute ""
		bind "" "b" "{x*1000}"
		bind "" "a"
		execute ""
		parse "" "SELECT '{x*1000}'"
		sync
		wait
		bind "" "b" "{x*1000}"
		execute ""
		sync
		wait`},
	{"a long name", `
		parse "a" "SELECT raftable('k')"
		parse "{n*9000}" "SELECT $1::text"
		bind "{p*9000}" "{n*9000}" "{x*1000}"
		execute "{p*63}"
		sync
		wait`},
}

// TestLargeMessagesAgainstPostgres plays these scripts against PostgreSQL with the functions, and against a proxy that looks into small
// messages only.
func TestLargeMessagesAgainstPostgres(t *testing.T) {
	plain, behind := pgtest.New(t, pgtest.Options{}), pgtest.New(t, pgtest.Options{})
	control := dialWire(t, plain.Addr())
	control.run(&script{lines: []string{"> query " + quote(oracle), "> wait"}})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: behind.Addr(), Table: table, Logger: testLogger(t), InspectLimit: 300})
	for _, large := range largeScripts {
		var s script
		for _, line := range strings.Split(strings.TrimSpace(large.lines), "\n") {
			s.lines = append(s.lines, "> "+strings.TrimSpace(line))
		}
		for name, cut := range cuts {
			t.Run(large.name+", "+name, func(t *testing.T) {
				control.run(&script{lines: []string{`> query "TRUNCATE public.raftable_rows"`, "> wait"}})
				table.clear()
				want := play(t, wireTarget{addr: plain.Addr()}, nil, &s)
				if diff := cmp.Diff(want, play(t, wireTarget{addr: addr}, cut, &s)); diff != "" {
					t.Errorf("the proxy says otherwise (-postgres +proxy):\n%s", diff)
				}
			})
		}
	}
}
