package proxy

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// giveWay has the thread of a busy loop give way: in the scheduling class SCHED_BATCH it does not interrupt whoever runs on its
// processor when something comes. That is mostly the one who sent it, who is about to wait for the answer, and who if interrupted
// takes the processor twice for that. With few clients giving way spares a tenth of the time that forwarding takes.
//
// That is good as long as the others give way soon, too. Where a program computes on and on, the thread would wait for its turn, and a
// statement take many times as long. So the kernel's account of the thread is looked at, and if it waits for a processor for longer
// than it should, it gives way no more for a while.
//
// The class is a thread's, and threads that it creates inherit it. So the loop's goroutine is locked to the thread meanwhile, and
// before anybody else gets the thread, it has its own class back.
//
// It belongs to the goroutine that runs the loop.
type giveWay struct {
	off     bool // it is not wanted, or not to be had
	now     bool // the thread gives way
	looks   int  // waits until the account is looked at
	account schedstat
	last    usage         // what the account said then
	sum     usage         // what came since; the older it is the less it counts
	until   time.Time     // no giving way before
	pause   time.Duration // the last one
}

// usage is a thread's time on processors, and its time of waiting for one.
type usage struct{ ran, waited time.Duration }

const (
	// lookEvery is after how many waits the account is looked at.
	lookEvery = 64
	// usageKept is for how long running counts in full.
	usageKept = 50 * time.Millisecond
	// waitAllowed is how long the thread may have waited without that meaning anything. Who must wait for one that computes on
	// does so for some milliseconds, and that happens from time to time.
	waitAllowed = 5 * time.Millisecond
	// After it has waited for too long the thread does not give way for a time, which is twice as long each time. If that has gone well
	// for steady times as long, the next time is the shortest again.
	pauseMin = 100 * time.Millisecond
	pauseMax = 1600 * time.Millisecond
	steady   = 10
)

// tooLong says whether a thread that gives way waits for too long. By itself it waits for a fraction of the time that it runs,
// beside one program that computes for about as long as it runs, and beside several for ten times as long.
func (u usage) tooLong() bool { return u.waited > u.ran/2+waitAllowed }

// open makes g ready for use, and says why no thread can give way. Those that have been given another class than threads have by
// themselves keep it.
func (g *giveWay) open() error {
	class, _, errno := syscall.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	switch {
	case errno != 0:
		return os.NewSyscallError("sched_getscheduler", errno)
	case class != unix.SCHED_NORMAL:
		return fmt.Errorf("the process has scheduling class %d of its own", class)
	}
	err := g.begin()
	g.end()
	g.off = err != nil
	return err
}

// look is called before each wait of a loop that is busy; now is about the present time. It may have the thread give way, or no more.
func (g *giveWay) look(now time.Time) {
	switch {
	case g.off:
	case !g.now:
		if !now.Before(g.until) {
			if g.begin() != nil { // it has no descriptors, perhaps
				g.interrupt(now)
			}
		}
	default:
		if g.looks--; g.looks > 0 {
			return
		}
		g.looks = lookEvery
		if !g.add() || g.sum.tooLong() {
			g.end()
		}
	}
}

// begin has the thread give way, or else says why it cannot.
func (g *giveWay) begin() (err error) {
	runtime.LockOSThread()
	if g.last, err = g.account.open(); err == nil {
		err = setScheduler(unix.SCHED_BATCH)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	g.now, g.looks = true, lookEvery
	return nil
}

// end gives the thread its own class back, if it gives way.
func (g *giveWay) end() {
	if !g.now {
		return
	}
	g.now = false
	ok := g.add()
	_ = setScheduler(unix.SCHED_NORMAL) // which every thread may have
	runtime.UnlockOSThread()
	if !ok || g.sum.tooLong() {
		g.interrupt(time.Now())
	}
}

// interrupt has the thread not give way for a while.
func (g *giveWay) interrupt(now time.Time) {
	if now.Sub(g.until) > steady*g.pause {
		g.pause = 0
	}
	g.pause = min(max(2*g.pause, pauseMin), pauseMax)
	g.until, g.sum = now.Add(g.pause), usage{}
}

// add adds what the account says, and says whether it could.
func (g *giveWay) add() bool {
	u, ok := g.account.read()
	if !ok {
		return false
	}
	g.sum.ran += u.ran - g.last.ran
	g.sum.waited += u.waited - g.last.waited
	g.last = u
	for g.sum.ran > usageKept {
		g.sum.ran, g.sum.waited = g.sum.ran/2, g.sum.waited/2
	}
	return true
}

func (g *giveWay) close() { g.account.close() }

// setScheduler gives the calling thread a scheduling class.
func setScheduler(class uintptr) error {
	var param struct{ priority int32 }
	_, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, class, uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return os.NewSyscallError("sched_setscheduler", errno)
	}
	return nil
}

const schedstatFile = "/proc/thread-self/schedstat"

// schedstat is the kernel's account of a thread.
type schedstat struct {
	tid  int // 0 for none
	file int
	text [64]byte
}

// open opens the account of the calling thread, and says what is in it.
func (s *schedstat) open() (u usage, err error) {
	tid := unix.Gettid()
	if tid == s.tid {
		if u, ok := s.read(); ok { // or else it was that of a thread before
			return u, nil
		}
	}
	file, err := unix.Open(schedstatFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	s.close()
	if err != nil {
		return u, &os.PathError{Op: "open", Path: schedstatFile, Err: err}
	}
	s.tid, s.file = tid, file
	u, ok := s.read()
	if !ok || u.ran == 0 { // kernels that keep no account may have one of zeros
		return u, fmt.Errorf("%s does not say how long the thread ran and waited", schedstatFile)
	}
	return u, nil
}

func (s *schedstat) close() {
	if s.tid != 0 {
		unix.Close(s.file)
		s.tid = 0
	}
}

func (s *schedstat) read() (u usage, ok bool) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_PREAD64, uintptr(s.file), uintptr(unsafe.Pointer(&s.text)), uintptr(len(s.text)), 0, 0, 0)
	if errno != 0 {
		return u, false
	}
	ran, rest, _ := bytes.Cut(s.text[:n], []byte(" "))
	waited, _, ok := bytes.Cut(rest, []byte(" "))
	u.ran, u.waited = nanoseconds(ran), nanoseconds(waited)
	return u, ok
}

func nanoseconds(text []byte) time.Duration {
	n, _ := strconv.ParseInt(string(text), 10, 64) // as small as this, it is not allocated
	return time.Duration(n)
}
