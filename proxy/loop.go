package proxy

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop is an event loop: it waits for the sockets of many sessions at once, and runs those sides that have something to
// read. One goroutine at a time runs it; see side for how it is handed on.
//
// The runtime's own poller would do the same with a goroutine for each side. A side's goroutine would have to be made
// runnable, found by an idle processor and put to sleep again for every message, which costs more than all that the proxy does
// with the message, and its stack is most of what an idle session takes.
type loop struct {
	epoll int           // the set of sockets
	wake  int           // an eventfd that ends the loop
	rest  *rest         // to wait in while little happens
	done  chan struct{} // closed when it has ended

	mu    sync.Mutex
	slots []slot
	free  []int32 // slots of nobody

	// What follows belongs to the goroutine that runs the loop.
	events  [loopBatch]unix.EpollEvent
	sides   [loopBatch]*side // of the events; nil for those that have gone
	at, n   int              // events[at:n] are yet to be dealt with
	woke    bool             // a goroutine was made runnable
	ready   time.Time        // when the last wait ended
	yielded time.Time        // when the scheduler last had a look
	rests   int              // how many of the next waits are rests
	stopped bool
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
// another goroutine was given something to do, which also seldom comes alone.
const (
	longWait   = 5 * time.Millisecond
	restsAfter = 16
)

// readable are the events that a loop waits for at any time. Room to write is waited for only when it is needed: a unix
// socket would report it after every read of the peer's.
const readable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// What events mean for the one who reads and for the one who writes.
const (
	eventEnd  = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	eventRead = unix.EPOLLIN | eventEnd
	eventRoom = unix.EPOLLOUT | unix.EPOLLHUP | unix.EPOLLERR
)

func newLoop() (*loop, error) {
	l := &loop{done: make(chan struct{})}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeSlot}
	err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &event))
	if err == nil {
		l.rest, err = newRest()
	}
	if err != nil {
		unix.Close(l.wake)
		unix.Close(l.epoll)
		return nil, err
	}
	go l.run()
	return l, nil
}

// stop ends the loop, which has no sessions any more.
func (l *loop) stop() {
	_, _ = unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1))
	<-l.done
	l.rest.close()
	unix.Close(l.wake)
	unix.Close(l.epoll)
}

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
	l.slots[i] = slot{generation: l.slots[i].generation + 1}
	l.free = append(l.free, i)
}

// modify changes what a socket is watched for. What of it is already there is reported anew.
func (l *loop) modify(k *sock, events uint32) error {
	return l.control(unix.EPOLL_CTL_MOD, k, events)
}

func (l *loop) control(op int, k *sock, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: k.token.slot, Pad: k.token.generation}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, op, k.fd, &event))
}

// run runs the loop until another goroutine does, or it is stopped.
func (l *loop) run() {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		for l.at < l.n {
			i := l.at
			l.at++
			sd := l.sides[i]
			l.sides[i] = nil
			if sd != nil && !l.handle(sd, l.events[i].Events, buf) {
				return
			}
		}
		if l.stopped {
			close(l.done)
			return
		}
		l.wait()
	}
}

// handle deals with one event, and says whether this goroutine still runs the loop.
func (l *loop) handle(sd *side, events uint32, buf *[bufferSize]byte) bool {
	if events&eventRoom != 0 && sd.sock.roomy() {
		l.woke = true
	}
	if events&eventRead == 0 {
		return true
	}
	if events&eventEnd != 0 {
		sd.hung.Store(true)
	}
	return !sd.claim() || sd.run(l, buf)
}

// wait waits for events.
func (l *loop) wait() {
	if l.woke || l.ready.Sub(l.yielded) > yieldEvery {
		// What was woken may wait for this very processor, which would be kept during the system call.
		runtime.Gosched()
		if l.woke {
			l.rests = restsAfter
		}
		l.woke, l.yielded = false, l.ready
	}
	l.at, l.n = 0, 0
	n, err := 0, error(nil)
	if l.rests > 0 {
		l.rests--
		n, err = l.rest.wait(l.epoll, l.events[:])
	} else {
		n, err = unix.EpollWait(l.epoll, l.events[:], -1)
	}
	now := time.Now()
	if now.Sub(l.ready) > longWait {
		l.rests = restsAfter
	}
	l.ready = now
	if err != nil {
		return // interrupted; nothing else can happen
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.events[:n] {
		l.sides[i] = nil
		if e.Fd == wakeSlot {
			l.stopped = true
		} else if s := l.slots[e.Fd]; s.generation == e.Pad {
			l.sides[i] = s.side
		}
	}
	l.n = n
}
