package proxy

import (
	"os"

	"golang.org/x/sys/unix"
)

// readable are the events that a loop waits for at any time. Room to write is waited for only when it is needed: a unix
// socket would report it after every read of the peer's.
const readable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// openEpoll makes the set of sockets, with the eventfd in it.
func (l *loop) openEpoll() (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		l.epoll = -1
		return os.NewSyscallError("epoll_create1", err)
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &e))
}

// control changes what a socket is watched for. What of it is already there is reported anew.
func (l *loop) control(op int, k *sock, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: k.token.slot, Pad: k.token.generation}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, op, k.fd, &e))
}

// waitCalm waits with epoll, and makes events of what has happened.
func (l *loop) waitCalm(rests bool) {
	if !rests || !l.rest.wait(l.epoll, func() bool { return l.pollEpoll(0) }) {
		l.pollEpoll(-1)
	}
}

// pollEpoll waits with epoll for so many milliseconds, and says whether the wait is over.
func (l *loop) pollEpoll(timeout int) bool {
	n, err := unix.EpollWait(l.epoll, l.polled[:], timeout)
	if err != nil {
		return true // interrupted; nothing else can happen
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.polled[:n] {
		if p.Fd == wakeSlot {
			continue
		}
		if s := l.slots[p.Fd]; s.side != nil && s.generation == p.Pad {
			l.events[l.n] = event{side: s.side, what: p.Events, in: nothing}
			l.n++
		}
	}
	return n > 0
}
