package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// socketPair is a connection and its peer.
func socketPair(t testing.TB, network string) (peer, c net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if peer, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if c, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = peer.SetDeadline(time.Now().Add(wireTimeout))
	t.Cleanup(func() { peer.Close(); c.Close() })
	return peer, c
}

// loopTest is a session on an event loop, and its peers.
type loopTest struct {
	*session
	toClient, toServer net.Conn // the ends that client and server hold
}

// newLoopServer is a server without listeners that has one event loop.
func newLoopServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	cfg.Upstream = "127.0.0.1:1"
	if cfg.Table == nil {
		cfg.Table = newMapTable()
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	srv.loops = append(srv.loops, l)
	t.Cleanup(func() {
		done := make(chan struct{})
		go func() { srv.wg.Wait(); close(done) }()
		select {
		case <-done:
			l.stop()
		case <-time.After(wireTimeout):
			t.Error("sessions are left")
		}
	})
	return srv
}

// newLoopTest is a session that has logged in.
func newLoopTest(t testing.TB, srv *Server, network string) *loopTest {
	t.Helper()
	toClient, client := socketPair(t, network)
	toServer, server := socketPair(t, network)
	lt := &loopTest{newSession(srv, client, server, zerolog.Nop()), toClient, toServer}
	if !lt.attach(srv.loop(), client, server) {
		t.Fatal("the session is not on the loop")
	}
	lt.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
	return lt
}

// pass sends b from one peer to the other.
func (lt *loopTest) pass(t testing.TB, from, to net.Conn, b string) {
	t.Helper()
	if _, err := io.WriteString(from, b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if n, err := io.ReadFull(to, got); err != nil || string(got) != b {
		t.Fatalf("%q arrives as %q, %v", b, got[:n], err)
	}
}

// TestEndBehindData has the end of a stream arrive together with data.
func TestEndBehindData(t *testing.T) {
	srv := newLoopServer(t, Config{})
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			for range 50 {
				lt := newLoopTest(t, srv, network)
				lt.pass(t, lt.toClient, lt.toServer, string(query("SELECT 1")))
				if _, err := lt.toServer.Write([]byte("N\x00\x00\x00\x04N\x00\x00\x00\x04")); err != nil {
					t.Fatal(err)
				}
				lt.toServer.Close()
				got, err := io.ReadAll(lt.toClient)
				if err != nil && !errors.Is(err, io.EOF) || len(got) != 10 {
					t.Fatalf("read %q, %v", got, err)
				}
			}
		})
	}
}
