package proxy

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

func stillLoop(t testing.TB) *loop {
	u, err := newUring()
	if err != nil {
		t.Skip(err)
	}
	l := &loop{ring: u, epoll: -1, wake: -1, done: make(chan struct{})}
	l.settledCond.L = &l.mu
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	return l
}

func stillSide(t testing.TB, l *loop, c net.Conn) *side {
	sd := &side{}
	if !sd.watch(l, c) {
		t.Fatal("not watched")
	}
	return sd
}

// A byte out of band is pending when the ring is asked to receive and everything is taken back in the same system call.
func TestLoopUrgentByte(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			l := stillLoop(t)
			peer, c := socketPair(t, network)
			sd := stillSide(t, l, c)
			raw, _ := peer.(interface {
				SyscallConn() (r interface{ Control(func(uintptr)) error }, err error)
			})
			_ = raw
			var fd int
			switch p := peer.(type) {
			case *net.TCPConn:
				r, _ := p.SyscallConn()
				_ = r.Control(func(f uintptr) { fd = int(f) })
			case *net.UnixConn:
				r, _ := p.SyscallConn()
				_ = r.Control(func(f uintptr) { fd = int(f) })
			}
			if _, err := unix.SendmsgN(fd, []byte("Q!"), nil, nil, unix.MSG_OOB); err != nil {
				t.Skip(err)
			}
			time.Sleep(50 * time.Millisecond)
			var buf [100]byte
			n, errno := sd.sock.receive(buf[:])
			t.Logf("read %q %v", buf[:max(n, 0)], errno)
			l.heat()
			l.arm(&sd.sock)
			var cooled atomic.Bool
			done := make(chan struct{})
			go func() { // the thread of the submitter does not matter here much, but let the watchdog be elsewhere
				select {
				case <-done:
				case <-time.After(3 * time.Second):
					t.Errorf("cool still spins after 3 s: %v", !cooled.Load())
					_, _ = peer.Write([]byte("go on"))
				}
			}()
			l.cool()
			cooled.Store(true)
			close(done)
		})
	}
}

func BenchmarkLoopCool(b *testing.B) {
	for _, n := range []int{100, 1000, 4000, 8000} {
		b.Run(itoa(n), func(b *testing.B) {
			l := stillLoop(b)
			var sides []*side
			for range n {
				fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					b.Skip(err)
				}
				defer unix.Close(fds[0])
				defer unix.Close(fds[1])
				sd := &side{}
				sd.sock.fd = fds[0]
				if err := l.add(sd); err != nil {
					b.Fatal(err)
				}
				sides = append(sides, sd)
			}
			var worst time.Duration
			for b.Loop() {
				l.heat()
				for _, sd := range sides {
					l.arm(&sd.sock)
				}
				_ = l.ring.enter(0)
				at := time.Now()
				l.cool()
				worst = max(worst, time.Since(at))
				l.early = nil
			}
			b.ReportMetric(float64(worst.Microseconds()), "µs/cool")
		})
	}
}

// flushes of a calm loop leave their results in the queue.
func TestLoopCalmResults(t *testing.T) {
	l := stillLoop(t)
	var sides []*side
	for range 2 {
		peer, c := socketPair(t, "unix")
		sides = append(sides, stillSide(t, l, c))
		go func() { _, _ = io.Copy(io.Discard, peer) }()
	}
	l.n = 5 // as if there were more events
	for i := range 4000 {
		for _, sd := range sides {
			for sd.sock.mu.Lock(); len(sd.sock.out) > 0; sd.sock.mu.Lock() {
				_ = sd.sock.sendOut()
				sd.sock.mu.Unlock()
			}
			sd.sock.mu.Unlock()
			if !l.collect(&sd.sock, []byte("x")) {
				t.Fatal("not collected")
			}
		}
		at := time.Now()
		l.flush()
		if i%500 == 0 || i == 3999 {
			t.Logf("flush %d: %d results are left, took %v", i, l.ring.look(0, func(*cqe) {}), time.Since(at))
		}
	}
}

// others have sent all that was collected before the loop gets to it.
func TestLoopOutboxNeverEmptied(t *testing.T) {
	l := stillLoop(t)
	peer, c := socketPair(t, "unix")
	sd := stillSide(t, l, c)
	l.n = 5
	b := make([]byte, 4000)
	for i := range 100 {
		if !l.collect(&sd.sock, b) {
			t.Fatalf("round %d: not collected any more, the outbox has %d bytes", i, len(l.outbox.bytes))
		}
		if _, err := sd.sock.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		l.flush()
		if _, err := io.CopyN(io.Discard, peer, 4001); err != nil {
			t.Fatal(err)
		}
	}
}

// A session whose last answer is still in the proxy is drained.
func TestLoopDrainWithKept(t *testing.T) { eachWay(t, loopDrain) }

func loopDrain(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	toClient, client := socketPair(t, "tcp")
	toServer, server := socketPair(t, "tcp")
	smallBuffers(t, toClient, client, toServer, server)
	lt := &loopTest{newSession(srv, client, server, zerolog.Nop()), toClient, toServer}
	if !lt.attach(srv.loop(), client, server) {
		t.Fatal("the session is not on the loop")
	}
	lt.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
	k := &lt.front.side.sock
	piece := finishMessage(append([]byte{'N', 0, 0, 0, 0}, make([]byte, 2000)...), 0)
	piece = append(piece, "Z\x00\x00\x00\x05I"...)
	sent := 0
	stuckNow := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.out) > 0 && !k.sending || k.waiting
	}
	stuck := func() bool {
		if !stuckNow() {
			return false
		}
		time.Sleep(300 * time.Millisecond)
		return stuckNow()
	}
	for !stuck() {
		if _, err := toServer.Write(piece); err != nil {
			t.Fatal(err)
		}
		sent += len(piece)
		at := time.Now()
		for !stuck() && (lt.back.side.state.Load() != sideIdle || time.Since(at) < 200*time.Microsecond) {
			time.Sleep(20 * time.Microsecond)
		}
	}
	k.mu.Lock()
	t.Logf("%d bytes are kept, waiting %v, after %d", len(k.out), k.waiting, sent)
	k.mu.Unlock()
	lt.drain()
	got, err := io.ReadAll(toClient)
	t.Logf("%v", err)
	t.Logf("%d of %d", len(got), sent)
	if len(got) < sent {
		t.Errorf("%d bytes of %d arrive", len(got), sent)
	}
}

// The server's side ends in the middle of a message, and the client is slow.
func TestLoopEndLocked(t *testing.T) { eachWay(t, loopEndLocked) }

func loopEndLocked(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	toClient, client := socketPair(t, "tcp")
	toServer, server := socketPair(t, "tcp")
	smallBuffers(t, toClient, client, toServer, server)
	lt := &loopTest{newSession(srv, client, server, zerolog.Nop()), toClient, toServer}
	if !lt.attach(srv.loop(), client, server) {
		t.Fatal("the session is not on the loop")
	}
	lt.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
	k := &lt.front.side.sock
	whole := finishMessage(append([]byte{'N', 0, 0, 0, 0}, make([]byte, 2000)...), 0)
	piece := append(whole[:len(whole):len(whole)], whole[:500]...)
	rest := whole[500:]
	sent := 0
	stuckNow := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.out) > 0 && !k.sending || k.waiting
	}
	stuck := func() bool {
		if !stuckNow() {
			return false
		}
		time.Sleep(300 * time.Millisecond)
		return stuckNow()
	}
	write := func(b []byte) {
		if _, err := toServer.Write(b); err != nil {
			t.Fatal(err)
		}
		sent += len(b)
		at := time.Now()
		for !stuck() && (lt.back.side.state.Load() != sideIdle || time.Since(at) < 200*time.Microsecond) {
			time.Sleep(20 * time.Microsecond)
		}
	}
	for {
		if write(piece); stuck() {
			break
		}
		if write(rest); stuck() {
			write(piece)
			break
		}
	}
	toServer.Close()
	k.mu.Lock()
	t.Logf("%d bytes are kept, waiting %v, after %d", len(k.out), k.waiting, sent)
	k.mu.Unlock()
	time.Sleep(200 * time.Millisecond)
	got, err := io.ReadAll(toClient)
	t.Logf("%v", err)
	t.Logf("%d of %d", len(got), sent)
	if len(got) < sent {
		t.Errorf("%d bytes of %d arrive", len(got), sent)
	}
}

// A send of a hot loop finds too little room, and nothing else happens.
func TestLoopShortSend(t *testing.T) { loopShortSend(t, false) }

func TestLoopShortSendDrain(t *testing.T) { loopShortSend(t, true) }

func loopShortSend(t *testing.T, drain bool) {
	for _, way := range []string{"default", "hot"} {
		t.Run(way, func(t *testing.T) {
			srv := newLoopServerThat(t, way, Config{})
			toClient, client := socketPair(t, "tcp")
			toServer, server := socketPair(t, "tcp")
			smallBuffers(t, toClient, client, toServer, server)
			lt := &loopTest{newSession(srv, client, server, zerolog.Nop()), toClient, toServer}
			if !lt.attach(srv.loop(), client, server) {
				t.Fatal("the session is not on the loop")
			}
			lt.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
			for range 1000 {
				lt.pass(t, toServer, toClient, "Z\x00\x00\x00\x05I")
			}
			k := &lt.front.side.sock
			piece := finishMessage(append([]byte{'N', 0, 0, 0, 0}, make([]byte, 2000)...), 0)
			sent := 0
			short := func() (s bool) {
				srv.loops[0].ring.look(0, func(c *cqe) {
					if c.userData&(kindMask|seenSend) == ofSend && int(c.res) != len(piece) {
						s = true
					}
				})
				return s
			}
			for {
				if _, err := toServer.Write(piece); err != nil {
					t.Fatal(err)
				}
				sent += len(piece)
				time.Sleep(time.Millisecond)
				if short() {
					time.Sleep(20 * time.Millisecond)
					if short() {
						t.Logf("a send was short after %d", sent)
						break
					}
				}
				k.mu.Lock()
				w := k.waiting
				k.mu.Unlock()
				if w {
					t.Logf("a writer waits after %d", sent)
					break
				}
			}
			if drain {
				lt.drain()
			}
			_ = toClient.SetDeadline(time.Now().Add(4 * time.Second))
			got := make([]byte, sent)
			n, err := io.ReadFull(toClient, got)
			if n != sent {
				t.Errorf("%d bytes of %d arrive, %v", n, sent, err)
			}
		})
	}
}

// lock, with a pause between its two steps.
