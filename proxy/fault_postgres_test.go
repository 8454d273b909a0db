package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// faultRelay stands between the proxy and a real server, and does to the server's bytes what the run says.
type faultRelay struct {
	l        net.Listener
	upstream string
	runs     sync.Map // number to *faultRun
	wg       sync.WaitGroup
}

func newFaultRelay(t *testing.T, upstream string) *faultRelay {
	t.Helper()
	dir, err := os.MkdirTemp("", "fault")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	r := &faultRelay{l: l, upstream: upstream}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.wg.Wait()
		os.RemoveAll(dir)
	})
	return r
}

func (r *faultRelay) serve(c net.Conn) {
	defer c.Close()
	body, err := readStartupBytes(c)
	if err != nil {
		return
	}
	server, err := net.Dial("unix", r.upstream)
	if err != nil {
		return
	}
	defer server.Close()
	raw := append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
	if _, err := server.Write(raw); err != nil {
		return
	}
	var number int
	if _, after, ok := bytes.Cut(body, []byte("application_name\x00")); ok {
		_, _ = fmt.Sscanf(string(after), "%d", &number)
	}
	w := &faultyConn{Conn: c, rnd: rand.New(rand.NewPCG(uint64(number), 7)), piece: 500}
	if run, ok := r.runs.Load(number); ok {
		w.kind, w.at = run.(*faultRun).server, run.(*faultRun).serverAt
		w.stall = func() {}
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(server, c)
		_ = closeWrite(server)
	}()
	_, err = io.Copy(w, server)
	if err == nil || w.kind != faultShut {
		c.Close()
	}
	server.Close()
	<-up
}

// forgetfulOracle makes sets of the yardstick ones that keep nothing, so that sessions at the same time do not meet in its table.
const forgetfulOracle = `
CREATE OR REPLACE FUNCTION public.raftable(key varchar(64), value text, timeout_ms int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF $1 IS NULL THEN
		RAISE EXCEPTION 'raftable: the key must not be NULL' USING ERRCODE = '22004', DETAIL = 'Nothing was set.';
	END IF;
END $$;
`

// TestFaultsPostgres plays conversations as TestFaults does, with real servers: what the client sees through the proxy
// is, or begins, what it sees of a server that has the functions in SQL.
func TestFaultsPostgres(t *testing.T) {
	n := 400
	switch {
	case *faultRuns > 0:
		n = max(1, *faultRuns/20)
	case testing.Short():
		n = 60
	}
	seed := faultSeedOf(t, n)
	options := pgtest.Options{Config: []string{"max_connections = 60", "log_min_messages = fatal"}}
	plain, behind := pgtest.New(t, options), pgtest.New(t, options)
	dialWire(t, plain.Socket()).ask(oracle)
	dialWire(t, plain.Socket()).ask(forgetfulOracle)
	for _, pg := range []*pgtest.Server{plain, behind} {
		w := dialWire(t, pg.Socket())
		w.ask("CREATE TABLE t (a text)")
		w.ask("CREATE TABLE rows AS SELECT * FROM (VALUES (1, 'h0', 'h0', 'v'), (2, 'h1', NULL, 'v'), (3, 'h2', 'h2', 'v')) r(n, k, bad, v)")
	}
	relay := newFaultRelay(t, behind.Socket())
	srv, addr := startProxy(t, Config{Upstream: relay.l.Addr().String(), Table: newMapTable()})
	playFaults(t, n, func(number int) error {
		run := newFaultRun(t, seed, number)
		relay.runs.Store(number, run)
		defer relay.runs.Delete(number)
		want, err := run.direct(plain.Addr(), len(run.send))
		if err != nil {
			return err
		}
		least, alternative := want, want
		if run.client == faultShut {
			if least, err = run.direct(plain.Addr(), run.clientAt); err != nil {
				return err
			}
			alternative = least
		}
		least = least[:strings.LastIndexByte(least, ' ')+1]
		if run.client > faultShut || run.server > faultStall {
			least = ""
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(wireTimeout))
		started := time.Now()
		said := types(run.play(c, func() {}))
		if time.Since(started) >= wireTimeout {
			return fmt.Errorf("the session does not end\nit saw %s\n%v", said, run)
		}
		if run.server > faultStall {
			said = strings.TrimSuffix(said, "E")
		}
		// Of a client that sends no more, PostgreSQL throws unflushed answers away; the proxy may have asked for them before.
		begins := strings.HasPrefix(want, said) || strings.HasPrefix(alternative, said)
		if !begins || !strings.HasPrefix(said, least) {
			return fmt.Errorf("the client sees\n%s\nand should see\n%s\nor at least\n%s\n%v", said, want, least, run)
		}
		return nil
	})
	eventually(t, "all sessions end", func() bool { return srv.Sessions() == 0 })
}

// direct plays the first bytes of what a run sends, without faults, and says what comes back.
func (run *faultRun) direct(addr string, bytes int) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	_ = c.SetDeadline(time.Now().Add(wireTimeout))
	twin := &faultRun{number: run.number, rnd: rand.New(rand.NewPCG(1, 2)), send: run.send[:bytes], stopReading: -1,
		terminate: run.terminate && run.client != faultShut}
	return types(twin.play(c, nil)), nil
}
