package proxy

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A loop with an io_uring is hot while it has much to do and nobody else has. Then the kernel receives for it: each socket on
// which something has come is parked, which means that the set of epoll reports no more of it, and the ring is asked for what
// comes next. So one system call sends all that there is to send, and another returns with what has been received. Sockets on which
// nothing comes stay in the set, which the ring watches as a whole.
//
// The kernel has the thread that asked for an operation do the last part of it. So a hot loop has its goroutine locked to its
// thread. A thread that goes on to serve other goroutines might have to wait for a disk, and what a client sent would
// have to wait with it. So before anybody else gets the thread all operations are taken back, and the loop is calm: it waits
// with epoll, and uses the ring only to send to many at once.

// hotAfter is how many waits in a row must have been short, and disturbed by nobody, for a loop to become hot. To take
// operations back costs about as much as they spare in a round.
const hotAfter = 64

// enough says whether so many waits brought enough events for a loop to be hot. For an event that comes alone the ring makes
// about as much work as it spares; what it is good for is that one system call serves several.
func enough(events, waits int) bool { return 2*events >= 3*waits }

// maxArmed is for how many sockets a hot loop receives at most. All are taken back at once, which takes time, and more than in
// proportion.
const maxArmed = 256

// received is what came with an event.
type received struct {
	n      int // bytes; 0 for the end of the stream
	errno  syscall.Errno
	buffer int // where they are; noBuffer for nowhere
}

const noBuffer = -1

// nothing is what comes with an event that only says that there is something to read.
var nothing = received{buffer: noBuffer, errno: syscall.EAGAIN}

// The ring's results have in the two highest bits of their user data what they are the result of, and in the others a token or
// a number.
const (
	ofReceive = iota << 62
	ofSend
	ofEpoll
	ofCancel

	kindMask       = 3 << 62
	generationMask = 1<<30 - 1
)

func (t token) userData(kind uint64) uint64 {
	return kind | uint64(t.generation)<<32 | uint64(uint32(t.slot))
}

// weigh is called before each wait. It makes the loop calm, for a while, that has too little to do at a time to be hot.
func (l *loop) weigh() {
	l.waits++
	l.brought += l.n
	if l.waits < l.hotAfter {
		return
	}
	if !enough(l.brought, l.hotAfter) {
		l.calm = l.hotAfter
		l.cool()
	}
	l.waits, l.brought = 0, 0
}

// heat makes the loop hot.
func (l *loop) heat() {
	runtime.LockOSThread()
	l.hot = true
}

// arm has the ring receive from a socket of which the last read has left nothing. The loop is hot.
func (l *loop) arm(k *sock) {
	k.park(true)
	k.armed = true
	l.armed++
	l.ring.receive(k.fd, k.token.userData(ofReceive))
}

// cool makes the loop calm. What has been received meanwhile becomes events that come before all others.
func (l *loop) cool() {
	if !l.hot {
		return
	}
	l.hot = false
	var results [16]cqe
	for l.armed > 0 || l.watchesEpoll {
		// One that is just being looked at is not found, and goes on to wait if there was nothing to receive.
		l.ring.cancelAll(ofCancel)
		_ = l.ring.enter(0)
		for n := l.ring.results(results[:]); n > 0; n = l.ring.results(results[:]) {
			for i := range results[:n] {
				if e, ok := l.event(&results[i]); ok {
					e.side.sock.park(false)
					if e.in != nothing { // or else epoll tells it again
						l.early = append(l.early, e)
					}
				}
			}
		}
	}
	runtime.UnlockOSThread()
}

// event makes an event of a result, if it is one of a receive.
func (l *loop) event(r *cqe) (e event, ok bool) {
	switch r.userData & kindMask {
	case ofEpoll:
		l.watchesEpoll = false
		return e, false
	case ofReceive:
	default:
		return e, false
	}
	// Its side cannot have gone, since it waits for this.
	l.mu.Lock()
	sd := l.slots[int32(r.userData)].side
	l.mu.Unlock()
	sd.sock.armed = false
	l.armed--
	e = event{side: sd, what: unix.EPOLLIN, in: nothing}
	switch {
	case r.res >= 0:
		e.in.n, e.in.errno = int(r.res), 0
	case r.res != -int32(unix.ENOBUFS) && r.res != -int32(unix.EINTR) && r.res != -int32(unix.ECANCELED):
		e.in.errno = syscall.Errno(-r.res)
	}
	if id, ok := r.buffer(); ok {
		e.in.buffer = int(id)
	}
	return e, true
}

// giveBack gives a buffer of the ring back. Any goroutine may call it.
func (l *loop) giveBack(id int) {
	l.mu.Lock()
	l.backs = append(l.backs, uint16(id))
	l.mu.Unlock()
}

// waitHot sends what was collected, waits, and makes events of what has happened.
func (l *loop) waitHot() {
	l.mu.Lock()
	for _, id := range l.backs {
		l.ring.giveBack(id)
	}
	l.backs = l.backs[:0]
	l.mu.Unlock()
	if !l.watchesEpoll {
		l.watchesEpoll = true
		l.ring.poll(l.epoll, unix.POLLIN, ofEpoll)
	}
	if sends := l.stage(); sends > 0 {
		// Their results are looked at before the wait: what one of them had no room for is sent as soon as there is, even if
		// nothing else happens.
		_ = l.ring.enter(0)
		l.settle(sends)
	}
	if !l.ring.has() {
		_ = l.ring.enter(1) // interrupted, perhaps; nothing else can happen
	}
	n := l.ring.results(l.results[:])
	for i := range l.results[:n] {
		if e, ok := l.event(&l.results[i]); ok {
			l.events[l.n] = e
			l.n++
		}
	}
	if !l.watchesEpoll {
		l.pollEpoll(0)
	}
}
