package proxy

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hangups tells readers that a peer has shut down its side. After a short read a socket has nothing more, so that a
// second read, which would say so, can be saved: one system call in each direction of every statement. Only the end of
// the stream may hide behind the data of a short read, without another wake-up of its own. So it is watched for by an epoll
// set that asks for nothing but hang-ups, which costs nothing while there are none.
//
// All methods are safe for concurrent use.
type hangups struct {
	file *os.File // the epoll set
	raw  syscall.RawConn
	done chan struct{}

	mu    sync.Mutex
	conns map[int32]*hangupWatch
	next  int32
}

// hangupWatch is one connection that is watched.
type hangupWatch struct {
	h    *hangups
	id   int32
	conn net.Conn
	mu   sync.Mutex
	hung bool // the peer has shut down, or the connection has failed
}

func newHangups() (*hangups, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	// A non-blocking descriptor is served by the runtime's own poller: waiting for it takes no thread.
	h := &hangups{file: os.NewFile(uintptr(fd), "hangups"), conns: map[int32]*hangupWatch{}, done: make(chan struct{})}
	if h.raw, err = h.file.SyscallConn(); err != nil {
		h.file.Close()
		return nil, err
	}
	go h.run()
	return h, nil
}

// close ends the watch of all connections. It may be called again, and on nil.
func (h *hangups) close() {
	if h == nil {
		return
	}
	h.file.Close()
	<-h.done
}

// watch starts watching c. It gives nil for what is no plain socket, and if h is nil.
func (h *hangups) watch(c net.Conn) *hangupWatch {
	if h == nil {
		return nil
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &hangupWatch{h: h, conn: c}
	h.mu.Lock()
	for h.next++; h.conns[h.next] != nil; h.next++ {
	}
	w.id = h.next
	h.conns[w.id] = w
	h.mu.Unlock()
	added := false
	err = raw.Control(func(fd uintptr) {
		_ = h.raw.Control(func(epfd uintptr) {
			event := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: w.id}
			added = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_ADD, int(fd), &event) == nil
		})
	})
	if err != nil || !added {
		w.stop()
		return nil
	}
	return w
}

// stop ends the watch. The kernel forgets the connection when it is closed.
func (w *hangupWatch) stop() {
	if w == nil {
		return
	}
	w.h.mu.Lock()
	delete(w.h.conns, w.id)
	w.h.mu.Unlock()
}

// run wakes the readers of connections that hang up.
func (h *hangups) run() {
	defer close(h.done)
	events := make([]unix.EpollEvent, 64)
	_ = h.raw.Read(func(epfd uintptr) bool {
		for {
			n, err := unix.EpollWait(int(epfd), events, 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return true
			}
			for _, e := range events[:n] {
				h.mu.Lock()
				w := h.conns[e.Fd]
				h.mu.Unlock()
				if w != nil {
					w.wake()
				}
			}
			if n < len(events) {
				return false
			}
		}
	})
}

// wake makes the reader of a connection read once more.
func (w *hangupWatch) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hung = true
	_ = w.conn.SetReadDeadline(time.Unix(1, 0))
}

// woken says whether a reader's time-out was wake's doing, and takes the time-out back.
func (w *hangupWatch) woken() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hung {
		return false
	}
	return w.conn.SetReadDeadline(time.Time{}) == nil
}
