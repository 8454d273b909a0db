package proxy

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ask is what the ring is to do, as another goroutine wants it.
type ask struct {
	sock *sock // to wait for; nil for none
	room bool  // wait for room to write, instead of something to read
	back int   // the number of a buffer to give back; noBuffer for none
}

// received is what came with an event.
type received struct {
	n      int // bytes; 0 for the end of the stream
	errno  syscall.Errno
	buffer int // where they are; noBuffer for nowhere
}

const noBuffer = -1

// nothing is what comes with an event that only says that there is something to read.
var nothing = received{buffer: noBuffer, errno: syscall.EAGAIN}

// The ring's results have a token as user data, and in its two highest bits what they are the result of.
const (
	ofReceive = iota << 62
	ofRoom
	ofWake
	ofSend

	kindMask       = 3 << 62
	generationMask = 1<<30 - 1
)

func (t token) userData(kind uint64) uint64 {
	return kind | uint64(t.generation&generationMask)<<32 | uint64(uint32(t.slot))
}

// watchWake has the ring watch the eventfd.
func (l *loop) watchWake() { l.ring.poll(l.wake, unix.POLLIN, ofWake) }

// receive has the ring receive from a socket. The goroutine that runs the loop calls it.
func (l *loop) receive(k *sock) { l.ring.receive(k.fd, k.token.userData(ofReceive)) }

// giveBack gives a buffer of the ring back. Any goroutine may call it.
func (l *loop) giveBack(id int) {
	l.mu.Lock()
	l.asks = append(l.asks, ask{back: id}) // for which the loop need not wake: without a buffer a side reads by itself
	l.mu.Unlock()
}

// ask has the loop ask the ring, in another goroutine's place.
//
// An operation is bound to the thread that gave it to the kernel, which does the last part of it. That of the loop is not
// asleep, nor busy with something else.
func (l *loop) ask(a ask) {
	l.mu.Lock()
	l.asks = append(l.asks, a)
	asleep := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if asleep {
		l.signal()
	}
}

// takeAsks passes on what other goroutines want of the ring. From now on they have to wake the loop.
func (l *loop) takeAsks() {
	l.mu.Lock()
	l.asks, l.asked = l.asked[:0], l.asks
	l.asleep = true
	l.mu.Unlock()
	for _, a := range l.asked {
		if a.back != noBuffer {
			l.ring.giveBack(uint16(a.back))
		}
		switch {
		case a.sock == nil:
		case a.room:
			l.ring.poll(a.sock.fd, unix.POLLOUT, a.sock.token.userData(ofRoom))
		default:
			l.receive(a.sock)
		}
	}
	clear(l.asked)
}

// waitRing sends what was collected, waits for results and says how many there are.
func (l *loop) waitRing(rests bool) int {
	o := &l.outbox
	l.takeAsks()
	sends := l.stage()
	if rests || len(o.early) > 0 {
		_ = l.ring.enter(0)
	} else {
		_ = l.ring.enter(uint32(sends) + 1)
	}
	l.settle(sends)
	if len(o.early) > 0 {
		n := copy(l.results[:], o.early)
		o.early = append(o.early[:0], o.early[n:]...)
		return n
	}
	if rests {
		l.rest.wait(l.ring.fd, l.ring.ready)
	}
	return l.ring.results(l.results[:])
}

// takeResults makes events of what the last wait returned. The caller has mu.
func (l *loop) takeResults(n int) {
	for i := range l.results[:n] {
		r := &l.results[i]
		e := &l.events[i]
		*e = event{in: nothing}
		kind := r.userData & kindMask
		if kind == ofSend {
			continue // seen already
		}
		if kind == ofWake {
			var count uint64
			_, _ = unix.Read(l.wake, unsafe.Slice((*byte)(unsafe.Pointer(&count)), 8))
			l.watchWake()
			continue
		}
		e.side = l.find(token{int32(r.userData), int32(r.userData >> 32 & generationMask)})
		if kind == ofRoom {
			e.what = unix.EPOLLOUT
			continue
		}
		e.what = unix.EPOLLIN
		switch {
		case r.res >= 0:
			e.in.n, e.in.errno = int(r.res), 0
		case r.res != -int32(unix.ENOBUFS) && r.res != -int32(unix.EINTR) && r.res != -int32(unix.ECANCELED):
			e.in.errno = syscall.Errno(-r.res)
		}
		if id, ok := r.buffer(); ok {
			e.in.buffer = int(id)
			if e.side == nil { // cannot be: a side that waits for its socket has not gone
				l.ring.giveBack(id)
			}
		}
	}
}
