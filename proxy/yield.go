package proxy

import (
	"runtime"
	_ "unsafe" // for go:linkname
)

// yield lets goroutines run that wait for the loop's processor.
func (l *loop) yield() {
	if l.hot {
		runtime.Gosched() // the loop keeps its thread, so others need another one
		return
	}
	l.way.end()
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.Gosched() // others may wait in a queue that goyield does not look at, and no thread is woken
		return
	}
	goyield()
}

// goyield is like runtime.Gosched for those who wait for this very processor. But runtime.Gosched also wakes another thread, to look
// whether there is something to do, which costs as much as a statement, and puts the loop where that thread finds it. The runtime
// leaves this function to be used so.
//
//go:linkname goyield runtime.goyield
func goyield()
