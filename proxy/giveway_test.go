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
	write(1, 0)
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
	ran, waited := time.Duration(1), time.Duration(0)
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
		g.until = before.Add(time.Hour) // or else, if the test took long, it would have gone well since
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
		write(1+i*100*time.Microsecond, i*time.Millisecond)
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

// TestYield has another goroutine run when a loop yields, the thread of which is free, its own, or that of one who gives way.
func TestYield(t *testing.T) {
	for _, procs := range []int{1, 2} {
		for _, hot := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d processors, hot %v", procs, hot), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				l := stillLoop(t)
				if l.way.open() != nil {
					l.way.off = true
				}
				if hot {
					l.heat()
				}
				l.way.look(time.Now())
				ran := make(chan struct{})
				go close(ran)
				for yields := 0; ; yields++ {
					l.yield()
					select {
					case <-ran:
						l.cool()
						l.way.end()
						return
					default:
					}
					if yields == 1000 {
						t.Fatal("a goroutine that is ready does not run")
					}
				}
			})
		}
	}
}

// TestRestEnds has a loop rest and not rest by turns: it hears of what comes in either case.
func TestRestEnds(t *testing.T) {
	l := stillLoop(t)
	sd, peer := stillSide(t, l, "unix")
	for i := range 20 {
		for rests := range 2 {
			if rests == 0 {
				l.rest.end(l.epoll)
			}
			for sent := range 3 {
				if _, err := peer.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				l.at, l.n = 0, 0
				l.waitCalm(rests == 1)
				if l.n != 1 || l.events[0].side != sd {
					t.Fatalf("turn %d, rests %d, byte %d: %d events", i, rests, sent, l.n)
				}
				if n, errno := sd.sock.receive(make([]byte, 8)); n != 1 || errno != 0 {
					t.Fatalf("received %d bytes, %v", n, errno)
				}
			}
		}
	}
}
