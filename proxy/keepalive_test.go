package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
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

// TestCancelLinearizable cancels a get, a list and a statement of the server that wait for all that was acknowledged anywhere.
func TestCancelLinearizable(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	waiting := make(chan struct{}, 1)
	table.block = func(ctx context.Context) error {
		waiting <- struct{}{}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errCanceled) {
			return &mapError{code: "55000", message: "no leader"}
		}
		return &mapError{code: "57014", message: "canceling statement due to user request"}
	}
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
