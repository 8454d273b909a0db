package proxy

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rest is where a loop waits while little happens, or while others need the processor. A goroutine in a blocking system
// call keeps its processor for up to 10 ms before the scheduler's watchdog takes it away, and the watchdog is busy with
// that. It is cheaper only as long as waits are short and nobody else has work. Otherwise the loop waits in the runtime's own
// poller: epoll sets can be watched like sockets. There is a set in between, since the runtime must not hear of what
// happens while the loop waits by itself.
//
// To put the loop's set into that one the kernel looks at every socket that is in it. So it stays there from one rest to the next.
type rest struct {
	file     *os.File // the set in between, which has the loop's set during a wait
	raw      syscall.RawConn
	fd       int  // of file
	attached bool // it has the loop's set
}

func newRest() (*rest, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // makes os take it for something to poll
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r := &rest{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if r.raw, err = r.file.SyscallConn(); err != nil {
		r.file.Close()
		return nil, err
	}
	return r, nil
}

// wait waits until ready says so, which is asked now and whenever the set may have something. It says whether it could.
func (r *rest) wait(epoll int, ready func() bool) bool {
	if ready() {
		return true
	}
	if r.listen(epoll, unix.EPOLLIN) != nil {
		return false
	}
	defer func() { _ = r.listen(epoll, 0) }()
	return r.raw.Read(func(uintptr) bool { return ready() }) == nil
}

// listen has the runtime hear of events in the loop's set, or of none.
func (r *rest) listen(epoll int, events uint32) error {
	event := unix.EpollEvent{Events: events}
	if r.attached {
		return epollControl(r.fd, unix.EPOLL_CTL_MOD, epoll, &event)
	}
	// This may take long where there are many sockets, so that the scheduler is told.
	err := os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.fd, unix.EPOLL_CTL_ADD, epoll, &event))
	r.attached = err == nil
	return err
}

// end is called before the loop waits by itself, where a set that looks at its own would be in the way.
func (r *rest) end(epoll int) {
	if r.attached {
		r.attached = false
		_ = epollControl(r.fd, unix.EPOLL_CTL_DEL, epoll, &unix.EpollEvent{})
	}
}

func (r *rest) close() { r.file.Close() }
