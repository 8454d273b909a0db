package proxy

import (
	"runtime"
	_ "unsafe" // for go:linkname
)

// yield lets goroutines run that wait for the loop's processor.
func (l *loop) yield() {
	if l.hot || runtime.GOMAXPROCS(0) == 1 {
		// The thread of a hot loop cannot run others, so other threads are needed. And where there is one processor only, no thread is
		// woken; but then others may wait in a queue that goyield does not look at.
		runtime.Gosched()
		return
	}
	l.way.end()
	goyield()
}

// goyield is like runtime.Gosched for those who wait for this very processor. But runtime.Gosched also wakes another thread, to look
// whether there is something to do, which costs as much as a statement, and puts the loop where that thread finds it. The runtime
// leaves this function to be used so.
//
//go:linkname goyield runtime.goyield
func goyield()
