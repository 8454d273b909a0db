package cluster

import (
	"math/rand/v2"
	"testing"
)

func TestDedup(t *testing.T) {
	type step struct {
		origin, epoch, seq, low uint64
		want                    verdict
	}
	for name, steps := range map[string][]step{
		"each once": {
			{1, 1, 1, 1, verdictApply}, {1, 1, 2, 1, verdictApply}, {1, 1, 3, 3, verdictApply},
		},
		"twice in a row": {
			{1, 1, 1, 1, verdictApply}, {1, 1, 1, 1, verdictDuplicate},
		},
		"again after others, still outstanding": {
			{1, 1, 1, 1, verdictApply}, {1, 1, 3, 1, verdictApply}, {1, 1, 2, 1, verdictApply},
			{1, 1, 1, 1, verdictDuplicate}, {1, 1, 3, 1, verdictDuplicate}, {1, 1, 2, 2, verdictDuplicate},
		},
		"again when it was answered": {
			{1, 1, 1, 1, verdictApply}, {1, 1, 2, 2, verdictApply}, {1, 1, 1, 1, verdictAbandoned},
		},
		"late, given up meanwhile": {
			{1, 1, 2, 2, verdictApply}, {1, 1, 1, 1, verdictAbandoned},
		},
		"low never falls": {
			{1, 1, 9, 9, verdictApply}, {1, 1, 10, 2, verdictApply}, {1, 1, 8, 2, verdictAbandoned},
		},
		"new epoch counts from the start": {
			{1, 1, 5, 1, verdictApply}, {1, 2, 5, 5, verdictApply}, {1, 2, 5, 5, verdictDuplicate},
		},
		"old epoch": {
			{1, 2, 1, 1, verdictApply}, {1, 1, 7, 7, verdictOldEpoch}, {1, 2, 2, 1, verdictApply},
		},
		"origins do not mix": {
			{1, 1, 1, 1, verdictApply}, {2, 1, 1, 1, verdictApply}, {2, 3, 1, 1, verdictApply}, {1, 1, 1, 1, verdictDuplicate},
		},
		"ends of the window": {
			{1, 1, 1, 1, verdictApply}, {1, 1, dedupWindow, 1, verdictApply}, {1, 1, dedupWindow, 1, verdictDuplicate},
			{1, 1, dedupWindow + 1, 2, verdictApply}, {1, 1, dedupWindow, 2, verdictDuplicate},
			{1, 1, 2, 2, verdictApply}, {1, 1, dedupWindow + 1, 3, verdictDuplicate},
		},
		"low jumps over the window": {
			{1, 1, 1, 1, verdictApply}, {1, 1, 5 * dedupWindow, 5 * dedupWindow, verdictApply},
			{1, 1, 5*dedupWindow + 1, 5 * dedupWindow, verdictApply}, {1, 1, 5 * dedupWindow, 5 * dedupWindow, verdictDuplicate},
		},
	} {
		table := newDedupTable()
		for i, s := range steps {
			if got := table.admit(&command{op: opDelete, origin: s.origin, epoch: s.epoch, seq: s.seq, low: s.low}); got != s.want {
				t.Errorf("%s: step %d: verdict %d, want %d", name, i, got, s.want)
			}
		}
	}
}

// TestDedupAgainstModel runs a session as nodes do, with commands that arrive
// late, twice, or never, and compares with a table that forgets nothing.
func TestDedupAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	table, applied := newDedupTable(), make(map[uint64]bool)
	sess := newSession(1, 1, 300)
	var waiting []*waiter
	var wire []command
	low := uint64(0)
	for range 200_000 {
		switch r.IntN(4) {
		case 0:
			if w := sess.begin(1); w != nil {
				waiting = append(waiting, w)
				for range 1 + r.IntN(3) {
					wire = append(wire, command{op: opDelete, origin: 1, epoch: 1, seq: w.seq, low: w.low})
				}
			}
		case 1: // an answer that comes, or a wait that is given up
			if len(waiting) > 0 {
				i := r.IntN(len(waiting))
				sess.end(waiting[i])
				waiting[i] = waiting[len(waiting)-1]
				waiting = waiting[:len(waiting)-1]
			}
		default:
			if len(wire) == 0 {
				continue
			}
			i := r.IntN(len(wire))
			c := wire[i]
			if r.IntN(2) == 0 {
				wire[i] = wire[len(wire)-1]
				wire = wire[:len(wire)-1]
			}
			low = max(low, c.low)
			want := verdictApply
			if c.seq < low {
				want = verdictAbandoned
			} else if applied[c.seq] {
				want = verdictDuplicate
			}
			if got := table.admit(&c); got != want {
				t.Fatalf("seed %d: sequence %d with low %d: verdict %d, want %d", seed, c.seq, c.low, got, want)
			}
			applied[c.seq] = applied[c.seq] || want == verdictApply
			if table.has(1, 1, c.seq) != (c.seq >= low && applied[c.seq]) {
				t.Fatalf("seed %d: has(%d) is wrong", seed, c.seq)
			}
			if len(wire) > 1000 {
				wire = wire[500:]
			}
		}
	}
	if len(applied) < 10_000 {
		t.Fatalf("only %d sequences were tried", len(applied))
	}
}

// TestSessionNeverLosesItsOwn: whoever waits is never below what the group was
// told to forget.
func TestSessionNeverLosesItsOwn(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	sess := newSession(1, 1, 50)
	var waiting []*waiter
	for range 100_000 {
		if w := sess.begin(1); w != nil && r.IntN(2) == 0 {
			for _, other := range waiting {
				if other.seq < w.low {
					t.Fatalf("command %d says that all below %d are done, %d is not", w.seq, w.low, other.seq)
				}
			}
			waiting = append(waiting, w)
		} else if w != nil {
			sess.wake([]uint64{w.seq})
			<-w.done
			sess.end(w)
		}
		if len(waiting) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(waiting))
			sess.end(waiting[i])
			waiting = append(waiting[:i], waiting[i+1:]...)
		}
	}
	if n, size := sess.load(); n != len(waiting) || size != int64(n) {
		t.Errorf("%d outstanding with %d bytes, want %d", n, size, len(waiting))
	}
}

func TestSessionBounds(t *testing.T) {
	sess := newSession(1, 1, 3)
	first := sess.begin(maxInFlightBytes + 1)
	if first == nil {
		t.Fatal("one alone must be let through whatever its size")
	}
	if sess.begin(0) != nil {
		t.Error("more bytes than the bound")
	}
	sess.end(first)
	var all []*waiter
	for range 3 {
		all = append(all, sess.begin(10))
	}
	if sess.begin(10) != nil {
		t.Error("four in flight, three are allowed")
	}
	for _, w := range all[1:] {
		sess.end(w)
	}
	// One that stays outstanding must not let the window run over.
	for i := 0; ; i++ {
		w := sess.begin(1)
		if w == nil {
			if i < dedupWindow-10 || i > dedupWindow {
				t.Errorf("stopped after %d", i)
			}
			break
		}
		sess.end(w)
	}
	sess.end(all[0])
	w := sess.begin(1)
	if w == nil || w.low != w.seq {
		t.Fatal("not open again")
	}
	sess.fail(w.seq, errTooMuchInFlight())
	if <-w.done; w.err == nil {
		t.Error("failure is lost")
	}
	sess.wake([]uint64{w.seq, 1 << 40}) // nobody waits: nothing happens
	sess.end(w)
}
