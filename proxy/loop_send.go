package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// A loop with a ring does not send at once what several events make it send: it collects that, and has the ring send all of it in
// one system call, when it is hot together with what it asks to receive. That also spares most of those changes of the
// processor from the proxy to those who are sent something, of which a send each would cause one each.
//
// Nobody is to see a difference, so whoever else writes to a socket, or shuts it down, first sends what was collected.

// outbox is what a loop has collected. It belongs to the goroutine that runs the loop.
type outbox struct {
	socks []*sock
	bytes []byte // the out of all socks, which may not be moved
}

const (
	// outboxSize bounds what is collected at a time.
	outboxSize = 64 << 10
	// collectable is the size of the largest piece that is. Sending it takes much longer than the system call itself.
	collectable = 4 << 10
)

// seenSend is in the user data of a send's result that has been settled.
const seenSend = 1 << 32

// collect takes bytes that are to be sent to k, if that is worthwhile and k has no others, and says whether it did.
func (l *loop) collect(k *sock, b []byte) bool {
	o := &l.outbox
	if l.ring == nil || len(b) > collectable || len(o.bytes)+len(b) > outboxSize {
		return false
	}
	if alone := l.at == l.n && len(o.socks) == 0; alone && !l.hot {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.out) > 0 {
		return false
	}
	if !k.collected {
		k.collected = true
		o.socks = append(o.socks, k)
	}
	if o.bytes == nil {
		o.bytes = make([]byte, 0, outboxSize)
	}
	at := len(o.bytes)
	o.bytes = append(o.bytes, b...)
	k.out = o.bytes[at:]
	return true
}

// flush sends what was collected.
func (l *loop) flush() {
	if len(l.outbox.socks) == 0 {
		return
	}
	n := l.stage()
	if n > 0 {
		_ = l.ring.enter(0)
	}
	l.settle(n)
	l.mu.Lock()
	l.tellSent()
	l.mu.Unlock()
}

// stage makes operations of what was collected, and says how many. Until settle nobody else may use the sockets.
func (l *loop) stage() (n int) {
	for i, k := range l.outbox.socks {
		k.mu.Lock()
		if len(k.out) > 0 && !k.closed {
			k.sending = true
			l.ring.send(k.fd, k.out, ofSend|uint64(i))
			n++
		}
		k.mu.Unlock()
	}
	return n
}

// settle takes the results of n sends that the kernel was given. They do not wait, so they are there, or as good as.
func (l *loop) settle(n int) {
	o := &l.outbox
	for seen := uint32(0); n > 0; {
		seen = l.ring.look(seen, func(c *cqe) {
			if c.userData&(kindMask|seenSend) == ofSend {
				o.socks[uint32(c.userData)].sent(c.res)
				c.userData |= seenSend // it stays until its turn comes
				n--
			}
		})
		if n <= 0 {
			break
		}
		// Interrupted, or there are so many other results that the kernel has no room for these.
		taken := l.ring.results(l.results[:min(int(seen), len(l.results))])
		for i := range l.results[:taken] {
			if e, ok := l.event(&l.results[i]); ok {
				l.early = append(l.early, e)
			}
		}
		seen -= uint32(taken)
		_ = l.ring.enter(0)
	}
	for _, k := range o.socks {
		k.mu.Lock()
		k.collected = false
		k.mu.Unlock()
	}
	clear(o.socks)
	o.socks, o.bytes = o.socks[:0], o.bytes[:0]
	l.ring.drop(func(c *cqe) bool {
		return c.userData&(kindMask|seenSend) == ofSend|seenSend || c.userData&kindMask == ofCancel
	})
}

// tellSent wakes those who wait in awaitSent. The caller has mu.
func (l *loop) tellSent() {
	l.settled.Add(1)
	if l.awaiting > 0 {
		l.woke = true
		l.settledCond.Broadcast()
	}
}

// awaitSent waits until the loop has settled what it has given to the kernel, if it has not since settled was before.
func (l *loop) awaitSent(before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signal()
	l.awaiting++
	for l.settled.Load() == before {
		l.settledCond.Wait()
	}
	l.awaiting--
}

// lock takes mu when the loop is not sending. It must not be called by the goroutine that runs the loop between stage and settle.
func (k *sock) lock() {
	for {
		before := k.loop.settled.Load() // or else the loop could settle unnoticed, and wait for us elsewhere
		if k.mu.Lock(); !k.sending {
			return
		}
		k.mu.Unlock()
		k.loop.awaitSent(before)
	}
}

// allSent says whether nothing is left that a loop has collected.
func (k *sock) allSent() bool {
	k.lock()
	defer k.mu.Unlock()
	_ = k.sendOut()
	return len(k.out) == 0
}

// sent is told how sending k.out ended.
func (k *sock) sent(result int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sending = false
	switch {
	case result >= 0:
		k.out = k.out[result:]
	case result != -int32(unix.EAGAIN) && result != -int32(unix.EINTR) && result != -int32(unix.ECANCELED):
		k.broken()
	}
	k.keep()
}

// keep keeps what could not be sent until there is room. The caller has mu.
func (k *sock) keep() {
	if len(k.out) == 0 {
		k.out = nil
		return
	}
	k.out = append([]byte(nil), k.out...)
	if k.tellRoom() != nil {
		k.broken()
	}
}

// sendOut sends what a loop has collected for k, in front of something else, and says why it could not. The caller has mu.
func (k *sock) sendOut() syscall.Errno {
	for len(k.out) > 0 {
		n, errno := k.sendTo(k.out)
		switch errno {
		case 0:
			k.out = k.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return errno
		default:
			k.broken()
			return errno
		}
	}
	return 0
}

// broken gives up what could not be sent, and all that would come behind it. The peer has gone, most likely, which is for who
// reads from it to see. The caller has mu.
func (k *sock) broken() {
	k.out = nil
	_ = unix.Shutdown(k.fd, unix.SHUT_WR)
}

// deliver waits until k has sent what a loop has collected for it. The caller is the only one who writes to k, and runs no loop.
func (k *sock) deliver() {
	for {
		k.lock()
		if k.closed {
			k.out = nil
		}
		errno := k.sendOut()
		k.mu.Unlock()
		if errno != syscall.EAGAIN || k.awaitRoom() != nil {
			return
		}
	}
}
