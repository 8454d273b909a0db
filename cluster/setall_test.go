package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pairs makes size distinct keys with values.
func pairs(prefix string, size int) (keys, values [][]byte) {
	for i := range size {
		keys = append(keys, fmt.Appendf(nil, "%s/%d", prefix, i))
		values = append(values, fmt.Appendf(nil, "value %d", i))
	}
	return keys, values
}

func TestSetAll(t *testing.T) {
	var commands atomic.Int64
	g := startGroup(t, 3, func(c *Config) { c.test.applied = func([]byte) { commands.Add(1) } })
	n := g.nodes[g.leader()%3+1]
	setAll := func(wantCommands int64, keys, values [][]byte) {
		t.Helper()
		commands.Store(0)
		if applied, err := n.SetAll(within(t, 20*time.Second), keys, values); applied != len(keys) || err != nil {
			t.Fatalf("%d of %d applied: %s", applied, len(keys), describe(err))
		}
		if got := commands.Load(); got != wantCommands {
			t.Errorf("%d pairs took %d commands, want %d", len(keys), got, wantCommands)
		}
	}
	setAll(0, nil, nil)
	keys, values := pairs("k", 2*manyOperations+1)
	setAll(3, keys, values)
	want := make(map[string]string)
	for i, key := range keys {
		want[string(key)] = string(values[i])
		wantValue(t, n, string(key), string(values[i])) // at once, on the node itself
	}
	// The order counts, and nil is not the empty value.
	setAll(1,
		[][]byte{[]byte("k/0"), []byte("k/0"), []byte("k/1"), []byte("new"), []byte("new"), []byte("empty"), []byte("k/2"), []byte("k/2")},
		[][]byte{[]byte("old"), []byte("newer"), nil, []byte("v"), nil, {}, nil, []byte("back")})
	want["k/0"], want["empty"], want["k/2"] = "newer", "", "back"
	delete(want, "k/1")
	// Parted by size; what is too large for company goes alone.
	large := bytes.Repeat([]byte("x"), manyBytes/2-10)
	huge := bytes.Repeat([]byte("y"), manyBytes+1)
	setAll(4,
		[][]byte{[]byte("l0"), []byte("l1"), []byte("l2"), []byte("h3"), []byte("l4")},
		[][]byte{large, large, large, huge, large})
	for _, key := range []string{"l0", "l1", "l2", "l4"} {
		want[key] = string(large)
	}
	want["h3"] = string(huge)
	if got := g.agree(); !maps.Equal(got, want) {
		t.Errorf("the content has %d keys, want %d", len(got), len(want))
	}
	if s := n.Status(); s.InFlight != 0 {
		t.Errorf("%d in flight after all have ended", s.InFlight)
	}
}

// TestSetAllIsSetsInOrder: with any pairs SetAll does what a Set or Delete for
// each would do until the first that is refused.
func TestSetAllIsSetsInOrder(t *testing.T) {
	settings := func(c *Config) { c.MaxValueSize, c.Quota, c.MaxKeyLength = 300, 1000, 8 }
	one, other := startGroup(t, 1, settings).nodes[1], startGroup(t, 1, settings).nodes[1]
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
	ctx := within(t, time.Minute)
	refusals := make(map[string]int)
	for range 200 {
		var keys, values [][]byte
		for range 1 + rnd.IntN(12) {
			key, value := fmt.Sprint("k", rnd.IntN(6)), strings.Repeat("v", rnd.IntN(300))
			switch rnd.IntN(60) {
			case 0:
				key = "too long a key"
			case 1:
				key = "k\xff"
			case 2:
				value = "v\x00"
			case 3:
				value = strings.Repeat("v", 301)
			}
			keys, values = append(keys, []byte(key)), append(values, []byte(value))
			if rnd.IntN(5) == 0 {
				values[len(values)-1] = nil
			}
		}
		applied, err := one.SetAll(ctx, keys, values)
		var want error
		i := 0
		for ; i < len(keys) && want == nil; i++ {
			if values[i] == nil {
				want = other.Delete(ctx, keys[i])
			} else {
				want = other.Set(ctx, keys[i], values[i])
			}
		}
		if want != nil {
			i--
		}
		code := func(err error) string {
			var e *Error
			if errors.As(err, &e) {
				return e.Code + e.Message
			}
			return fmt.Sprint(err)
		}
		if applied != i || code(err) != code(want) || !maps.Equal(listed(one), listed(other)) {
			t.Fatalf("%q with lengths %v: %d applied, %s; want %d, %s", keys, lengths(values), applied, code(err), i, code(want))
		}
		if err != nil {
			refusals[code(err)[:5]]++
			checkDetail(t, err.(*Error), applied, len(keys))
		}
	}
	t.Logf("refused: %v", refusals)
	for _, code := range []string{CodeQuota, CodeKeyTooLong, CodeInvalidEncoding, CodeValueTooLarge} {
		if refusals[code] == 0 {
			t.Errorf("none was refused with %s", code)
		}
	}
}

func lengths(values [][]byte) (n []int) {
	for _, v := range values {
		n = append(n, len(v))
	}
	return n
}

// checkDetail looks at what a refusal says of the sets before it.
func checkDetail(t *testing.T, e *Error, applied, total int) {
	t.Helper()
	want := fmt.Sprintf("The first %d of %d sets are applied, the others are not.", applied, total)
	switch applied {
	case 0:
		if e.DetailText != "" && e.DetailText != notApplied {
			t.Errorf("none applied, detail %q", e.DetailText)
		}
		return
	case 1:
		want = fmt.Sprintf("The first of %d sets is applied, the others are not.", total)
	}
	if e.DetailText != want {
		t.Errorf("detail %q, want %q", e.DetailText, want)
	}
}

// TestSetAllEndsBetweenCommands: what ends a run behind the first command says
// that this one is applied, and nothing more is.
func TestSetAllEndsBetweenCommands(t *testing.T) {
	for name, tc := range map[string]struct {
		code string
		end  func(n *Node, cancel context.CancelFunc, free *atomic.Uint64)
	}{
		"cancelled": {CodeCancelled, func(_ *Node, cancel context.CancelFunc, _ *atomic.Uint64) { cancel() }},
		"disk full": {CodeDiskFull, func(n *Node, _ context.CancelFunc, free *atomic.Uint64) {
			free.Store(freeForSets - 1)
			n.space.check()
		}},
		"in flight": {CodeTooMuchInFlight, func(n *Node, _ context.CancelFunc, _ *atomic.Uint64) { n.sess.begin(1) }},
		"closed":    {CodeUnavailable, func(n *Node, _ context.CancelFunc, _ *atomic.Uint64) { n.Close() }},
		"halted":    {CodeUnavailable, func(n *Node, _ context.CancelFunc, _ *atomic.Uint64) { n.fsm.halt(errors.New("broken")) }},
	} {
		t.Run(name, func(t *testing.T) {
			var free atomic.Uint64
			free.Store(1 << 40)
			ctx, cancel := context.WithCancel(within(t, 20*time.Second))
			defer cancel()
			var n *Node
			g := startGroup(t, 1, func(c *Config) {
				c.MaxInFlight = 1
				c.test.freeSpace = func() (uint64, error) { return free.Load(), nil }
				c.test.applied = func([]byte) { tc.end(n, cancel, &free) }
			})
			n = g.nodes[1]
			keys, values := pairs("k", 2*manyOperations)
			applied, err := n.SetAll(ctx, keys, values)
			e := wantCode(t, err, tc.code)
			if applied != manyOperations {
				t.Errorf("%d applied", applied)
			}
			checkDetail(t, e, manyOperations, 2*manyOperations)
			if got := len(listed(n)); got != manyOperations {
				t.Errorf("%d keys are there", got)
			}
		})
	}
}

// TestSetAllOutcomeUnknown: a leader that loses the others within a run does not
// know about the command under way, but about all others.
func TestSetAllOutcomeUnknown(t *testing.T) {
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	defer cancel()
	var lose func()
	g := startGroup(t, 3, func(c *Config) {
		c.ElectionRTT = 200 // 2 s in which it goes on
		c.test.applied = func([]byte) { lose() }
	})
	leader := g.leader()
	lose = func() {
		for id := range g.configs {
			if id != leader {
				g.stop(id)
			}
		}
		time.AfterFunc(50*time.Millisecond, cancel)
	}
	n := g.nodes[leader]
	keys, values := pairs("k", 2*manyOperations+1)
	applied, err := n.SetAll(ctx, keys, values)
	e := wantCode(t, err, CodeOutcomeUnknown)
	want := "Sets 513 to 1024 of 1025 were proposed to the group together, and the wait for an answer was cancelled: " +
		"all of them may have been applied, or may yet be, or none. Applied before that: 512. Not applied: 1."
	if applied != manyOperations || e.DetailText != want {
		t.Errorf("%d applied, detail %q", applied, e.DetailText)
	}
	applied, err = n.SetAll(within(t, 100*time.Millisecond), keys[:1], values[:1])
	if e := wantCode(t, err, CodeOutcomeUnknown); applied != 0 || !strings.HasPrefix(e.DetailText, "It was proposed") {
		t.Errorf("%d applied, detail %q", applied, e.DetailText)
	}
	// One alone among others.
	large := bytes.Repeat([]byte("v"), manyBytes)
	applied, err = n.SetAll(within(t, 100*time.Millisecond), keys[:2], [][]byte{large, large})
	e = wantCode(t, err, CodeOutcomeUnknown)
	want = "Set 1 of 2 was proposed to the group, and no answer came in time: it may have been applied, or may yet be. " +
		"Applied before that: 0. Not applied: 1."
	if applied != 0 || e.DetailText != want {
		t.Errorf("%d applied, detail %q", applied, e.DetailText)
	}
}

// runOf is what became of one SetAll.
type runOf struct {
	prefix  string
	size    int
	applied int
	unknown bool // of the command behind those
}

// check compares it with what is in the table: always a number of commands from
// the first on.
func (r *runOf) check(content map[string]string) error {
	there := 0
	for there < r.size && content[fmt.Sprintf("%s/%d", r.prefix, there)] == fmt.Sprint("value ", there) {
		there++
	}
	for i := there; i < r.size; i++ {
		if v, ok := content[fmt.Sprintf("%s/%d", r.prefix, i)]; ok {
			return fmt.Errorf("%s: %d is there (%q), %d is not", r.prefix, i, v, there)
		}
	}
	allowed := []int{r.applied}
	if r.unknown {
		allowed = append(allowed, min(r.applied+manyOperations, r.size))
	}
	if !slices.Contains(allowed, there) {
		return fmt.Errorf("%s: %d of %d are there, want one of %v", r.prefix, there, r.size, allowed)
	}
	return nil
}

// TestSetAllWhileLeadersStop has runs on all members, some of them with too little
// time, every command proposed twice, while one leader after the other is stopped.
func TestSetAllWhileLeadersStop(t *testing.T) {
	g := startGroup(t, 3, func(c *Config) {
		c.SnapshotEntries, c.CompactionOverhead = 60, 10
		c.test.proposeMore = 1
	})
	var mu sync.Mutex // over g.nodes and runs
	var runs []*runOf
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range 4 {
		rnd := rand.New(rand.NewPCG(rand.Uint64(), uint64(w)))
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				mu.Lock()
				n := g.nodes[rnd.Uint64N(3)+1]
				mu.Unlock()
				if n == nil {
					continue
				}
				r := &runOf{prefix: fmt.Sprint(w, "/", i), size: 1 + rnd.IntN(3*manyOperations)}
				limit := 20 * time.Second
				if rnd.IntN(2) == 0 {
					limit = time.Duration(rnd.IntN(40)) * time.Millisecond
				}
				runOnce(t, n, r, limit)
				mu.Lock()
				runs = append(runs, r)
				mu.Unlock()
			}
		})
	}
	for range 2 {
		bounceLeaderAfter(t, g, &mu, 25)
	}
	cancel()
	wg.Wait()
	content := g.agree()
	var all, part, unknown int
	for _, r := range runs {
		if err := r.check(content); err != nil {
			t.Error(err)
		}
		switch {
		case r.unknown:
			unknown++
		case r.applied == r.size:
			all++
		default:
			part++
		}
	}
	t.Logf("%d runs: %d applied, %d in part or not at all, %d unknown; %d keys", len(runs), all, part, unknown, len(content))
	if all == 0 || unknown == 0 {
		t.Error("not every kind of run came up")
	}
}

func runOnce(t *testing.T, n *Node, r *runOf, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	keys, values := pairs(r.prefix, r.size)
	var err error
	r.applied, err = n.SetAll(ctx, keys, values)
	if err == nil {
		return
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeOutcomeUnknown && e.Code != CodeUnavailable {
		t.Errorf("%s: %s", r.prefix, describe(err))
		return
	}
	r.unknown = e.Code == CodeOutcomeUnknown
}
