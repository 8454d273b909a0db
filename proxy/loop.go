package proxy

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loop is an event loop: it waits for the sockets of many sessions at once, and runs those sides that have something to
// read. One goroutine at a time runs it; see side for how it is handed on.
//
// The runtime's own poller would do the same with a goroutine for each side. A side's goroutine would have to be made
// runnable, found by an idle processor and put to sleep again for every message, which costs more than all that the proxy does
// with the message, and its stack is most of what an idle session takes.
//
// It waits with epoll or, in busy times, with an io_uring where there is one: system calls are most of what forwarding costs.
type loop struct {
	ring  *uring        // nil for none
	epoll int           // the set of sockets
	wake  int           // an eventfd that ends a wait
	rest  *rest         // to wait in while little happens
	done  chan struct{} // closed when it has ended

	mu          sync.Mutex
	slots       []slot
	free        []int32       // slots of nobody
	backs       []uint16      // buffers to give back to the ring
	settled     atomic.Uint64 // how often it was found out what was sent; changed with mu held
	settledCond sync.Cond
	awaiting    int // how many wait for that
	stopped     bool

	// What follows belongs to the goroutine that runs the loop.
	early   []event // early[earlyAt:] are to be dealt with before others
	earlyAt int
	events  [2 * loopBatch]event
	at, n   int       // events[at:n] are yet to be dealt with
	woke    bool      // a goroutine was made runnable
	ready   time.Time // when the last wait ended
	yielded time.Time // when the scheduler last had a look
	rests   int       // how many of the next waits are rests
	calm    int       // for how many waits the loop stays calm at least
	waits   int       // since it was last seen whether they bring enough for a hot loop
	brought int       // events, by these waits
	polled  [loopBatch]unix.EpollEvent
	outbox  outbox
	way     giveWay

	hotAfter     int  // see there
	hot          bool // see heat
	watchesEpoll bool // the ring watches the set
	armed        int  // for how many sockets the ring receives
	results      [loopBatch]cqe
}

// event is something that happened to a side's socket.
type event struct {
	side *side // nil if it has gone meanwhile
	what uint32
	in   received // what was read, with a ring
}

// slot is the place of a side in a loop. Events name it by token, so that late ones do not hit who has it next.
type slot struct {
	side       *side
	generation int32
}

type token struct{ slot, generation int32 }

// wakeSlot is in the token of the eventfd.
const wakeSlot = -1

// loopBatch is how many events are taken at once.
const loopBatch = 128

// yieldEvery is how long a loop runs until it lets the scheduler have a look of its own accord. After 10 ms the
// scheduler's watchdog would take the processor away, and look for more such cases every 20 µs for a while, which costs more.
const yieldEvery = 8 * time.Millisecond

// After a wait longer than longWait the loop rests so many times, since long waits seldom come alone. So it does after
// another goroutine was given something to do, which also seldom comes alone. To rest costs as much as half a statement more; to
// rest no more after such a wait, as much as ten statements, once: see epollWait.
const (
	longWait   = 5 * time.Millisecond
	restsAfter = 8
)

// What events mean for the one who reads and for the one who writes.
const (
	eventEnd  = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	eventRead = unix.EPOLLIN | eventEnd
	eventRoom = unix.EPOLLOUT | unix.EPOLLHUP | unix.EPOLLERR
)

// newLoop starts a loop, with an io_uring if it is given one, which is the loop's then, like way. See constant hotAfter.
func newLoop(ring *uring, way giveWay, hotAfter int) (*loop, error) {
	l := &loop{ring: ring, way: way, epoll: -1, wake: -1, done: make(chan struct{}), calm: hotAfter, hotAfter: hotAfter}
	l.settledCond.L = &l.mu
	err := l.open()
	if err != nil {
		l.close()
		return nil, err
	}
	go l.run()
	return l, nil
}

func (l *loop) open() (err error) {
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err = l.openEpoll(); err != nil {
		return err
	}
	l.rest, err = newRest()
	return err
}

func (l *loop) close() {
	if l.ring != nil {
		l.ring.close()
	}
	if l.rest != nil {
		l.rest.close()
	}
	l.way.close()
	for _, fd := range []int{l.wake, l.epoll} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// stop ends the loop, which has no sessions any more.
func (l *loop) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.signal()
	<-l.done
	l.close()
}

// signal ends the loop's wait.
func (l *loop) signal() { _, _ = unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1)) }

// add starts watching a side's socket.
func (l *loop) add(sd *side) error {
	l.mu.Lock()
	if len(l.free) == 0 {
		l.free = append(l.free, int32(len(l.slots)))
		l.slots = append(l.slots, slot{})
	}
	i := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	l.slots[i].side = sd
	k := &sd.sock
	k.loop, k.token = l, token{i, l.slots[i].generation}
	l.mu.Unlock()
	if err := l.control(unix.EPOLL_CTL_ADD, k, readable); err != nil {
		l.forget(k)
		return err
	}
	return nil
}

// remove ends watching a socket that will not be closed.
func (l *loop) remove(k *sock) {
	_ = l.control(unix.EPOLL_CTL_DEL, k, 0)
	l.forget(k)
}

// forget gives a socket's slot away. The kernel stops watching the socket when it is closed.
func (l *loop) forget(k *sock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := k.token.slot
	l.slots[i] = slot{generation: (l.slots[i].generation + 1) & generationMask}
	l.free = append(l.free, i)
}

// run runs the loop until another goroutine does, or it is stopped.
func (l *loop) run() {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		for e := l.next(); e.side != nil; e = l.next() {
			if !l.handle(&e, buf) {
				return
			}
		}
		if l.wait() {
			l.cool()
			l.way.end()
			close(l.done)
			return
		}
	}
}

// next is the next event to deal with, one without a side if there is none.
func (l *loop) next() (e event) {
	if len(l.early) > 0 {
		e = l.early[l.earlyAt]
		l.early[l.earlyAt].side = nil
		if l.earlyAt++; l.earlyAt == len(l.early) {
			l.early, l.earlyAt = l.early[:0], 0
		}
		return e
	}
	for l.at < l.n && e.side == nil {
		e = l.events[l.at]
		l.events[l.at].side = nil
		l.at++
	}
	return e
}

// handle deals with one event, and says whether this goroutine still runs the loop.
func (l *loop) handle(e *event, buf *[bufferSize]byte) bool {
	sd := e.side
	if e.what&eventRoom != 0 {
		if sd.sock.roomy() {
			l.woke = true
		}
		sd.s.endIfDraining() // it may have waited for that
	}
	if e.what&eventRead == 0 {
		return true
	}
	if e.what&eventEnd != 0 {
		sd.hung.Store(true)
	}
	if sd.sock.armed {
		return true // the ring will have read it
	}
	return !sd.claim() || sd.run(l, e.in, buf)
}

// wait waits for events, and says whether the loop has been stopped.
func (l *loop) wait() (stopped bool) {
	switch {
	case l.woke:
		l.flush()
		l.disturbed()
		// What was woken may wait for this very processor, which would be kept during the system call.
		runtime.Gosched()
		l.woke, l.yielded = false, l.ready
	case l.ready.Sub(l.yielded) > yieldEvery:
		l.flush()
		l.yield()
		l.yielded = l.ready
	}
	l.weigh()
	l.at, l.n = 0, 0
	rests := l.temper()
	if !l.hot {
		l.flush()
	}
	switch {
	case len(l.early) > 0: // came while something else was done
	case l.hot:
		l.waitHot()
	default:
		l.waitCalm(rests)
	}
	now := time.Now()
	if now.Sub(l.ready) > longWait {
		l.rests = restsAfter
	}
	l.ready = now
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tellSent()
	return l.stopped
}

// temper decides on how the loop waits next, and says whether it rests.
func (l *loop) temper() (rests bool) {
	if l.rests > 0 {
		l.rests--
		if l.hot {
			l.calm = l.hotAfter
			l.cool()
		}
		l.way.end()
		return true
	}
	switch {
	case l.calm > 0:
		l.calm--
	case l.ring != nil && !l.hot:
		l.heat()
	}
	l.rest.end(l.epoll)
	l.way.look(l.ready)
	return false
}

// disturbed is called when other goroutines need the processor.
func (l *loop) disturbed() {
	l.rests, l.calm = restsAfter, l.hotAfter
	l.cool()
	l.way.end()
}
