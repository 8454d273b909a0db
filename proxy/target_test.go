package proxy

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"net"
	"strings"
	"testing"
)

// wireTarget is what a client connects to, and how.
type wireTarget struct {
	addr string
	tls  *tls.Config             // nil for no TLS
	cut  func(b []byte) [][]byte // how what is written to the socket is cut, under TLS too; nil for not at all
}

// connect makes a connection that has sent nothing yet but what TLS takes.
func (to wireTarget) connect(t testing.TB) *wireConn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(to.addr, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, to.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := &wireConn{t: t, c: c}
	w.deadline()
	if to.tls != nil {
		converse(t, c, requestTLS, "S")
		if to.cut != nil {
			c = &cutConn{Conn: c, cut: to.cut}
		}
		w.c = tls.Client(c, to.tls)
	}
	w.r = bufio.NewReader(w.c)
	return w
}

// dial makes a connection that is ready for queries.
func (to wireTarget) dial(t testing.TB, params ...string) *wireConn {
	t.Helper()
	w := to.connect(t)
	w.send(startWire(3<<16, params...))
	for _, line := range w.begin() {
		if line[0] == 'E' || strings.HasPrefix(line, "end") {
			t.Fatalf("startup: %s", line)
		}
	}
	return w
}

// cancel asks for a cancellation and waits until the request is over.
func (to wireTarget) cancel(t testing.TB, key []byte) {
	t.Helper()
	w := to.connect(t)
	defer w.c.Close()
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(key)))
	b = binary.BigEndian.AppendUint32(b, codeCancelRequest)
	if _, err := w.c.Write(append(b, key...)); err != nil {
		t.Fatal(err)
	}
	if n, err := w.c.Read(make([]byte, 1)); n != 0 || errorKind(err) != "connection closed" {
		t.Fatalf("a cancel request was answered: %d bytes, %v", n, err)
	}
}

// connectWire makes a connection without TLS that has sent nothing yet.
func connectWire(t testing.TB, addr string) *wireConn {
	t.Helper()
	return wireTarget{addr: addr}.connect(t)
}

// dialWire makes a connection without TLS that is ready for queries.
func dialWire(t testing.TB, addr string, params ...string) *wireConn {
	t.Helper()
	return wireTarget{addr: addr}.dial(t, params...)
}

// cancelRequest asks for a cancellation without TLS.
func cancelRequest(t testing.TB, addr string, key []byte) {
	t.Helper()
	wireTarget{addr: addr}.cancel(t, key)
}

// cutConn cuts what is written, without regard to what it is.
type cutConn struct {
	net.Conn
	cut func([]byte) [][]byte
}

func (c *cutConn) Write(b []byte) (n int, err error) {
	for _, p := range c.cut(b) {
		w, err := c.Conn.Write(p)
		n += w
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
