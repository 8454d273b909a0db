package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// silentUpstream is a server that accepts, says something or nothing, and then only reads. heard gets one for each connection on
// which something came.
func silentUpstream(t *testing.T, says string) (addr string, heard chan struct{}) {
	t.Helper()
	l := listenLoopback(t)
	t.Cleanup(func() { l.Close() })
	heard = make(chan struct{}, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, says)
				if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
					heard <- struct{}{}
				}
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return l.Addr().String(), heard
}

// silent are the ways in which a server may fail to go on, and whether that ends the dialing.
var silent = []struct {
	name, says string
	mode       UpstreamTLSMode
	dials      bool // there is a connection all the same
}{
	{"plain", "", UpstreamTLSDisable, true},
	{"no answer to the request", "", UpstreamTLSRequire, false},
	{"no answer to the request, prefer", "", UpstreamTLSPrefer, false},
	{"no handshake", "S", UpstreamTLSRequire, false},
	{"no handshake, prefer", "S", UpstreamTLSPrefer, false},
}

// soon runs f, which must end long before a minute has passed.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(wireTimeout):
		t.Fatalf("%s takes too long", what)
	}
}

// TestSilentServer dials servers that accept and say nothing: one deadline holds for all that dialing takes, and a client is told.
func TestSilentServer(t *testing.T) {
	for _, c := range silent {
		t.Run(c.name, func(t *testing.T) {
			access := Access{UpstreamTLS: UpstreamTLS{Mode: c.mode}}
			upstream, _ := silentUpstream(t, c.says)
			srv, err := New(Config{Upstream: upstream, Table: newMapTable(), StartupTimeout: time.Minute, Access: access})
			if err != nil {
				t.Fatal(err)
			}
			soon(t, "dialing", func() {
				conn, err := srv.dial(time.Now().Add(50 * time.Millisecond))
				if (err == nil) != c.dials {
					t.Errorf("dialing ends with %v", err)
				}
				if err == nil {
					conn.Close()
				}
			})
			l := listenLoopback(t)
			serveProxy(t, Config{Upstream: upstream, StartupTimeout: 200 * time.Millisecond, Access: access}, l)
			client := dialRaw(t, l.Addr().String())
			if c.dials { // as PostgreSQL ends who takes too long to log in: without a word
				converse(t, client, startupPacket(3<<16), "")
				return
			}
			converse(t, client, startupPacket(3<<16), "E")
			readRefusal(t, client, "C"+codeConnectionFailure+"\x00", "timeout")
		})
	}
}

// TestSilentServerAndCancel has a harvest end with a cancel request that the server never takes in: the session waits for a
// while, or until the proxy ends, and must not go on if the request has been sent.
func TestSilentServerAndCancel(t *testing.T) {
	for _, c := range silent {
		for _, ends := range []bool{false, true} {
			name := c.name + ", too slow"
			if ends {
				name = c.name + ", at the end of the proxy"
			}
			t.Run(name, func(t *testing.T) {
				upstream, heard := silentUpstream(t, c.says)
				srv, err := New(Config{
					Upstream: upstream, Table: newMapTable(), StartupTimeout: time.Minute,
					Access: Access{UpstreamTLS: UpstreamTLS{Mode: c.mode}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if srv.cancelWait != cancelWait {
					t.Errorf("a cancel request may take %v", srv.cancelWait)
				}
				srv.cancelWait = 50 * time.Millisecond
				if ends {
					srv.cancelWait = time.Minute
				}
				a, b := net.Pipe()
				defer a.Close()
				defer b.Close()
				s := newSession(srv, a, b, testLogger(t))
				s.cancelKey = "12345678"
				s.beginHarvest()
				s.stopHarvest()
				<-heard
				if ends {
					srv.cancel()
				}
				soon(t, "the end of the harvest", func() {
					if ok := s.endHarvest(); ok == c.dials {
						t.Errorf("it is safe to go on: %v", ok)
					}
				})
			})
		}
	}
}

// TestCancelNeverTakenIn has the server take in the session's connection and nothing after that. A set fails in a row: the
// client is told of that, and then that the session ends, since the request to stop the rows is left. Who asks for a
// cancellation may give up.
func TestCancelNeverTakenIn(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	l := listenLoopback(t)
	t.Cleanup(func() { l.Close() })
	heard := make(chan struct{}, 8)
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if n > 0 {
					if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
						heard <- struct{}{}
					}
					_, _ = io.Copy(io.Discard, c)
					return
				}
				server, err := net.Dial("tcp", pg.Addr())
				if err != nil {
					return
				}
				defer server.Close()
				go func() { _, _ = io.Copy(server, c) }()
				_, _ = io.Copy(c, server)
			}()
		}
	}()
	srv, addr := startProxy(t, Config{Upstream: l.Addr().String(), Table: newMapTable(), Logger: testLogger(t)})
	srv.cancelWait = 200 * time.Millisecond
	w := dialWire(t, addr)
	w.send(query("SELECT raftable(NULLIF('k' || g, 'k2'), 'v') FROM generate_series(1, 3) g"))
	<-heard
	var said []string
	w.deadline()
	for typ, body, err := w.read(); err == nil; typ, body, err = w.read() {
		if typ == 'E' {
			said = append(said, errorFields(body))
		}
	}
	if len(said) != 2 || !strings.Contains(said[0], `C="22004"`) || !strings.Contains(said[1], `S="FATAL" C="57P01"`) {
		t.Errorf("the errors are %q", said)
	}
	eventually(t, "the session has ended", func() bool { return srv.Sessions() == 0 })

	c := connectWire(t, addr)
	c.send(append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancelRequest), "12345678"...))
	<-heard
	c.c.Close()
	eventually(t, "the request is given up", func() bool {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		return len(srv.conns) == 0
	})
}
