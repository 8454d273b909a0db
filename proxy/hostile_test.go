package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// rawMessage makes a message with any body, however malformed.
func rawMessage(typ byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...)
}

// feedAll feeds a session made by modelSession.
func feedAll(t *testing.T, s *session, msgs ...[]byte) {
	t.Helper()
	for _, m := range msgs {
		if err := s.front.feed(m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMalformedMessages sends what no driver does, to a session with a statement and a portal of ours. The answer may be any,
// but no panic, and what is not well formed is none of ours.
func TestMalformedMessages(t *testing.T) {
	for _, typ := range []byte("QPBDECHSFXdcfp") {
		for _, body := range []string{"", "\x00", "S", "S\x00x", "P\x00x", "X\x00", "\x00x", "S\x00\x00", "\x00\x00\x00", "raftable(", "raftable(\x00",
			"\x00SELECT raftable('k')\x00", "\x00SELECT raftable('k')\x00\x00\x05", "\x00\x00\xff\xff\xff\xff", "\x00\xff\xff\xff"} {
			s, said := modelSession(t)
			server := s.server.(*fakeConn)
			pass := server.write
			server.write = func(b []byte) {
				if !bytes.Equal(b, rawMessage(typ, body)) { // the model itself reads well-formed ones only
					pass(b)
				}
			}
			feedAll(t, s, message(t, []string{"parse", "", textOurs}), message(t, []string{"bind", "", ""}))
			said.Reset()
			if err := s.front.feed(rawMessage(typ, body)); err != nil {
				t.Errorf("%c %q: %v", typ, body, err)
			}
		}
	}
}

// TestDrainWhileSetWaits ends a session from the goroutine that is reading its client.
func TestDrainWhileSetWaits(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting, goOn := make(chan struct{}), make(chan struct{})
	table.block = func(context.Context) error { close(waiting); <-goOn; return nil }
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.send(query("SELECT raftable('k', 'v')"))
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
	close(goOn)
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	if v, ok := table.Get(nil, []byte("k")); !ok || string(v) != "v" {
		t.Fatal("the set was lost")
	}
}

// TestShutdownWhileWaitingForTheServer cuts off a session whose statement waits behind a slow one of the server's.
func TestShutdownWhileWaitingForTheServer(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.send(append(query("SELECT pg_sleep(1000)"), query("SELECT raftable('k')")...))
	control := dialWire(t, pg.Addr())
	eventually(t, "the statement runs", func() bool {
		return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"), `D "1"`)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	select {
	case <-done:
	case <-time.After(wireTimeout):
		t.Fatal("Shutdown hangs")
	}
}

// TestResetWithFullBuffers has a client vanish while nothing moves in either direction.
func TestResetWithFullBuffers(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	batch := bytes.Repeat(query("SELECT repeat('x', 100000)"), 2000)
	_ = w.c.SetWriteDeadline(time.Now().Add(time.Second))
	for {
		if _, err := w.c.Write(batch); err != nil {
			break
		}
	}
	_ = w.c.(*net.TCPConn).SetLinger(0)
	w.c.Close()
	eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })
}

// TestAccountStaysSmall keeps one message open for ever, and asks for many ReadyForQuery at once.
func TestAccountStaysSmall(t *testing.T) {
	var o owed
	o.init()
	o.answered('Z', 'I')
	o.push('E')
	for range 100_000 {
		o.push('E')
		o.answered('C', 0)
	}
	if len(o.entries)-o.head != 1 || cap(o.entries) > 1000 {
		t.Fatalf("%d entries open, room for %d", len(o.entries)-o.head, cap(o.entries))
	}
}

// TestSkippingHoldsNothing discards what comes after an error of ours, whatever its size, and runs none of it.
func TestSkippingHoldsNothing(t *testing.T) {
	s, said := modelSession(t)
	s.srv.cfg.InspectLimit = 1000
	sent := 0
	pass := s.server.(*fakeConn).write
	s.server.(*fakeConn).write = func(b []byte) { sent += len(b); pass(b) }
	feedAll(t, s, message(t, []string{"parse", "", textWrong}))
	feedAll(t, s, query("SELECT 1 /*"+strings.Repeat("x", 2000)+"*/"))
	feedAll(t, s, []byte{'d', 0, 0xff, 0xff, 0xff})
	for left := 1<<24 - 5; left > 0; {
		n := min(left, bufferSize)
		feedAll(t, s, make([]byte, n))
		left -= n
	}
	if len(s.front.held) > 0 || sent > 0 {
		t.Fatalf("%d bytes are held, %d were sent to the server", len(s.front.held), sent)
	}
	feedAll(t, s, message(t, []string{"sync"}))
	if got := types(said.Bytes()); got != "EZI " {
		t.Fatalf("answers %q", got)
	}
}

// TestAnswersAreWrittenAsTheyGrow asks for much in few bytes.
func TestAnswersAreWrittenAsTheyGrow(t *testing.T) {
	s, _ := modelSession(t)
	value := strings.Repeat("x", 1<<20)
	s.srv.cfg.Table.(*mapTable).rows["k"] = value
	longest, all := 0, 0
	s.client.(*fakeConn).write = func(b []byte) { longest = max(longest, len(b)); all += len(b) }
	const n = 50
	feedAll(t, s, query(strings.Repeat("SELECT raftable('k');", n)))
	pipeline := message(t, []string{"parse", "", "SELECT raftable('k')"})
	for range n {
		pipeline = append(append(pipeline, message(t, []string{"bind", "", ""})...), message(t, []string{"execute", ""})...)
	}
	feedAll(t, s, append(pipeline, message(t, []string{"sync"})...))
	if longest > 2*len(value) || all < 2*n*len(value) {
		t.Fatalf("the longest write has %d bytes of %d", longest, all)
	}
}

// TestPortalsEndWithTransactions binds a new name in every transaction.
func TestPortalsEndWithTransactions(t *testing.T) {
	s, _ := modelSession(t)
	table := s.srv.cfg.Table.(*mapTable)
	table.rows["a"], table.rows["b"] = "1", "2"
	for i := range 100 {
		name := "c" + strconv.Itoa(i)
		feedAll(t, s, query(textBegin),
			message(t, []string{"parse", "", "SELECT * FROM raftable()"}), message(t, []string{"bind", name, ""}),
			message(t, []string{"execute", name, "1"}), message(t, []string{"sync"}), query(textEnd))
	}
	if n := len(s.front.ext.portals); n > 2 {
		t.Fatalf("%d portals are kept", n)
	}
	s.front.end()
}

// TestEncodings never takes the bytes of one encoding for those of another.
func TestEncodings(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("SELECT raftable('é', 'ü')", `D ""`)
	w.expect("SET client_encoding TO 'LATIN1'", "C SET")
	w.expect("SELECT raftable('é')", `D NULL`) // the text was seen before, under UTF8; here it is another key
	w.expect("SELECT raftable('\xe9')", `D "\xfc"`)
	w.expect("SELECT raftable('\xe8', '\xe0')", `D ""`)
	w.expect("SELECT * FROM raftable()", `D "\xe8" "\xe0"`)
	for value, want := range map[string]string{`\xe9`: `D "\xfc"`, "é": "D NULL"} {
		got := strings.Join(w.run(&script{lines: []string{`> parse "" "SELECT raftable($1)"`, `> bind "" "" "` + value + `"`,
			`> execute ""`, "> sync", "> wait"}}), "\n")
		if !strings.Contains(got, want) {
			t.Errorf("a parameter %q under LATIN1: %s", value, got)
		}
	}
	table.put("k", "ключ")
	w.expect("SELECT raftable('k')", `C="22P05"`)
	w.expect("SET client_encoding TO 'JOHAB'", "C SET")
	w.expect("SELECT raftable('\xe9', 'x')", `C="0A000"`)
	w.expect("SELECT raftable('k', 'ascii')", `D ""`)
	w.expect("SET client_encoding TO 'UTF8'", "C SET")
	w.expect("SELECT raftable('é')", `D "ü"`)
	w.expect("SELECT raftable('è')", `D "à"`)
}

// TestNothingRunsAfterTheServerIsGone neither answers nor sets.
func TestNothingRunsAfterTheServerIsGone(t *testing.T) {
	s, said := modelSession(t)
	s.owed.close()
	if err := s.front.feed(query("SELECT raftable('k', 'v')")); err == nil {
		t.Error("the session goes on")
	}
	if rows := s.srv.cfg.Table.(*mapTable).rows; len(rows) > 0 || said.Len() > 0 {
		t.Errorf("answered %q, set %v", said, rows)
	}
}

// TestNothingIsHeldBeforeAuthentication sends a large statement ahead.
func TestNothingIsHeldBeforeAuthentication(t *testing.T) {
	srv, err := New(Config{Upstream: "127.0.0.1:1", Table: newMapTable()})
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(srv, &fakeConn{write: func([]byte) {}}, &fakeConn{write: func([]byte) {}}, srv.cfg.Logger)
	feedAll(t, s, []byte{'Q', 0, 0xff, 0xff, 0xff}, make([]byte, 1<<20))
	if n := len(s.front.held); n > smallMessage {
		t.Fatalf("%d bytes are held", n)
	}
}
