package proxy

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTooLong has accounts that were seen: beside how many other programs, with all processors busy, and whether it was better to give way.
func TestTooLong(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, test := range []struct {
		what        string
		ran, waited time.Duration
		tooLong     bool
	}{
		{"a thread that has just begun, and waits for one slice of another", 40 * us, 3 * ms, false},
		{"alone", 50 * ms, 8 * ms, false},
		{"alone, and one that computes comes by every 20 ms", 50 * ms, 20 * ms, false},
		{"one that computes", 50 * ms, 50 * ms, true},
		{"two", 20 * ms, 62 * ms, true},
		{"four, after ten waits", 200 * us, 8 * ms, true},
	} {
		if got := (usage{test.ran, test.waited}).tooLong(); got != test.tooLong {
			t.Errorf("%s: too long: %v", test.what, got)
		}
	}
}

// batchThreads finds those of the process's threads that give way.
func batchThreads(t testing.TB) (tids []int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		class, _, errno := syscall.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
		if errno == 0 && class == unix.SCHED_BATCH { // an error means that it has just ended
			tids = append(tids, tid)
		}
	}
	return tids
}

// givingWay finds, from now on, those of them that begin to: a loop of another test may have nothing to do, and be left so.
func givingWay(t testing.TB) func() []int {
	before := batchThreads(t)
	return func() []int {
		return slices.DeleteFunc(batchThreads(t), func(tid int) bool { return slices.Contains(before, tid) })
	}
}

// mayGiveWay skips a test where threads cannot.
func mayGiveWay(t testing.TB) {
	t.Helper()
	var g giveWay
	defer g.close()
	if err := g.open(); err != nil {
		t.Skip("on this system no thread can give way: ", err)
	}
}

// accountOf gives g an account for the present thread that says what the test writes into the file.
func accountOf(t *testing.T, g *giveWay) (write func(ran, waited time.Duration)) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	name := t.TempDir() + "/schedstat"
	write = func(ran, waited time.Duration) {
		t.Helper()
		if err := os.WriteFile(name, fmt.Appendf(nil, "%d %d 17\n", ran, waited), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 0)
	file, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	g.account.tid, g.account.file = unix.Gettid(), file
	return write
}

// TestGiveWayPauses has a thread that must wait when it gives way: it tries again, but ever later, until it goes well for long enough.
func TestGiveWayPauses(t *testing.T) {
	mayGiveWay(t)
	var g giveWay
	write := accountOf(t, &g)
	var ran, waited time.Duration
	spend := func(r, w time.Duration) {
		ran, waited = ran+r, waited+w
		write(ran, waited)
	}
	start := time.Now()
	for want := pauseMin; want < 4*pauseMax; want *= 2 {
		g.look(g.until)
		if !g.now {
			t.Fatalf("it does not give way after %v", g.until.Sub(start))
		}
		spend(time.Millisecond, 20*time.Millisecond)
		before := time.Now()
		for i := 0; g.now; i++ {
			if i > lookEvery {
				t.Fatal("it gives way though it waits for too long")
			}
			g.look(g.until)
		}
		if g.pause != min(want, pauseMax) || g.until.Before(before.Add(g.pause)) {
			t.Fatalf("a pause of %v, until %v from now; it should be %v", g.pause, g.until.Sub(before), want)
		}
		g.look(g.until.Add(-time.Millisecond))
		if g.now {
			t.Fatal("it gives way before the pause is over")
		}
		g.until = before // as if it were over
	}
	g.until = time.Now().Add(-(steady + 1) * pauseMax) // it has gone well since then
	g.look(time.Now())
	for range 100 {
		spend(time.Millisecond, 50*time.Microsecond)
		for range lookEvery {
			g.look(time.Now())
		}
	}
	if !g.now {
		t.Fatal("it gives way no more though it hardly waits")
	}
	spend(0, time.Second)
	g.end()
	if g.pause != pauseMin {
		t.Errorf("a pause of %v after it has gone well for long", g.pause)
	}
}

// TestGiveWayAccounts adds up what comes in pieces so small that nobody looks at them before they end.
func TestGiveWayAccounts(t *testing.T) {
	mayGiveWay(t)
	var g giveWay
	write := accountOf(t, &g)
	for i := time.Duration(1); g.pause == 0; i++ {
		if i > 100 {
			t.Fatal("it gives way though it waits for too long, again and again")
		}
		g.look(g.until)
		write(i*100*time.Microsecond, i*time.Millisecond)
		g.end()
	}
}

// TestGivesWay looks at a loop's thread: it gives way while statements come, and no thread does when others have to work.
func TestGivesWay(t *testing.T) {
	mayGiveWay(t)
	eachWay(t, func(t *testing.T, newServer func(t testing.TB, cfg Config) *Server) {
		table, waiting, goOn := gatedTable()
		givingWay := givingWay(t)
		lt := newLoopTest(t, newServer(t, Config{Table: table}), "tcp")
		for range 3 {
			eventually(t, "a thread gives way", func() bool {
				lt.turn(t)
				return len(givingWay()) > 0
			})
			if _, err := lt.toClient.Write(query("SELECT raftable('k', 'v')")); err != nil {
				t.Fatal(err)
			}
			<-waiting
			if tids := givingWay(); len(tids) > 0 {
				t.Errorf("threads %v give way while a set waits", tids)
			}
			goOn <- struct{}{}
			readMessages(t, lt.toClient, "TDCZ")
		}
	})
}

// TestGivesNoWay forbids it.
func TestGivesNoWay(t *testing.T) {
	givingWay := givingWay(t)
	lt := newLoopTest(t, newLoopServerThat(t, "default", Config{NoSchedBatch: true}), "tcp")
	for range 10 * lookEvery {
		lt.turn(t)
		if tids := givingWay(); len(tids) > 0 {
			t.Fatalf("threads %v give way", tids)
		}
	}
}
