package proxy

import (
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// conn is what a session needs of a connection once its login is over: a net.Conn, or a sock.
type conn interface {
	Write(b []byte) (int, error)
	Close() error
}

// sock is a connected plain socket that an event loop watches, and the runtime's poller does not. Only the goroutine that
// runs a side of the session may call receive, send and awaitRoom; the rest is safe for concurrent use until the session
// has ended, and does nothing after Close.
type sock struct {
	fd    int
	loop  *loop
	token token

	armed bool // the ring receives from it; for the goroutine that runs the loop

	mu        sync.Mutex
	closed    bool
	parked    bool          // epoll is not to tell what there is to read; changed by the side's runner, or in its absence
	full      bool          // epoll is to tell when there is room for more
	waiting   bool          // a writer waits for that
	room      chan struct{} // where it waits; made when first needed
	out       []byte        // what a loop has collected, and nobody has sent yet; see outbox
	collected bool          // the loop's outbox has this sock
	sending   bool          // the kernel has out, and only the loop hears what becomes of it: see lock
}

// take makes k the owner of c's socket and says whether it could: only plain sockets have one. c stays open, and usable,
// until it is closed; then k is alone.
func (k *sock) take(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	k.fd = -1
	err = raw.Control(func(fd uintptr) {
		if n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			k.fd = n
		}
	})
	return err == nil && k.fd >= 0
}

// receive reads what there is. Sockets are non-blocking, so the system call is short and the scheduler need not be told of it.
func (k *sock) receive(b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(k.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// send writes as much of b as there is room for.
func (k *sock) send(b []byte) (int, syscall.Errno) {
	k.lock()
	defer k.mu.Unlock()
	if errno := k.sendOut(); errno != 0 {
		return 0, errno
	}
	return k.sendTo(b)
}

// sendTo is the system call.
func (k *sock) sendTo(b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(k.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Write writes as much of b as there is room for, for a message that may as well be lost. What must arrive goes through
// side.write.
func (k *sock) Write(b []byte) (int, error) {
	k.lock()
	defer k.mu.Unlock()
	if k.closed {
		return 0, net.ErrClosed
	}
	n, errno := 0, k.sendOut()
	if errno == 0 {
		n, errno = k.sendTo(b)
	}
	if errno != 0 {
		return 0, os.NewSyscallError("sendto", errno)
	}
	return n, nil
}

// awaitRoom returns when it may be worth to write again, which send has just refused. Only one goroutine may wait.
func (k *sock) awaitRoom() error {
	k.mu.Lock()
	k.waiting = true
	if k.room == nil {
		k.room = make(chan struct{}, 1)
	}
	err := k.tellRoom()
	k.mu.Unlock()
	if err == nil {
		<-k.room
	}
	return err
}

// roomy takes the loop's word that there is room, or an end, and says whether somebody waited for that. The loop goes on
// looking for room until it finds some that nobody waits for, so that a slow peer does not cost two system calls each time.
func (k *sock) roomy() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		_ = k.sendOut()
	}
	if k.waiting {
		k.waiting = false
		k.room <- struct{}{}
		return true
	}
	if k.full && len(k.out) == 0 && !k.closed {
		k.full = false
		_ = k.rewatch()
	}
	return false
}

// tellRoom has the loop tell when there is room. The caller has mu.
func (k *sock) tellRoom() error {
	if k.full {
		return nil
	}
	k.full = true
	return k.rewatch() // if there is room by now, this itself makes the loop say so
}

// park has epoll report no more of what there is to read, or report it again.
func (k *sock) park(parked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.parked != parked && !k.closed {
		k.parked = parked
		_ = k.rewatch()
	}
}

// rewatch changes what epoll reports. What of it is already there is reported anew. The caller has mu.
func (k *sock) rewatch() error {
	var events uint32 = readable
	if k.parked {
		events = unix.EPOLLET // ends of streams are reported all the same
	}
	if k.full {
		events |= unix.EPOLLOUT
	}
	return k.loop.control(unix.EPOLL_CTL_MOD, k, events)
}

// CloseWrite tells the peer that nothing more comes.
func (k *sock) CloseWrite() error { return k.shutdown(unix.SHUT_WR) }

// shutdown ends one or both directions. The loop sees that, so that who waits for the socket is woken.
func (k *sock) shutdown(how int) error {
	k.lock()
	defer k.mu.Unlock()
	if k.closed {
		return net.ErrClosed
	}
	_ = k.sendOut()
	return os.NewSyscallError("shutdown", unix.Shutdown(k.fd, how))
}

// Close closes the socket. The descriptor's number may belong to somebody else at once.
func (k *sock) Close() error {
	k.lock()
	defer k.mu.Unlock()
	if k.closed {
		return net.ErrClosed
	}
	k.closed = true
	return os.NewSyscallError("close", unix.Close(k.fd))
}
