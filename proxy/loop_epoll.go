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

// modify changes what a socket is watched for. What of it is already there is reported anew.
func (l *loop) modify(k *sock, events uint32) error {
	return l.control(unix.EPOLL_CTL_MOD, k, events)
}

func (l *loop) control(op int, k *sock, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: k.token.slot, Pad: k.token.generation}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, op, k.fd, &e))
}

// waitEpoll waits for events and says how many there are.
func (l *loop) waitEpoll(rests bool) (n int) {
	poll := func(timeout int) bool {
		var err error
		n, err = unix.EpollWait(l.epoll, l.polled[:], timeout)
		if err != nil {
			n = 0 // interrupted; nothing else can happen
		}
		return n > 0 || err != nil
	}
	if !rests || !l.rest.wait(l.epoll, func() bool { return poll(0) }) {
		poll(-1)
	}
	return n
}

// takePolled makes events of what the last wait returned. The caller has mu.
func (l *loop) takePolled(n int) {
	for i, p := range l.polled[:n] {
		e := event{what: p.Events, in: nothing}
		if p.Fd != wakeSlot {
			e.side = l.find(token{p.Fd, p.Pad})
		}
		l.events[i] = e
	}
}
