package proxy

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring is an io_uring: a queue of operations that the kernel takes over in one system call, and a queue of their results. An
// event loop has one to receive from all its sockets. One goroutine at a time may use it.
//
// Received bytes come in buffers that the kernel picks when they arrive, so that an idle socket has none.
type uring struct {
	fd   int
	maps [][]byte // memory shared with the kernel

	sqHead, sqTail *uint32
	sqes           []sqe
	tail           uint32 // also of what the kernel does not know of yet

	cqHead, cqTail *uint32
	cqes           []cqe

	slots    []bufferSlot
	slotTail uint16
	data     []byte
}

// sqe is struct io_uring_sqe, an operation.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	len      uint32
	opFlags  uint32
	userData uint64
	bufGroup uint16
	_        uint16
	_        int32
	_        [2]uint64
}

// cqe is struct io_uring_cqe, a result.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// buffer is the number of the buffer that the result came in.
func (c *cqe) buffer() (uint16, bool) { return uint16(c.flags >> 16), c.flags&cqeBuffer != 0 }

// bufferSlot is struct io_uring_buf, an entry of the queue of free buffers. The last two bytes of the first entry are the tail of
// the queue.
type bufferSlot struct {
	addr uint64
	len  uint32
	id   uint16
	tail uint16
}

// What of the kernel's interface is used, of <linux/io_uring.h>.
const (
	setupCQSize      = 1 << 3
	setupSubmitAll   = 1 << 7
	setupCoopTaskrun = 1 << 8
	featSingleMmap   = 1 << 0
	featNoDrop       = 1 << 1
	enterGetEvents   = 1 << 0
	registerBufRing  = 22
	opPollAdd        = 6
	opAsyncCancel    = 14
	opSend           = 26
	opRecv           = 27
	sqeBufferSelect  = 1 << 5
	recvPollFirst    = 1 << 0
	cqeBuffer        = 1 << 0
	cancelAll        = 1 << 0
	cancelAny        = 1 << 2
	offSQRing        = 0
	offSQEs          = 0x10000000
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32
	_                                                                      [3]uint32
	sqOff                                                                  struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cqOff struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

const (
	// uringEntries is how many operations go to the kernel at once; more take another system call.
	uringEntries = 512
	// uringResults is how many results there is room for. The kernel keeps what is beyond, at some cost.
	uringResults = 4 * uringEntries
	// uringBuffers is the number of buffers. They are in use from when bytes arrive until they have been passed on.
	// Who finds none reads by itself.
	uringBuffers = 128
	// uringBufferSize is the size of a buffer. Of what fills it the rest is read by itself, in larger pieces.
	uringBufferSize = 16 << 10
)

// errOldKernel says that there is an io_uring, but not all that is needed of it, which Linux has since 5.19.
var errOldKernel = errors.New("proxy: the kernel's io_uring lacks features")

// newUring makes an io_uring. It fails where the kernel is too old, or the system, or a container's rules, do not allow one.
func newUring() (u *uring, err error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errors.ErrUnsupported // words that it shares would have to be turned around
	}
	p := uringParams{flags: setupCQSize | setupSubmitAll | setupCoopTaskrun, cqEntries: uringResults}
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	u = &uring{fd: int(fd)}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	if needed := uint32(featSingleMmap | featNoDrop); p.features&needed != needed {
		return u, errOldKernel
	}
	size := max(p.sqOff.array+4*p.sqEntries, p.cqOff.cqes+uint32(unsafe.Sizeof(cqe{}))*p.cqEntries)
	queues, err := u.share(u.fd, offSQRing, int(size))
	if err != nil {
		return u, err
	}
	entries, err := u.share(u.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})))
	if err != nil {
		return u, err
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&queues[off])) }
	u.sqHead, u.sqTail, u.cqHead, u.cqTail = at(p.sqOff.head), at(p.sqOff.tail), at(p.cqOff.head), at(p.cqOff.tail)
	u.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&entries[0])), p.sqEntries)
	u.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&queues[p.cqOff.cqes])), p.cqEntries)
	for i := range p.sqEntries {
		*at(p.sqOff.array + 4*i) = i // operations are taken in the order in which they stand
	}
	return u, u.shareBuffers()
}

// shareBuffers gives the kernel buffers to receive into.
func (u *uring) shareBuffers() (err error) {
	slots, err := u.share(-1, 0, uringBuffers*int(unsafe.Sizeof(bufferSlot{})))
	if err != nil {
		return err
	}
	if u.data, err = u.share(-1, 0, uringBuffers*uringBufferSize); err != nil {
		return err
	}
	u.slots = unsafe.Slice((*bufferSlot)(unsafe.Pointer(&slots[0])), uringBuffers)
	reg := struct { // struct io_uring_buf_reg
		addr       uint64
		entries    uint32
		group, pad uint16
		_          [3]uint64
	}{addr: uint64(uintptr(unsafe.Pointer(&slots[0]))), entries: uringBuffers}
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.fd), registerBufRing, uintptr(unsafe.Pointer(&reg)), 1, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	for i := range uringBuffers {
		u.giveBack(uint16(i))
	}
	return nil
}

// share maps memory that the kernel uses too, which is therefore not the garbage collector's.
func (u *uring) share(fd int, offset int64, size int) ([]byte, error) {
	flags := unix.MAP_SHARED | unix.MAP_POPULATE
	if fd < 0 {
		flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	}
	b, err := unix.Mmap(fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	u.maps = append(u.maps, b)
	return b, nil
}

// close ends all operations that are under way.
func (u *uring) close() {
	unix.Close(u.fd)
	for _, b := range u.maps {
		_ = unix.Munmap(b)
	}
	u.maps = nil
}

// buffer is the first n bytes of a buffer, which are the caller's until giveBack.
func (u *uring) buffer(id, n int) []byte {
	at := id * uringBufferSize
	return u.data[at : at+n : at+uringBufferSize]
}

// giveBack gives a buffer to the kernel again.
func (u *uring) giveBack(id uint16) {
	s := &u.slots[u.slotTail%uringBuffers]
	s.addr, s.len, s.id = uint64(uintptr(unsafe.Pointer(&u.data[int(id)*uringBufferSize]))), uringBufferSize, id
	u.slotTail++
	// The tail must not be seen before the entry. It is half of a word, together with the first entry's buffer.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&u.slots[0].id)), uint32(u.slots[0].id)|uint32(u.slotTail)<<16)
}

// next is the place for another operation, which goes to the kernel with enter at the latest.
func (u *uring) next() *sqe {
	for u.tail-atomic.LoadUint32(u.sqHead) == uint32(len(u.sqes)) {
		_ = u.enter(0) // an interruption, or a shortage of memory, ends
	}
	s := &u.sqes[u.tail%uint32(len(u.sqes))]
	u.tail++
	return s
}

// receive asks for the next bytes of a socket, of which a read has just found none.
func (u *uring) receive(fd int, userData uint64) {
	*u.next() = sqe{opcode: opRecv, flags: sqeBufferSelect, ioprio: recvPollFirst, fd: int32(fd), len: uringBufferSize,
		userData: userData}
}

// send asks to send what there is room for. That is done when enter returns, and b is the caller's again.
func (u *uring) send(fd int, b []byte, userData uint64) {
	*u.next() = sqe{opcode: opSend, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), len: uint32(len(b)),
		opFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, userData: userData}
}

// cancelAll takes back all operations that are under way. Each has a result all the same, as has this.
func (u *uring) cancelAll(userData uint64) {
	*u.next() = sqe{opcode: opAsyncCancel, fd: -1, opFlags: cancelAll | cancelAny, userData: userData}
}

// poll asks to be told once when fd is ready for events.
func (u *uring) poll(fd int, events uint32, userData uint64) {
	*u.next() = sqe{opcode: opPollAdd, fd: int32(fd), opFlags: events, userData: userData}
}

// enter gives the kernel all operations, and returns when there are at least so many results.
func (u *uring) enter(wait uint32) (errno syscall.Errno) {
	if wait > 0 {
		_, _, errno = syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), u.publish(), uintptr(wait), enterGetEvents, 0, 0)
	} else {
		// This does not wait, so that the scheduler need not be told of it.
		_, _, errno = syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), u.publish(), 0, enterGetEvents, 0, 0)
	}
	return errno
}

// publish shows the kernel the operations that it has not taken yet, and says how many they are.
func (u *uring) publish() uintptr {
	atomic.StoreUint32(u.sqTail, u.tail)
	return uintptr(u.tail - atomic.LoadUint32(u.sqHead))
}

// has says whether there are results.
func (u *uring) has() bool { return *u.cqHead != atomic.LoadUint32(u.cqTail) }

// drop drops the results that come first, as long as stale says so.
func (u *uring) drop(stale func(*cqe) bool) {
	head, tail := *u.cqHead, atomic.LoadUint32(u.cqTail)
	for head != tail && stale(&u.cqes[head%uint32(len(u.cqes))]) {
		head++
	}
	atomic.StoreUint32(u.cqHead, head)
}

// look shows results that are there, but for the first seen of them, and says how many there are by now. They stay.
func (u *uring) look(seen uint32, show func(*cqe)) uint32 {
	head, tail := *u.cqHead, atomic.LoadUint32(u.cqTail)
	for at := head + seen; at != tail; at++ {
		show(&u.cqes[at%uint32(len(u.cqes))])
	}
	return tail - head
}

// results copies what results there are.
func (u *uring) results(to []cqe) int {
	head, tail := *u.cqHead, atomic.LoadUint32(u.cqTail)
	n := 0
	for ; n < len(to) && head != tail; n++ {
		to[n] = u.cqes[head%uint32(len(u.cqes))]
		head++
	}
	atomic.StoreUint32(u.cqHead, head)
	return n
}
