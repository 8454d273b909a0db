package proxy

import (
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"
)

// bufferSize is how much is read or written at once. A buffer is borrowed only while there is data in it, so idle
// sessions do not pay for it.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// readLoop reads from c until the peer closes or eat fails, and gives eat whatever one read returned. The slice is
// eat's during the call only. The error is eat's, the socket's, or io.EOF.
//
// It serves sessions that are on no event loop: those with TLS on either side. On a plain socket it reads inside the poller's
// callback, so that no buffer is held while waiting. The callback is not left between reads: leaving it would reset the
// poller and could lose a wake-up, and costs more.
func readLoop(c net.Conn, eat func([]byte) error) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return readLoopBlocking(c, eat)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	read := func(fd uintptr) bool {
		for {
			more, err := readOnce(fd, eat)
			if err != nil {
				result = err
				return true
			}
			if !more {
				return false
			}
		}
	}
	if err := raw.Read(read); result == nil {
		return err
	}
	return result
}

// readOnce does one read(2). more is false when the socket has nothing now.
func readOnce(fd uintptr, eat func([]byte) error) (more bool, err error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	// The socket is non-blocking, so the system call is short and the scheduler need not be told of it.
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(buf)), bufferSize)
	switch {
	case errno == syscall.EAGAIN:
		return false, nil
	case errno == syscall.EINTR:
		return true, nil
	case errno != 0:
		return false, errno
	case n == 0:
		return false, io.EOF
	}
	return true, eat(buf[:n])
}

// readLoopBlocking serves connections that are no plain sockets, such as TLS.
func readLoopBlocking(c io.Reader, eat func([]byte) error) error {
	buf := make([]byte, bufferSize/4)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if e := eat(buf[:n]); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
	}
}
