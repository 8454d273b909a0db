package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// endless is FROM of a statement that postgres would not come to the end of.
const endless = " FROM generate_series(1, 1000000) g, generate_series(1, 1000000) h"

// TestHarvestOfEndlessRows ends statements that postgres goes on with, by a cancel in a waiting set and by an error in a row: postgres
// must learn of both, and what comes next must be left alone.
func TestHarvestOfEndlessRows(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting := make(chan struct{}, 1)
	table.block = func(ctx context.Context) error {
		select {
		case waiting <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return &mapError{code: "57014", message: "canceling statement due to user request"}
	}
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.send(query("SELECT raftable('k' || g, 'v', 3600000)" + endless))
	<-waiting
	cancelRequest(t, addr, w.key)
	expectEnd(t, w, "57014")
	w.expect("SELECT 1", `D "1"`)
	table.mu.Lock()
	table.block = nil
	table.mu.Unlock()
	w.send(query("SELECT raftable(CASE WHEN g < 1000 THEN NULL ELSE 'k' END, 'v')" + endless))
	expectEnd(t, w, "22004")
	w.expect("BEGIN", "Z T")
	w.send(query("SELECT raftable(NULL, 'v'), g" + endless))
	expectEnd(t, w, "22004")
	w.expect("SELECT 1", `C="25P02"`)
	w.expect("ROLLBACK", "Z I")
	w.expect("SELECT pg_sleep(0.01)::text", `D ""`)
}

// TestPreparingIsNoHarvest has a session prepare sets by PREPARE, in both protocols: no statement of which rows are harvested runs
// afterwards, so that a cancel of a waiting set stays with the proxy.
func TestPreparingIsNoHarvest(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("PREPARE a AS SELECT raftable($1, $2)", "C PREPARE")
	w.run(&script{lines: []string{`> parse "" "PREPARE b AS SELECT raftable($1, $2)"`, `> bind "" ""`, `> execute ""`, "> sync", "> wait"}})
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.waitMu.Lock()
		if s.harvesting {
			t.Error("the session takes itself for harvesting")
		}
		s.waitMu.Unlock()
	}
}

// expectEnd reads up to ReadyForQuery and looks for an error.
func expectEnd(t *testing.T, w *wireConn, code string) {
	t.Helper()
	w.deadline()
	found := false
	for {
		typ, body, err := w.read()
		if err != nil {
			t.Fatal(err)
		}
		found = found || typ == 'E' && strings.Contains(string(body), "C"+code+"\x00")
		if typ == 'Z' {
			break
		}
	}
	if !found {
		t.Fatalf("no error %s", code)
	}
}

// TestTLSStreamsEnd has sessions end by the client and by the server: a client with TLS must be able to tell the end of the stream
// from one that was cut off.
func TestTLSStreamsEnd(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("both", "127.0.0.1")
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{
		Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t), Access: Access{ClientTLS: cert.clientTLS(ClientTLSAllow)},
	})
	for _, last := range [][]byte{{'X', 0, 0, 0, 4}, query("SELECT pg_terminate_backend(pg_backend_pid())")} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wireTimeout))
		if _, err := c.Write(sslRequest); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		if _, err := s.Write(append(startWire(3<<16), last...)); err != nil {
			t.Fatal(err)
		}
		if said, err := io.ReadAll(s); err != nil || errors.Is(err, io.ErrUnexpectedEOF) || len(said) == 0 {
			t.Errorf("after %q: %d bytes, %v", last, len(said), err)
		}
	}
}

// TestServerEndsInHarvest has the server end a session in the middle of rows that are set: the client sees that as without a proxy, once the
// set that runs has ended. A server that has to wait until its rows are read says nothing before it goes.
func TestServerEndsInHarvest(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting, goOn := make(chan struct{}, 1), make(chan error)
	table.block = func(context.Context) error {
		waiting <- struct{}{}
		return <-goOn
	}
	srv, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	admin := dialWire(t, pg.Addr())
	for _, c := range []struct {
		name string
		err  error
	}{{"the set succeeds", nil}, {"the set fails", &mapError{code: "53400", message: "the table is full"}}} {
		for _, text := range []string{"SELECT raftable('k', 'v', 3600000)" + endless, "SELECT 1; SELECT raftable('k' || g, 'v', 3600000)" + endless} {
			t.Run(c.name+": "+text, func(t *testing.T) {
				w := dialWire(t, addr)
				w.send(query(text))
				<-waiting
				admin.expect("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 1000000) h' AND pid <> pg_backend_pid()", `D "1"`)
				eventually(t, "the server process has ended", func() bool {
					return strings.Contains(admin.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 1000000) h' AND pid <> pg_backend_pid()"), `D "0"`)
				})
				go func() {
					for {
						select {
						case goOn <- c.err:
						case <-waiting:
						case <-t.Context().Done():
							return
						}
					}
				}()
				var said []string
				w.deadline()
				for {
					typ, body, err := w.read()
					if err != nil {
						if kind := errorKind(err); kind != "connection closed" {
							t.Errorf("the end is %s", kind)
						}
						break
					}
					if typ == 'E' {
						said = append(said, regexp.MustCompile("\x00C([0-9A-Z]{5})\x00").FindStringSubmatch(string(body))[1])
					}
				}
				if len(said) > 0 && !slices.Equal(said, []string{"57P01"}) {
					t.Errorf("the errors are %q", said)
				}
				eventually(t, "the session has ended", func() bool { return srv.Sessions() == 0 })
			})
		}
	}
}

// TestExecuteOfProtocolStatement executes statements by SQL that the protocol has prepared.
func TestExecuteOfProtocolStatement(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	table.put("k", "v")
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.run(&script{lines: []string{
		`> parse "local" "SELECT raftable($1)"`, `> parse "key" "SELECT raftable($1), length($2::text)"`,
		`> parse "other" "SELECT raftable('k'), length($1::text)"`, "> sync", "> wait",
	}})
	for _, c := range []struct{ text, want string }{
		{"EXECUTE other('abc')", `D "v" "3"`},
		{"EXECUTE other(raftable('k'))", `D "v" "1"`},
		{"EXECUTE key('k', 'abc')", `C="0A000"`},
		{"EXECUTE local('k')", `C="0A000"`},
		{"EXPLAIN EXECUTE key('k', 'abc')", `C="0A000"`},
		{"SELECT 1; EXECUTE key('k', 'abc')", `C="0A000"`},
		{"EXECUTE none('k')", `C="26000"`},
	} {
		w.expect(c.text, c.want)
		w.expect("SELECT raftable('k')", `D "v"`)
	}
}
