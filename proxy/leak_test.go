package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// leakTest is what the ways to end a session are given. w is the client, if the way needs a session at all.
type leakTest struct {
	t       *testing.T
	addr    string
	control *wireConn // to the server, not through the proxy
	w       *wireConn
	waiting chan struct{} // a set has begun to wait
}

// started is a new session.
func (l *leakTest) started() *wireConn {
	l.w = dialWire(l.t, l.addr)
	return l.w
}

func (l *leakTest) raw(b []byte) net.Conn {
	l.w = connectWire(l.t, l.addr)
	l.w.send(b)
	return l.w.c
}

func (l *leakTest) reset() {
	_ = l.w.c.(*net.TCPConn).SetLinger(0)
	l.w.c.Close()
}

// messages sends lines of a script.
func (l *leakTest) messages(lines ...string) {
	for _, line := range lines {
		l.w.send(message(l.t, splitWords(line)))
	}
}

// ended reads up to the end of the connection.
func (l *leakTest) ended() {
	l.t.Helper()
	for {
		if _, _, err := l.w.read(); err != nil {
			if errorKind(err) != "connection closed" {
				l.t.Error(err)
			}
			return
		}
	}
}

// waysToEnd are ways in which a session ends. Where a way does not close the client's connection the test does.
var waysToEnd = map[string]func(l *leakTest){
	"nothing sent":                func(l *leakTest) { l.raw(nil) },
	"half a startup packet":       func(l *leakTest) { l.raw(startWire(3 << 16)[:11]) },
	"half a startup packet reset": func(l *leakTest) { l.raw(startWire(3 << 16)[:11]); l.reset() },
	"a startup packet":            func(l *leakTest) { l.raw(startWire(3 << 16)) },
	"a startup packet reset":      func(l *leakTest) { l.raw(startWire(3 << 16)); l.reset() },
	"an SSLRequest":               func(l *leakTest) { l.raw([]byte{0, 0, 0, 8, 4, 210, 22, 47}) },
	"nonsense":                    func(l *leakTest) { l.raw([]byte("GET / HTTP/1.1\r\n\r\n")); l.ended() },
	"no such database":            func(l *leakTest) { l.raw(startWire(3<<16, "database", "none")); l.ended() },
	"no such version":             func(l *leakTest) { l.raw(startWire(7 << 16)); l.ended() },
	"a cancel request of nobody": func(l *leakTest) {
		l.raw(append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancelRequest), "abcdefgh"...))
		l.ended()
	},
	"a cancel request of somebody": func(l *leakTest) { cancelRequest(l.t, l.addr, l.started().key) },
	"terminate":                    func(l *leakTest) { l.started(); l.messages("terminate"); l.ended() },
	"close":                        func(l *leakTest) { l.started().expect("SELECT raftable('k')", "D NULL") },
	"reset":                        func(l *leakTest) { l.started().expect("SELECT raftable('k')", "D NULL"); l.reset() },
	"half-close": func(l *leakTest) {
		_ = closeWrite(l.started().c)
		l.ended()
	},
	"half-close in a transaction": func(l *leakTest) {
		l.started().expect("BEGIN", "Z T")
		_ = closeWrite(l.w.c)
		l.ended()
	},
	"half a message":       func(l *leakTest) { l.started().send(query("SELECT raftable('k')")[:12]) },
	"half a message reset": func(l *leakTest) { l.started().send(query("SELECT 1")[:3]); l.reset() },
	"half a Bind": func(l *leakTest) {
		l.started()
		l.messages(`raw P "\x00SELECT 1\x00\x00\x00"`)
		l.w.send([]byte("B\x00\x01\x00\x00\x00"))
	},
	"an impossible length": func(l *leakTest) { l.started().send([]byte("Q\x00\x00\x00\x01")); l.ended() },
	"an unknown message":   func(l *leakTest) { l.started(); l.messages(`raw ? ""`); l.ended() },
	"COPY in":              func(l *leakTest) { l.started().send(query("COPY t FROM STDIN")); l.messages(`copydata "x\n"`) },
	"COPY in reset":        func(l *leakTest) { l.started().send(query("COPY t FROM STDIN")); l.reset() },
	"COPY out":             func(l *leakTest) { l.started().send(query("COPY (SELECT generate_series(1, 1000000)) TO STDOUT")) },
	"rows unread":          func(l *leakTest) { l.started().send(query("SELECT generate_series(1, 1000000)")) },
	"rows unread reset": func(l *leakTest) {
		l.started().send(query("SELECT repeat('x', 10000) FROM generate_series(1, 10000)"))
		_, _, _ = l.w.read()
		l.reset()
	},
	"a list suspended": func(l *leakTest) {
		l.started().expect("BEGIN", "Z T")
		l.messages(`parse "" "SELECT * FROM raftable()"`, `bind "p" ""`, `execute "p" 1`, "flush")
		if _, _, err := l.w.read(); err != nil {
			l.t.Error(err)
		}
	},
	"statements and portals": func(l *leakTest) {
		l.started()
		l.messages(`parse "s" "SELECT raftable($1)"`, `bind "" "s" "k"`, `parse "" "SELECT 1"`, "flush")
		if _, _, err := l.w.read(); err != nil {
			l.t.Error(err)
		}
	},
	"an error, no Sync": func(l *leakTest) { l.started(); l.messages(`parse "" "SELECT raftable(7)"`, `bind "" ""`, "flush") },
	"a set that waits": func(l *leakTest) {
		l.started().send(query("SELECT raftable('wait', 'v')"))
		<-l.waiting
	},
	"a set that waits, reset": func(l *leakTest) {
		l.started().send(query("SELECT raftable('wait', 'v')"))
		<-l.waiting
		l.reset()
	},
	"a set that waits, cancelled": func(l *leakTest) {
		l.started().send(query("SELECT raftable('wait', 'v')"))
		<-l.waiting
		cancelRequest(l.t, l.addr, l.w.key)
	},
	"a set that waits, the server ends": func(l *leakTest) {
		l.started().send(query("SELECT raftable('wait', 'v')"))
		<-l.waiting
		l.kill()
		l.ended()
	},
	"the server ends, idle":             func(l *leakTest) { l.started(); l.kill(); l.ended() },
	"the server ends in a transaction":  func(l *leakTest) { l.started().expect("BEGIN", "Z T"); l.kill(); l.ended() },
	"the server ends while it copies":   func(l *leakTest) { l.started().send(query("COPY t FROM STDIN")); l.kill(); l.ended() },
	"the server waits for a lock":       func(l *leakTest) { l.started().send(query("SELECT pg_sleep(0.05)")) },
	"terminate while the server works":  func(l *leakTest) { l.started().send(query("SELECT pg_sleep(0.05)")); l.messages("terminate") },
	"half-close while the server works": func(l *leakTest) { l.started().send(query("SELECT pg_sleep(0.05)")); _ = closeWrite(l.w.c); l.ended() },
}

// kill ends the session's server process.
func (l *leakTest) kill() {
	l.control.ask(fmt.Sprintf("SELECT pg_terminate_backend(%d)", binary.BigEndian.Uint32(l.w.key)))
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(d)
}

// TestNothingLeaks ends 200 sessions and more in all ways, several at a time, and then counts what is left.
func TestNothingLeaks(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{Config: []string{"log_min_messages = panic"}})
	table := newMapTable()
	waiting := make(chan struct{})
	// As at the server, a session whose client went away while a statement waits ends with the statement.
	srv, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: waitingTable{table, waiting}, SetTimeout: 300 * time.Millisecond})
	control := dialWire(t, pg.Addr())
	control.ask("CREATE TABLE t (a text)")
	count := func() string {
		return control.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
	}
	w := dialWire(t, addr)
	w.expect("SELECT 1", "D")
	w.c.Close()
	eventually(t, "the first session ends", func() bool { return srv.Sessions() == 0 && strings.Contains(count(), `D "1"`) })
	goroutines, files := runtime.NumGoroutine(), descriptors(t)

	const rounds = 6
	sessions := 0
	for range rounds {
		var open []net.Conn
		for name, way := range waysToEnd {
			l := &leakTest{t: t, addr: addr, control: control, waiting: waiting}
			way(l)
			if l.w == nil {
				t.Fatalf("%s: no connection", name)
			}
			open = append(open, l.w.c)
			sessions++
		}
		for _, c := range open {
			c.Close()
		}
	}
	if sessions < 200 {
		t.Errorf("%d sessions are too few", sessions)
	}
	eventually(t, "all sessions end", func() bool { return srv.Sessions() == 0 })
	eventually(t, "the server's sessions end", func() bool { return strings.Contains(count(), `D "1"`) })
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "all descriptors are closed", func() bool {
		runtime.GC() // closes the pipes that io.Copy keeps for the next time
		return descriptors(t) <= files
	})
	srv.cancels.mu.Lock()
	defer srv.cancels.mu.Unlock()
	if n := len(srv.cancels.sessions); n != 0 {
		t.Errorf("%d cancel keys are left", n)
	}
}

// waitingTable has sets of the key "wait" wait until they are given up, and says so.
type waitingTable struct {
	*mapTable
	waiting chan struct{}
}

func (w waitingTable) Set(ctx context.Context, key, value []byte) error {
	if string(key) != "wait" {
		return w.mapTable.Set(ctx, key, value)
	}
	select {
	case w.waiting <- struct{}{}:
	case <-time.After(wireTimeout):
		return errors.New("nobody looks")
	}
	<-ctx.Done()
	return &mapError{code: "57014", message: "canceling statement due to user request"}
}
