package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
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

// ways are the ways in which loops wait: as they do, hot whenever possible, and without io_uring.
var ways = []string{"default", "hot", "epoll"}

var wayFlag = flag.String("proxy.wait", "default", fmt.Sprint("how event loops wait for sockets, of ", ways))

// waits has the server's loops wait in one of the ways.
func (s *Server) waits(way string) {
	switch way {
	case "hot":
		s.hotAfter = 0
	case "epoll":
		s.cfg.NoIOUring = true
	}
}

// eachWay runs a test with loops that wait in each of the ways.
func eachWay(t *testing.T, test func(t *testing.T, newServer func(t testing.TB, cfg Config) *Server)) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			if u, err := newUring(); err == nil {
				u.close()
			} else if way == "hot" {
				t.Skipf("this system has no io_uring: %v", err)
			}
			test(t, func(t testing.TB, cfg Config) *Server { return newLoopServerThat(t, way, cfg) })
		})
	}
}

// newLoopServerThat is a server without listeners that has one event loop.
func newLoopServerThat(t testing.TB, way string, cfg Config) *Server {
	t.Helper()
	cfg.Upstream = "127.0.0.1:1"
	if cfg.Table == nil {
		cfg.Table = newMapTable()
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv.waits(way)
	l, err := srv.newLoop()
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
func TestEndBehindData(t *testing.T) { eachWay(t, endBehindData) }

func endBehindData(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
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

// gatedTable is a table that waits for its group: it says when it begins to, and is told when it may go on.
func gatedTable() (table *mapTable, waiting, goOn chan struct{}) {
	table, waiting, goOn = newMapTable(), make(chan struct{}), make(chan struct{})
	table.block = func(context.Context) error {
		waiting <- struct{}{}
		<-goOn
		return nil
	}
	return table, waiting, goOn
}

// readMessages reads messages of these types.
func readMessages(t testing.TB, c net.Conn, types string) {
	t.Helper()
	for i := range types {
		var hdr [headerSize]byte
		if _, err := io.ReadFull(c, hdr[:]); err != nil || hdr[0] != types[i] {
			t.Fatalf("message %d is %q, %v", i, hdr[0], err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(hdr[1:]))-4); err != nil {
			t.Fatal(err)
		}
	}
}

// turn has a client send a statement, and the server answer it.
func (lt *loopTest) turn(t testing.TB) {
	t.Helper()
	lt.pass(t, lt.toClient, lt.toServer, string(query("SELECT 1")))
	lt.pass(t, lt.toServer, lt.toClient, "C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I")
}

// TestHandOff has one session of a loop wait for its table: the others go on, and what the session is sent meanwhile is
// dealt with afterwards, in order.
func TestHandOff(t *testing.T) { eachWay(t, handOff) }

func handOff(t *testing.T, newServer func(testing.TB, Config) *Server) {
	table, waiting, goOn := gatedTable()
	srv := newServer(t, Config{Table: table})
	slow, other := newLoopTest(t, srv, "unix"), newLoopTest(t, srv, "tcp")
	if _, err := slow.toClient.Write(query("SELECT raftable('k', 'v')")); err != nil {
		t.Fatal(err)
	}
	<-waiting
	for range 100 {
		other.turn(t)
	}
	if _, err := slow.toClient.Write(query("SELECT raftable('k')")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop notes what comes for the side that runs", func() bool { return slow.front.side.state.Load() == sidePending })
	close(goOn)
	readMessages(t, slow.toClient, "TDCZTDCZ")
	eventually(t, "the side is idle again", func() bool { return slow.front.side.state.Load() == sideIdle })
}

// tagged is n bytes in whole messages that tell by whom they were sent.
func tagged(who, n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		at := len(b)
		b = append(b, 'd', 0, 0, 0, 0)
		b = fmt.Appendf(b, "%d/%d ", who, i)
		b = finishMessage(append(b, make([]byte, i*37%900)...), at)
	}
	return b
}

// smallBuffers makes a connection one that is soon full. With much smaller ones than these TCP waits for timers of its own.
func smallBuffers(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, c := range conns {
		b := c.(interface {
			SetReadBuffer(int) error
			SetWriteBuffer(int) error
		})
		if err := errors.Join(b.SetReadBuffer(128<<10), b.SetWriteBuffer(32<<10)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoRoom fills all buffers of a session in both directions before anybody reads. Nothing is lost, and another session
// of the loop does not notice.
func TestNoRoom(t *testing.T) { eachWay(t, noRoom) }

func noRoom(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			toClient, client := socketPair(t, network)
			toServer, server := socketPair(t, network)
			smallBuffers(t, toClient, client, toServer, server)
			full := &loopTest{newSession(srv, client, server, zerolog.Nop()), toClient, toServer}
			if !full.attach(srv.loop(), client, server) {
				t.Fatal("the session is not on the loop")
			}
			other := newLoopTest(t, srv, network)
			up, down := tagged(1, 4<<20), tagged(2, 4<<20)
			var wg sync.WaitGroup
			write := func(c net.Conn, b []byte) {
				defer wg.Done()
				if _, err := c.Write(b); err != nil {
					t.Error(err)
				}
			}
			read := func(c net.Conn, want []byte) {
				defer wg.Done()
				got := make([]byte, len(want))
				if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d arrive, or others, %v", n, len(want), err)
				}
			}
			wg.Add(4)
			go write(toClient, up)
			go write(toServer, down)
			waits := func(k *sock) bool {
				k.mu.Lock()
				defer k.mu.Unlock()
				return k.waiting
			}
			eventually(t, "both sides wait for room", func() bool { return waits(&full.front.side.sock) && waits(&full.back.side.sock) })
			other.pass(t, other.toClient, other.toServer, string(query("SELECT 1")))
			go read(toServer, up)
			go read(toClient, down)
			wg.Wait()
			full.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
		})
	}
}

// TestAbortWithoutRoom ends sessions whose sides wait for room.
func TestAbortWithoutRoom(t *testing.T) { eachWay(t, abortWithoutRoom) }

func abortWithoutRoom(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	files := descriptors(t)
	much := bytes.Repeat(tagged(1, 1<<20), 16)
	for i := range 20 {
		lt := newLoopTest(t, srv, []string{"tcp", "unix"}[i%2])
		sent := make(chan struct{})
		go func() { defer close(sent); _, _ = lt.toServer.Write(much) }()
		k := &lt.front.side.sock
		eventually(t, "the server's side waits for room", func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.waiting
		})
		lt.abort()
		<-sent
		eventually(t, "the session ends", func() bool { return lt.sides.Load() == 0 })
		lt.toClient.Close()
		lt.toServer.Close()
	}
	eventually(t, "all descriptors are closed", func() bool { return descriptors(t) <= files })
}

// TestManySessions has many sessions of one loop talk at the same time and end in the middle of it, by either peer or by
// the server of the proxy. Nobody gets anything of somebody else's, though descriptors and slots are used again at once.
func TestManySessions(t *testing.T) { eachWay(t, manySessions) }

func manySessions(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	files := descriptors(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			for round := range 15 {
				who := worker*100 + round
				lt := newLoopTest(t, srv, []string{"tcp", "unix"}[rnd.IntN(2)])
				up, down := tagged(2*who, rnd.IntN(300<<10)), tagged(2*who+1, rnd.IntN(300<<10))
				var talk sync.WaitGroup
				talk.Add(4)
				// What arrives is the beginning of what was sent: all of it unless the session was cut off.
				read := func(c net.Conn, want []byte, cut bool) {
					defer talk.Done()
					got := make([]byte, len(want))
					n, err := io.ReadFull(c, got)
					if !bytes.Equal(got[:n], want[:n]) || err != nil && !cut {
						t.Errorf("%d bytes of %d arrive, or others, %v", n, len(want), err)
					}
				}
				end := rnd.IntN(4)
				go func() { defer talk.Done(); _, _ = lt.toClient.Write(up) }()
				go func() { defer talk.Done(); _, _ = lt.toServer.Write(down) }()
				go read(lt.toServer, up, end > 0)
				go read(lt.toClient, down, end > 0)
				switch end {
				case 1:
					lt.abort()
				case 2:
					lt.toClient.Close()
				case 3:
					lt.toServer.Close()
				}
				talk.Wait()
				lt.toClient.Close()
				lt.toServer.Close()
			}
		}()
	}
	wg.Wait()
	l := srv.loops[0]
	eventually(t, "all slots are free", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.free) == len(l.slots)
	})
	eventually(t, "all descriptors are closed", func() bool { return descriptors(t) <= files })
}

// TestAbortBeforeLoop ends a session just before it would get onto a loop.
func TestAbortBeforeLoop(t *testing.T) { eachWay(t, abortBeforeLoop) }

func abortBeforeLoop(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	_, client := socketPair(t, "tcp")
	_, server := socketPair(t, "unix")
	s := newSession(srv, client, server, zerolog.Nop())
	s.abort()
	if s.attach(srv.loop(), client, server) {
		t.Fatal("the session is on the loop")
	}
	s.run(client, server)
	if l := srv.loops[0]; len(l.free) != len(l.slots) {
		t.Error("slots are taken")
	}
}

// panicTable has a defect.
type panicTable struct{ *mapTable }

func (panicTable) Get([]byte, []byte) ([]byte, bool) { panic("a defect") }

// TestDefectOnLoop has a session fail while it runs in the loop's goroutine: the loop goes on.
func TestDefectOnLoop(t *testing.T) { eachWay(t, defectOnLoop) }

func defectOnLoop(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{Table: panicTable{newMapTable()}})
	bad, other := newLoopTest(t, srv, "tcp"), newLoopTest(t, srv, "tcp")
	for range 2 { // with a text that must be read first, and with one that is known
		if _, err := bad.toClient.Write(query("SELECT raftable('k')")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(bad.toClient); len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
		bad.toServer.Close()
		bad = newLoopTest(t, srv, "tcp")
	}
	other.pass(t, other.toClient, other.toServer, string(query("SELECT 1")))
}
