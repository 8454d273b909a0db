package proxy

import (
	"net"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// socketsOf are the descriptors of this process' TCP sockets with that local or, if not local, remote port.
func socketsOf(t *testing.T, addr string, local bool) (found []int) {
	t.Helper()
	_, text, _ := net.SplitHostPort(addr)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		peer, err := unix.Getpeername(fd)
		if err != nil {
			continue // no socket, or one that listens
		}
		own, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		if local {
			peer = own
		}
		if in, ok := peer.(*unix.SockaddrInet4); ok && in.Port == port {
			found = append(found, fd)
		}
	}
	return found
}

// TestKeepAlive reads the options of both sockets of a session: an end that is gone without a word must be noticed.
func TestKeepAlive(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	dialWire(t, addr).expect("SELECT 1", `D "1"`)
	for name, sockets := range map[string][]int{
		"client": socketsOf(t, addr, true), "PostgreSQL": socketsOf(t, pg.Addr(), false),
	} {
		if len(sockets) != 1 {
			t.Fatalf("%d sockets to the %s", len(sockets), name)
		}
		on, err := unix.GetsockoptInt(sockets[0], unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		idle, err2 := unix.GetsockoptInt(sockets[0], unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		if err != nil || err2 != nil || on != 1 || idle != 60 {
			t.Errorf("%s: keepalive %d after %d seconds, %v, %v", name, on, idle, err, err2)
		}
	}
}
