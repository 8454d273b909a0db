package proxy

import (
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// stillLoop is a loop that no goroutine runs: the test does.
func stillLoop(t testing.TB) *loop {
	t.Helper()
	u, err := newUring()
	if err != nil {
		t.Skipf("this system has no io_uring: %v", err)
	}
	l := &loop{ring: u, epoll: -1, wake: -1}
	l.settledCond.L = &l.mu
	t.Cleanup(l.close)
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	return l
}

// stillSide is a side that such a loop watches, and its peer.
func stillSide(t testing.TB, l *loop, network string) (sd *side, peer net.Conn) {
	t.Helper()
	peer, c := socketPair(t, network)
	sd = &side{}
	if !sd.watch(l, c) {
		t.Fatal("the socket is not watched")
	}
	t.Cleanup(func() { sd.sock.Close() })
	return sd, peer
}

// TestWeigh has a hot loop stay so only as long as events come several at a time.
func TestWeigh(t *testing.T) {
	for _, test := range []struct {
		events []int // of one wait after the other, again and again
		hot    bool
	}{
		{[]int{1}, false},
		{[]int{2}, true},
		{[]int{0, 1, 3}, false},
		{[]int{1, 2}, true},
	} {
		t.Run(fmt.Sprint(test.events), func(t *testing.T) {
			l := stillLoop(t)
			l.hotAfter = hotAfter
			l.heat()
			defer l.cool()
			for i := range 3 * hotAfter {
				l.n = test.events[i%len(test.events)]
				l.weigh()
			}
			if l.hot != test.hot {
				t.Errorf("the loop is hot: %v", l.hot)
			}
		})
	}
}

// TestCoolWithUrgentByte takes operations back in the system call in which the ring is asked to receive, while a byte out of band
// is pending: the ring looks at such a socket, finds nothing to receive, and would wait for more.
func TestCoolWithUrgentByte(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			l := stillLoop(t)
			sd, peer := stillSide(t, l, network)
			other := &sock{}
			if !other.take(peer) {
				t.Fatal("no socket")
			}
			t.Cleanup(func() { unix.Close(other.fd) })
			if _, err := unix.SendmsgN(other.fd, []byte("Q!"), nil, nil, unix.MSG_OOB); err != nil {
				t.Skipf("%s has no bytes out of band: %v", network, err)
			}
			eventually(t, "the byte is pending", func() bool {
				fds := []unix.PollFd{{Fd: int32(sd.sock.fd), Events: unix.POLLPRI}}
				n, err := unix.Poll(fds, 0)
				return err == nil && n == 1
			})
			var buf [10]byte
			if n, errno := sd.sock.receive(buf[:]); n != 1 {
				t.Fatalf("read %d bytes, %v", n, errno)
			}
			soon(t, "to take operations back", func() {
				l.heat()
				l.arm(&sd.sock)
				l.cool()
			})
		})
	}
}

// TestFlushesLeaveNothing flushes more often than the ring has room for results, in a loop that is always calm.
func TestFlushesLeaveNothing(t *testing.T) {
	l := stillLoop(t)
	sd, peer := stillSide(t, l, "unix")
	l.n = 2 // as if other events were to come
	for i := range 2 * uringResults {
		if !l.collect(&sd.sock, []byte("x")) {
			t.Fatalf("byte %d is not collected", i)
		}
		l.flush()
		if n := l.ring.look(0, func(*cqe) {}); n > 0 {
			t.Fatalf("flush %d leaves %d results", i, n)
		}
		if _, err := io.CopyN(io.Discard, peer, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlushOfWhatOthersSent has others send what was collected, before the loop gets to it: there is room for more all the same.
func TestFlushOfWhatOthersSent(t *testing.T) {
	l := stillLoop(t)
	sd, peer := stillSide(t, l, "unix")
	l.n = 2
	piece := make([]byte, collectable)
	for i := range 2 * outboxSize / collectable {
		if !l.collect(&sd.sock, piece) {
			t.Fatalf("piece %d is not collected", i)
		}
		if _, err := sd.sock.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		l.flush()
		if _, err := io.CopyN(io.Discard, peer, collectable+1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAwaitSent waits for what the loop has settled between the two looks at it.
func TestAwaitSent(t *testing.T) {
	l := stillLoop(t)
	before := l.settled.Load()
	l.mu.Lock()
	l.tellSent()
	l.mu.Unlock()
	soon(t, "to wait for what is over", func() { l.awaitSent(before) })
}

// slowClient is a session whose client reads nothing until the buffers are full. Its server sends one piece after the other, each
// when the one before has been dealt with, until a piece, or a part of one, is left in the proxy. Then nothing else happens.
type slowClient struct {
	*loopTest
	sent []byte
}

// newSlowClient makes one. A piece is what stands between two places in a row of equal messages, of which each begins at the offset.
func newSlowClient(t *testing.T, srv *Server, offset int) *slowClient {
	toClient, client := socketPair(t, "tcp")
	toServer, server := socketPair(t, "tcp")
	smallBuffers(t, toClient, client, toServer, server)
	lt := &loopTest{newSession(srv, client, server, zerolog.Nop()), toClient, toServer}
	if !lt.attach(srv.loop(), client, server) {
		t.Fatal("the session is not on the loop")
	}
	lt.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
	for range 2 * hotAfter {
		lt.turn(t)
	}
	s := &slowClient{loopTest: lt}
	k := &lt.front.side.sock
	padding := finishMessage(append([]byte{'N', 0, 0, 0, 0}, make([]byte, 2000)...), 0)
	for on := true; ; on = !on {
		// A setting that changes with each piece tells when it has been seen.
		setting := finishMessage(fmt.Appendf([]byte("S\x00\x00\x00\x00"), "standard_conforming_strings\x00%s\x00", map[bool]string{true: "off", false: "on"}[on]), 0)
		piece := slices.Concat(padding[len(padding)-offset:], setting, padding[:len(padding)-offset])
		if len(s.sent) == 0 {
			piece = piece[offset:]
		}
		if _, err := lt.toServer.Write(piece); err != nil {
			t.Fatal(err)
		}
		s.sent = append(s.sent, piece...)
		left := false
		eventually(t, "a piece is dealt with", func() bool {
			lt.owed.mu.Lock()
			seen := lt.back.settings.standardConformingStrings != on
			lt.owed.mu.Unlock()
			k.mu.Lock()
			defer k.mu.Unlock()
			left = k.waiting || len(k.out) > 0 && !k.sending
			return seen && (k.waiting || lt.back.side.state.Load() == sideIdle && !k.sending)
		})
		if left {
			return s
		}
	}
}

// read has the client read, to the end of the stream if there is to be one, and compares.
func (s *slowClient) read(t *testing.T, end bool) (more []byte) {
	t.Helper()
	got := make([]byte, len(s.sent))
	if n, err := io.ReadFull(s.toClient, got); err != nil || string(got) != string(s.sent) {
		t.Fatalf("%d bytes of %d arrive, or others, %v", n, len(got), err)
	}
	if end {
		more, _ = io.ReadAll(s.toClient)
	}
	return more
}

// TestSlowClient has the end of an answer wait in the proxy until the client reads, while nothing else happens.
func TestSlowClient(t *testing.T) {
	eachWay(t, func(t *testing.T, newServer func(testing.TB, Config) *Server) {
		newSlowClient(t, newServer(t, Config{}), 0).read(t, false)
	})
}

// TestDrainOfSlowClient tells a session to go while the end of an answer is in the proxy: the client gets that first.
func TestDrainOfSlowClient(t *testing.T) {
	eachWay(t, func(t *testing.T, newServer func(testing.TB, Config) *Server) {
		s := newSlowClient(t, newServer(t, Config{}), 0)
		s.drain()
		if more := s.read(t, true); len(more) == 0 || more[0] != 'E' {
			t.Errorf("then comes %q", more)
		}
	})
}

// TestServerEndsAheadOfSlowClient has the server end in the middle of a message while what came before is in the proxy.
func TestServerEndsAheadOfSlowClient(t *testing.T) {
	eachWay(t, func(t *testing.T, newServer func(testing.TB, Config) *Server) {
		s := newSlowClient(t, newServer(t, Config{}), 500)
		s.toServer.Close()
		if more := s.read(t, true); len(more) > 0 {
			t.Errorf("then comes %q", more)
		}
	})
}

// BenchmarkCool measures how long all other sessions of a loop wait while it takes back what it has asked for.
func BenchmarkCool(b *testing.B) {
	for _, n := range []int{16, maxArmed, 4 * maxArmed} {
		b.Run(itoa(n), func(b *testing.B) {
			l := stillLoop(b)
			sides := make([]*side, n)
			for i := range sides {
				sides[i], _ = stillSide(b, l, "unix")
			}
			var cooling time.Duration
			for b.Loop() {
				l.heat()
				for _, sd := range sides {
					l.arm(&sd.sock)
				}
				_ = l.ring.enter(0)
				at := time.Now()
				l.cool()
				cooling += time.Since(at)
			}
			b.ReportMetric(float64(cooling.Microseconds())/float64(b.N), "µs/cool")
		})
	}
}
