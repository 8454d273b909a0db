package proxy

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
)

// faultKind is what goes wrong with what one side sends.
type faultKind int

const (
	faultNone  faultKind = iota
	faultStall           // nothing more for a while
	faultShut            // no more is sent, but what comes is still read
	faultClose           // the connection is closed
	faultReset           // and reset
	faultKinds
)

func (k faultKind) String() string {
	return []string{"nothing", "a stall", "a half-close", "a close", "a reset"}[k]
}

var errFault = errors.New("the fault of this test")

// faultyConn writes in pieces of random size, and does what kind says once at bytes were written.
type faultyConn struct {
	net.Conn
	rnd   *rand.Rand
	piece int
	kind  faultKind
	at    int
	stall func()
}

func (c *faultyConn) Write(b []byte) (n int, err error) {
	for n < len(b) {
		size := 1 + c.rnd.IntN(min(len(b)-n, c.piece))
		if c.kind != faultNone {
			size = min(size, c.at)
		}
		if size == 0 {
			if err := c.happen(); err != nil {
				return n, err
			}
			continue
		}
		w, err := c.Conn.Write(b[n : n+size])
		n, c.at = n+w, c.at-w
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (c *faultyConn) happen() error {
	kind := c.kind
	switch kind {
	case faultStall:
		c.kind = faultNone
		c.stall()
		return nil
	case faultShut:
		_ = closeWrite(c.Conn)
	case faultReset:
		reset(c.Conn)
	default:
		c.Conn.Close()
	}
	return errFault
}

// reset closes a connection so that the other side sees a reset, with TLS one in which nothing says that this is the end.
func reset(c net.Conn) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
