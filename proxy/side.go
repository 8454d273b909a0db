package proxy

import (
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
)

// side is one direction of a session: who reads one of its two connections and feeds what comes to the frontend or the
// backend. In a session on an event loop no goroutine belongs to it while it is idle. When its socket has something, the
// goroutine that runs the loop runs the side, too. What runs so must not block, since all other sessions of the loop wait
// meanwhile. So before anything that may block or take long, leave must be called: then another goroutine runs the loop,
// and this one has become the side's own until there is nothing more to read.
//
// At most one goroutine runs a side at a time, the one that made its state sideRunning:
//
//	sideIdle ── the socket has something ─► sideRunning ── nothing more to read ─► sideIdle
//	sideRunning ── the socket has something ─► sidePending ── the runner looks once more ─► sideRunning
//	sideRunning, sidePending ── end of stream, failure ─► sideEnded
//
// Outside of an event loop a side has one goroutine all the time, and leave does nothing.
type side struct {
	s      *session
	server bool // it reads the server
	state  atomic.Uint32
	hung   atomic.Bool // the peer has shut down: read up to the end
	lent   *loop       // the loop that the runner runs besides; nil for none
	sock   sock
}

const (
	sideIdle uint32 = iota
	sideRunning
	sidePending
	sideEnded
)

// patience is how many times a side may fill a whole buffer before it leaves the loop to the others.
const patience = 4

// watch takes c's socket and gives it to a loop. c stays as it is.
func (sd *side) watch(l *loop, c net.Conn) bool {
	if !sd.sock.take(c) {
		return false
	}
	if l.add(sd) == nil {
		return true
	}
	sd.sock.Close()
	return false
}

// unwatch takes back what watch did.
func (sd *side) unwatch() {
	sd.sock.loop.remove(&sd.sock)
	sd.sock.Close()
}

// claim makes the caller the side's runner, or else has the runner look once more.
func (sd *side) claim() bool {
	for {
		switch state := sd.state.Load(); state {
		case sideIdle:
			if sd.state.CompareAndSwap(sideIdle, sideRunning) {
				return true
			}
		case sideRunning:
			if sd.state.CompareAndSwap(sideRunning, sidePending) {
				return false
			}
		default:
			return false
		}
	}
}

// release ends running, and says whether it has: not if there is more to read.
func (sd *side) release() bool {
	l := sd.lent
	arm := l != nil && l.hot && l.armed < maxArmed
	if sd.sock.parked && !arm {
		sd.sock.park(false)
	}
	if !sd.state.CompareAndSwap(sideRunning, sideIdle) {
		sd.state.Store(sideRunning)
		return false
	}
	if arm {
		l.arm(&sd.sock)
	}
	return true
}

// runAlone runs the side in a goroutine that runs no loop.
func (sd *side) runAlone() {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	sd.run(nil, nothing, buf)
}

// run feeds what has been received, then reads what else there is into buf and feeds that. The caller has claimed the side; l
// is the loop that it runs, or nil. run says whether it still does afterwards.
func (sd *side) run(l *loop, in received, buf *[bufferSize]byte) (runsLoop bool) {
	sd.lent = l
	more, err := sd.take(in)
	for full := 0; err == nil; more, err = sd.readOnce(buf) {
		if more {
			if full++; full > patience {
				sd.leave()
			}
			continue
		}
		runsLoop = sd.lent != nil // no more to be asked after release
		if sd.release() {
			return runsLoop
		}
	}
	sd.leave()
	sd.end(err)
	return false
}

// take feeds what came with an event, and says whether there may be more.
func (sd *side) take(in received) (more bool, err error) {
	l := sd.sock.loop
	switch {
	case in.errno == syscall.EAGAIN:
		more = true
	case in.errno != 0:
		err = os.NewSyscallError("recv", in.errno)
	case in.n == 0:
		err = io.EOF
	default:
		more, err = in.n == uringBufferSize, sd.feed(l.ring.buffer(in.buffer, in.n))
	}
	if in.buffer != noBuffer {
		if sd.lent != nil {
			l.ring.giveBack(uint16(in.buffer))
		} else {
			l.giveBack(in.buffer)
		}
	}
	return more, err
}

// readOnce does one read and says whether there may be more.
func (sd *side) readOnce(buf *[bufferSize]byte) (more bool, err error) {
	n, errno := sd.sock.receive(buf[:])
	switch {
	case errno == syscall.EAGAIN:
		return false, nil
	case errno == syscall.EINTR:
		return true, nil
	case errno != 0:
		return false, os.NewSyscallError("recvfrom", errno)
	case n == 0:
		return false, io.EOF
	}
	// After a short read a socket has nothing more, and what comes later comes with a new event. So does the end of the
	// stream, unless the loop has already told of it.
	more = n == bufferSize || sd.hung.Load()
	return more, sd.feed(buf[:n])
}

// feed passes on what one read has returned. A defect in one session must not end the process, and with it all others.
func (sd *side) feed(b []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			sd.leave()
			sd.s.log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Msg("a session failed, please report this")
			err = errTerminated
		}
	}()
	if sd.server {
		return sd.s.back.feed(b)
	}
	return sd.s.front.feed(b)
}

// leave has another goroutine run the loop, if this one does. It must be called, by the side's runner, before anything
// that may block or take long.
func (sd *side) leave() {
	if l := sd.lent; l != nil {
		l.flush()
		l.disturbed() // this goroutine, and those that it waits for, need the processor
		sd.lent = nil
		go l.run()
	}
}

// wakes tells the loop, if the runner runs one, that another goroutine is made runnable.
func (sd *side) wakes() {
	if l := sd.lent; l != nil {
		l.woke = true
	}
}

// end is the end of the side, whose runner calls it.
func (sd *side) end(err error) {
	sd.state.Store(sideEnded)
	sd.deliver()
	if sd.server {
		sd.s.endBack(err)
	} else {
		sd.s.endFront(err)
	}
	sd.s.sideEnded()
}

// deliver waits until what this side has made a loop collect is sent. The end of the stream must not get in front of it.
func (sd *side) deliver() {
	s := sd.s
	if !sd.server {
		if k, ok := s.server.(*sock); ok {
			k.deliver()
		}
		return
	}
	k, ok := s.client.(*sock)
	switch {
	case !ok:
	case s.back.locked: // for a message that is not complete
		k.deliver()
	case s.clientMu.TryLock(): // or else somebody writes to it, and sends that first
		k.deliver()
		s.clientMu.Unlock()
	}
}

// write writes all of b to c, waiting for room where it must. The side's runner calls it.
func (sd *side) write(c conn, b []byte) error {
	k, ok := c.(*sock)
	if !ok {
		_, err := c.Write(b)
		return err
	}
	if sd.lent != nil && sd.lent.collect(k, b) {
		return nil
	}
	for {
		n, errno := k.send(b)
		if n == len(b) {
			return nil
		}
		b = b[n:]
		switch errno {
		case syscall.EINTR:
			continue
		case 0, syscall.EAGAIN:
		default:
			return os.NewSyscallError("sendto", errno)
		}
		sd.leave()
		if err := k.awaitRoom(); err != nil {
			return err
		}
	}
}

// lockClient takes the client's write lock.
func (sd *side) lockClient() {
	if sd.lent != nil && sd.s.clientMu.TryLock() {
		return
	}
	sd.leave()
	sd.s.clientMu.Lock()
}
