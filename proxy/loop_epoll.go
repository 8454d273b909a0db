package proxy

import (
	"os"
	"syscall"
	"unsafe"

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
	return epollControl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &e)
}

// control changes what a socket is watched for. What of it is already there is reported anew.
func (l *loop) control(op int, k *sock, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: k.token.slot, Pad: k.token.generation}
	return epollControl(l.epoll, op, k.fd, &e)
}

// waitCalm waits with epoll, and makes events of what has happened.
func (l *loop) waitCalm(rests bool) {
	if !rests || !l.rest.wait(l.epoll, func() bool { return l.pollEpoll(0) }) {
		l.pollEpoll(-1)
	}
}

// pollEpoll waits with epoll for so many milliseconds, and says whether the wait is over.
func (l *loop) pollEpoll(timeout int) bool {
	n, errno := epollWait(l.epoll, l.polled[:], timeout)
	if errno != 0 {
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

// epollWait is epoll_pwait(2). The scheduler is told of it only if it may wait: telling wakes the runtime's watchdog, which sleeps
// while little happens, and once awake looks every 20 µs for a while. That costs as much as ten statements.
func epollWait(epoll int, events []unix.EpollEvent, timeout int) (n int, errno syscall.Errno) {
	var r uintptr
	if timeout == 0 {
		r, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
			uintptr(len(events)), 0, 0, 0)
	} else {
		r, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
			uintptr(len(events)), uintptr(timeout), 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// epollControl is epoll_ctl(2), of which the scheduler is not told either.
func epollControl(epoll, op, fd int, event *unix.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(event)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}
