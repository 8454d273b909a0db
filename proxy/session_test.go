package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually polls a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(wireTimeout)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // the pace of the polling
	}
}

func query(text string) []byte {
	b := append([]byte{'Q', 0, 0, 0, 0}, text...)
	return finishMessage(append(b, 0), 0)
}

// ask sends a simple query and returns the answer's lines.
func (w *wireConn) ask(text string) string {
	w.t.Helper()
	return strings.Join(w.run(&script{lines: []string{"> query " + strconv.Quote(text), "> wait"}}), "\n")
}

func (w *wireConn) expect(text, want string) {
	w.t.Helper()
	if got := w.ask(text); !strings.Contains(got, want) {
		w.t.Fatalf("%s\ngives\n%s\nwithout %q", text, got, want)
	}
}

// patientTable is a table that waits for its group until it is cancelled, and says when it begins to.
func patientTable() (table *mapTable, waiting chan struct{}) {
	table, waiting = newMapTable(), make(chan struct{}, 1)
	table.block = func(ctx context.Context) error {
		waiting <- struct{}{}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errCanceled) {
			return &mapError{code: "55000", message: "no leader"}
		}
		return &mapError{code: "57014", message: "canceling statement due to user request", detail: "Nothing was set."}
	}
	return table, waiting
}

// TestCancelLinearizable cancels a get, a list and a statement of the server that wait for all that was acknowledged anywhere.
func TestCancelLinearizable(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table, waiting := patientTable()
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t), Linearizable: true})
	for _, text := range []string{"SELECT raftable('k')", "SELECT * FROM raftable()", "SELECT upper(raftable('k'))"} {
		t.Run(text, func(t *testing.T) {
			w := dialWire(t, addr)
			w.send(query(text))
			<-waiting
			cancelRequest(t, addr, w.key)
			if got := strings.Join(w.run(&script{lines: []string{"> wait 3"}}), "\n"); !strings.Contains(got, `C="57014"`) {
				t.Fatalf("got %q", got)
			}
			w.expect("SELECT 1", `D "1"`)
		})
	}
}

func TestCancel(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table, waiting := patientTable()
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})

	t.Run("a waiting set", func(t *testing.T) {
		w := dialWire(t, addr)
		w.send(query("SELECT raftable('k', 'v')"))
		<-waiting
		cancelRequest(t, addr, w.key)
		if got := w.run(&script{lines: []string{"> wait 3"}}); !strings.Contains(strings.Join(got, "\n"), `C="57014"`) {
			t.Fatalf("got %q", got)
		}
		w.expect("SELECT 1", `D "1"`)
	})
	t.Run("a statement of the server", func(t *testing.T) {
		w := dialWire(t, addr)
		control := dialWire(t, pg.Addr())
		w.send(query("SELECT pg_sleep(1000)"))
		eventually(t, "the statement runs", func() bool {
			return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"), `D "1"`)
		})
		cancelRequest(t, addr, w.key)
		got := strings.Join(w.run(&script{lines: []string{"> wait 3"}}), "\n")
		if !strings.Contains(got, `C="57014"`) {
			t.Fatalf("got %q", got)
		}
		w.expect("SELECT 1", `D "1"`)
	})
	t.Run("nothing", func(t *testing.T) {
		w := dialWire(t, addr)
		w.expect("SELECT 1", `D "1"`)
		cancelRequest(t, addr, w.key)
		cancelRequest(t, addr, []byte("no such key!"))
		w.expect("SELECT raftable('k')", "D NULL")
	})
	t.Run("a time limit", func(t *testing.T) {
		w := dialWire(t, addr)
		w.send(query("SELECT raftable('k', 'v', 20)"))
		<-waiting
		if got := strings.Join(w.run(&script{lines: []string{"> wait 3"}}), "\n"); !strings.Contains(got, `C="55000"`) {
			t.Fatalf("got %q", got)
		}
	})
}

func TestDrain(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	idle := dialWire(t, addr)
	idle.expect("SELECT 1", `D "1"`)
	busy := dialWire(t, addr)
	busy.expect("BEGIN", "Z T")
	local := dialWire(t, addr)
	local.expect("BEGIN", "Z T")

	ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()

	shutdown := func(w *wireConn) {
		t.Helper()
		got := w.run(&script{lines: []string{"> wait 2"}})
		if len(got) != 2 || !strings.Contains(got[0], `C="57P01"`) || got[1] != "end: connection closed" {
			t.Fatalf("got %q", got)
		}
	}
	shutdown(idle)
	busy.expect("SELECT 2", `D "2"`)
	local.expect("SELECT raftable('k')", "D NULL")
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a new client is accepted while draining")
	}
	busy.expect("COMMIT", "C COMMIT")
	shutdown(busy)
	local.expect("COMMIT", "C COMMIT")
	shutdown(local)
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
}

func TestDrainCutsOffInTheEnd(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("BEGIN", "Z T")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Shutdown: %v", err)
	}
	if n := srv.Sessions(); n != 0 {
		t.Fatalf("%d sessions are left", n)
	}
}

func TestHalfClose(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.send(append(query("SELECT raftable('k')"), query("SELECT 'last words'")...))
	if err := w.c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(w.run(&script{lines: []string{"> wait 9"}}), "\n")
	if !strings.Contains(got, `D "last words"`) || !strings.HasSuffix(got, "end: connection closed") {
		t.Fatalf("got %q", got)
	}
}

func TestServerDies(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("SELECT raftable('k', 'v')", `D ""`)
	if err := pg.Stop(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(w.run(&script{lines: []string{"> wait 2"}}), "\n")
	if !strings.Contains(got, `C="57P01"`) || !strings.HasSuffix(got, "end: connection closed") {
		t.Fatalf("got %q", got)
	}
	eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })

	// Without the server a client is told so.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wireTimeout))
	if _, err := c.Write(startupPacket(3 << 16)); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(c)
	if !bytes.Contains(answer, []byte("C08001\x00")) || !bytes.Contains(answer, []byte("SFATAL\x00")) {
		t.Fatalf("got %q", answer)
	}
}

func startupPacket(version uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, version)
	b = append(b, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// longStartupPacket has n bytes after its length.
func longStartupPacket(n int) []byte {
	b := startupPacket(3 << 16)
	b = append(b[:len(b)-1], "application_name\x00"...)
	b = append(append(b, strings.Repeat("x", 4+n-len(b)-2)...), 0, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestTooManyClients(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t), MaxClients: 1})
	w := dialWire(t, addr)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wireTimeout))
	if _, err := c.Write(startupPacket(3 << 16)); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(c); !bytes.Contains(answer, []byte("C53300\x00")) {
		t.Fatalf("got %q", answer)
	}
	w.expect("SELECT 1", `D "1"`)
	w.c.Close()
	eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })
	dialWire(t, addr)
}

// TestStartup plays the forms in which clients begin.
func TestStartup(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t), StartupTimeout: 2 * time.Second})
	request := func(code uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
	}
	for _, c := range []struct {
		name    string
		send    [][]byte // each after an answer to the one before
		answers []string // prefixes
	}{
		{"plain", [][]byte{startupPacket(3 << 16)}, []string{"R\x00\x00\x00\x08\x00\x00\x00\x00"}},
		{"encryption declined", [][]byte{request(codeGSSENCRequest), request(codeSSLRequest), startupPacket(3 << 16)}, []string{"N", "N", "R"}},
		{"a later minor version", [][]byte{startupPacket(3<<16 | 9999)}, []string{"v"}},
		{"another major version", [][]byte{startupPacket(7 << 16)}, []string{"E"}},
		{"too long", [][]byte{{0, 1, 0, 0, 0, 3, 0, 0}}, []string{"E"}},
		{"too short", [][]byte{{0, 0, 0, 4, 0, 3, 0, 0}}, []string{"E"}},
		{"the longest", [][]byte{longStartupPacket(10_000)}, []string{"R\x00\x00\x00\x08\x00\x00\x00\x00"}},
		{"one byte longer", [][]byte{longStartupPacket(10_001)}, []string{"E"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(wireTimeout))
			for i, b := range c.send {
				for _, one := range b { // in fragments
					if _, err := conn.Write([]byte{one}); err != nil {
						break // refused before the end
					}
				}
				got := make([]byte, len(c.answers[i]))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != c.answers[i] {
					t.Fatalf("answer %d is %q, %v", i, got, err)
				}
			}
		})
	}
	t.Run("never finished", func(t *testing.T) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(wireTimeout))
		if _, err := conn.Write(startupPacket(3 << 16)[:20]); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
			t.Fatalf("the connection was not ended: %v", err)
		}
	})
}

// TestValuesOfAllSizes sends values through that are larger than every buffer.
func TestValuesOfAllSizes(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	for _, size := range []int{0, 1, 100, bufferSize - 20, bufferSize, 3 * bufferSize, 2 << 20} {
		value := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		w.expect("SELECT raftable('k', '"+value+"')", `D ""`)
		want := quoted([]byte(value))
		w.expect("SELECT raftable('k')", "D "+want)
		w.expect("SELECT * FROM raftable()", `D "k" `+want)
		w.expect("SELECT '"+value+"'", "D "+want)
	}
}

// TestLargeStatementsPass shows that what is too large to be looked into is forwarded as it is.
func TestLargeStatementsPass(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t), InspectLimit: 1000})
	w := dialWire(t, addr)
	pad := "/*" + strings.Repeat("x", 1000) + "*/"
	w.expect("SELECT raftable('k') "+pad, `C="42883"`)
	w.expect("SELECT raftable('k')", "D NULL")
	w.expect("SELECT length('"+strings.Repeat("y", 5000)+"')", `D "5000"`)
}

// TestPortalsOutliveQuestions fetches the rest of a portal's rows after the proxy has asked the server for the settings.
func TestPortalsOutliveQuestions(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	table.rows["a"], table.rows["b"] = "1", "2"
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("SET raftable.timeout = '2s'", "C SET")
	got := strings.Join(w.run(&script{lines: []string{`> parse "" "SELECT key FROM raftable()"`, `> bind "" ""`,
		`> execute "" 1`, `> execute "" 1`, `> execute "" 1`, "> sync", "> wait"}}), " ")
	if want := `1 2 D "a" s D "b" s C SELECT 0 Z I`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
