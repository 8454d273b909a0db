package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// byteConn is a connection of bytes.
type byteConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *byteConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *byteConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *byteConn) SetDeadline(time.Time) error { return nil }
func (c *byteConn) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// frame is a message of the given type.
func frame(typ byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))
	return append(b, body...)
}

func authentication(kind uint32, more string) []byte {
	return frame('R', string(binary.BigEndian.AppendUint32(nil, kind))+more)
}

// TestLoginLimits sends what a client may not send before it has logged in.
func TestLoginLimits(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{Auth: "scram-sha-256"})
	srv, addr := secureProxy(t, pg.Addr(), Access{})
	for _, c := range []struct {
		name string
		send []byte
		want string // "" is the end without a word
	}{
		{"a query", query("SELECT 1"), "expected password response, got message type 81"},
		{"a message too long", frame('p', strings.Repeat("x", 65536)), "invalid length of an authentication message"},
		{"the header of an endless one", []byte{'p', 0x7f, 0xff, 0xff, 0xff}, "invalid length of an authentication message"},
		{"a negative length", []byte{'p', 0xff, 0xff, 0xff, 0xff}, "invalid length of an authentication message"},
		{"the longest", frame('p', strings.Repeat("x", 65535)), "FATAL"}, // for postgres to judge
		{"a goodbye", frame('X', ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dialRaw(t, addr)
			converse(t, conn, startupPacket(3<<16), "R")
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(conn)
			_, said, _ := bytes.Cut(b, []byte("SCRAM-SHA-256\x00\x00"))
			if c.want == "" && len(said) > 0 || !bytes.Contains(said, []byte(c.want)) {
				t.Errorf("got %q, %v, want %q", b, err, c.want)
			}
			conn.Close()
			eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })
		})
	}
	t.Run("the client goes away", func(t *testing.T) {
		conn := dialRaw(t, addr)
		converse(t, conn, startupPacket(3<<16), "R")
		conn.Close()
		eventually(t, "the session ends", func() bool { return srv.Sessions() == 0 })
	})
	t.Run("too long ago", func(t *testing.T) {
		l := listenLoopback(t)
		serveProxy(t, Config{Upstream: pg.Addr(), StartupTimeout: 200 * time.Millisecond}, l)
		conn := dialRaw(t, l.Addr().String())
		converse(t, conn, startupPacket(3<<16), "R")
		if _, err := io.ReadAll(conn); isTimeout(err) {
			t.Error("the connection was not ended")
		}
	})
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// TestLoginWithAServerOfItsOwn plays logins that PostgreSQL's common methods do not have.
func TestLoginWithAServerOfItsOwn(t *testing.T) {
	ready := append(frame('K', "\x00\x00\x00\x01key!"), frame('Z', "I")...)
	seen := make(chan struct{}, 8) // one for each of the answers that the client has seen
	for _, c := range []struct {
		name   string
		server func(c net.Conn) // after the startup packet
		client [][]byte         // each after what the server said
		want   []string         // what the client sees, in turn; the last until the end
	}{
		{
			// The last message of GSSAPI may need no answer.
			"a request without an answer",
			func(c net.Conn) {
				_, _ = c.Write(authentication(7, ""))
				_, _ = io.ReadFull(c, make([]byte, 5+5))
				_, _ = c.Write(authentication(8, "token"))
				<-seen
				<-seen // the proxy waits for an answer by now
				_, _ = c.Write(append(authentication(0, ""), ready...))
				_, _ = io.ReadFull(c, make([]byte, len(query("SELECT 1"))))
				_, _ = c.Write(append(frame('C', "SELECT 1\x00"), frame('Z', "I")...))
			},
			[][]byte{frame('p', "ticke"), nil, query("SELECT 1")},
			[]string{
				string(authentication(7, "")),
				string(authentication(8, "token")),
				string(authentication(0, "")) + string(ready),
				string(frame('C', "SELECT 1\x00")) + string(frame('Z', "I")),
			},
		},
		{
			"notices and negotiation in front",
			func(c net.Conn) {
				_, _ = c.Write(frame('v', "\x00\x03\x00\x00\x00\x00\x00\x00"))
				_, _ = c.Write(frame('N', "SNOTICE\x00\x00"))
				_, _ = c.Write(append(authentication(0, ""), ready...))
			},
			nil,
			[]string{string(frame('v', "\x00\x03\x00\x00\x00\x00\x00\x00")) + string(frame('N', "SNOTICE\x00\x00")) + string(authentication(0, "")) + string(ready)},
		},
		{"the end while it waits for the password", func(c net.Conn) {
			_, _ = c.Write(authentication(3, ""))
			_, _ = c.Write((&pgError{code: "57P01", message: "shutting down"}).append(nil, "FATAL"))
		}, nil, []string{string(authentication(3, "")) + string((&pgError{code: "57P01", message: "shutting down"}).append(nil, "FATAL"))}},
		{"an error from before the protocol of today", func(c net.Conn) {
			_, _ = c.Write([]byte("Ecould not fork new process for connection\n\x00"))
		}, nil, []string{"Ecould not fork new process for connection\n\x00"}},
		{"less than a message", func(c net.Conn) { _, _ = c.Write([]byte("R\x00")) }, nil, []string{"R\x00"}},
		{"half of a message", func(c net.Conn) { _, _ = c.Write([]byte("R\x00\x00\x00\x0c\x00\x00\x00\x05")) }, nil, []string{"R\x00\x00\x00\x0c\x00\x00\x00\x05"}},
		{"a request too short", func(c net.Conn) { _, _ = c.Write([]byte("R\x00\x00\x00\x06\x00\x00")) }, nil, []string{"R\x00\x00\x00\x06\x00\x00"}},
		{"nothing", func(net.Conn) {}, nil, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			upstream := fakeUpstream(t, func(conn net.Conn) {
				if _, err := io.ReadFull(conn, make([]byte, len(startupPacket(3<<16)))); err == nil {
					c.server(conn)
				}
			})
			_, addr := secureProxy(t, upstream, Access{})
			for len(seen) > 0 {
				<-seen
			}
			conn := dialRaw(t, addr)
			send := append([][]byte{startupPacket(3 << 16)}, c.client...)
			for i, want := range c.want {
				if want != "" {
					converse(t, conn, send[i], want)
					seen <- struct{}{}
				} else if _, err := conn.Write(send[i]); err != nil {
					t.Fatal(err)
				}
			}
			if b, err := io.ReadAll(conn); len(b) > 0 || isTimeout(err) {
				t.Errorf("at the end: %q, %v", b, err)
			}
		})
	}
}

func TestWithoutMechanism(t *testing.T) {
	for _, c := range []struct{ list, want string }{
		{"SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00", "SCRAM-SHA-256\x00\x00"},
		{"SCRAM-SHA-256\x00\x00", "SCRAM-SHA-256\x00\x00"},
		{"OTHER\x00SCRAM-SHA-256-PLUS\x00\x00", "OTHER\x00\x00"},
		{"no end", "no end"},
		{"", ""},
	} {
		got := withoutMechanism(authentication(authSASL, c.list), scramPlus)
		if want := authentication(authSASL, c.want); !bytes.Equal(got, want) {
			t.Errorf("%q: %q, want %q", c.list, got, want)
		}
	}
}

func FuzzWithoutMechanism(f *testing.F) {
	f.Add("SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00")
	f.Add("no end")
	f.Fuzz(func(t *testing.T, list string) {
		msg := authentication(authSASL, list)
		got := withoutMechanism(bytes.Clone(msg), scramPlus)
		if typ, size := header(got); typ != 'R' || size != len(got) || len(got) > len(msg) {
			t.Fatalf("%q has become %q", msg, got)
		}
	})
}
