package cluster

import (
	"sync"

	"golang.org/x/sys/unix"
)

// How much of the data directory's file system must be free: below the first
// line this node refuses sets, below the second one its log keeps still until
// there is room again. The log grows by files of 64 MiB, and dragonboat ends the
// process when it cannot make one.
const (
	freeForSets = 192 << 20
	freeForLog  = 96 << 20
)

// spaceGuard watches the disk.
type spaceGuard struct {
	free func() (uint64, error) // bytes free for this user

	mu      sync.Mutex
	changed sync.Cond // of mu
	last    uint64
	closed  bool
}

func newSpaceGuard(free func() (uint64, error)) *spaceGuard {
	g := &spaceGuard{free: free}
	g.changed.L = &g.mu
	g.check()
	return g
}

// freeBytes returns a spaceGuard's free for a directory.
func freeBytes(dir string) func() (uint64, error) {
	return func() (uint64, error) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return 0, err
		}
		return st.Bavail * uint64(st.Bsize), nil
	}
}

// check looks at the disk. It reports whether the log may be written. A disk that
// cannot be asked counts as empty: writing will tell.
func (g *spaceGuard) check() bool {
	free, err := g.free()
	if err != nil {
		free = 1 << 62
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = free
	g.changed.Broadcast()
	return free >= freeForLog
}

// now returns the bytes free when they were last looked at.
func (g *spaceGuard) now() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// wait returns when the log may be written, or after close.
func (g *spaceGuard) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.last < freeForLog && !g.closed {
		g.changed.Wait()
	}
}

// close ends every wait. What is left of the disk is enough for a last write.
func (g *spaceGuard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.changed.Broadcast()
}
