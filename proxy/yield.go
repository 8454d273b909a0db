package proxy

import (
	"runtime"
	_ "unsafe" // for go:linkname
)

// yield lets goroutines run that wait for the loop's processor.
func (l *loop) yield() {
	l.way.end()
	if l.hot {
		// A thread that is one goroutine's cannot run others: yet another thread would have to, and give the processor back.
		runtime.UnlockOSThread()
		defer runtime.LockOSThread()
	}
	goyield()
}

// goyield is like runtime.Gosched. But that wakes another thread, to look whether there is something to do, which costs as much as
// a statement, and may end with the loop on that other thread. The runtime leaves this function to be used so.
//
//go:linkname goyield runtime.goyield
func goyield()
