package cluster

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSetOnEachReadOnOthers(t *testing.T) {
	g := startGroup(t, 3, nil)
	for id, n := range g.nodes {
		key := fmt.Sprintf("from %d", id)
		mustSet(t, n, key, "value")
		wantValue(t, n, key, "value") // at once, on the node itself
		for _, other := range g.nodes {
			if err := other.Barrier(within(t, 10*time.Second)); err != nil {
				t.Fatal(describe(err))
			}
			wantValue(t, other, key, "value")
		}
	}
	n := g.nodes[1]
	mustSet(t, n, "", "empty key")
	mustSet(t, n, "empty value", "")
	mustSet(t, n, strings.Repeat("ä", 64), "64 characters")
	mustSet(t, n, "from 1", "another value")
	for range 2 { // the second time it is not there
		if err := n.Delete(within(t, 10*time.Second), []byte("from 2")); err != nil {
			t.Fatal(describe(err))
		}
		if _, ok := n.Get(nil, []byte("from 2")); ok {
			t.Fatal("deleted key is still there")
		}
	}
	want := map[string]string{
		"": "empty key", "empty value": "", strings.Repeat("ä", 64): "64 characters",
		"from 1": "another value", "from 3": "value",
	}
	if got := g.agree(); !maps.Equal(got, want) {
		t.Errorf("content is %q, want %q", got, want)
	}
	var order []string
	for k := range g.nodes[2].List {
		order = append(order, string(k))
	}
	if got, want := strings.Join(order, ","), ",empty value,from 1,from 3,"+strings.Repeat("ä", 64); got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	checkStatus(t, g)
}

// checkStatus looks at what the members say of themselves and each other.
func checkStatus(t *testing.T, g *group) {
	t.Helper()
	leader := g.leader()
	for id, n := range g.nodes {
		s := n.Status()
		if s.ReplicaID != id || s.LeaderID != leader || s.Term == 0 || s.Keys != 5 || s.Quota != DefaultQuota ||
			!s.Ready || s.ReadyReason != "" || s.InFlight != 0 || len(s.StateHash) != 16 || len(s.Members) != 3 {
			t.Errorf("status of %d: %+v", id, s)
		}
		for i, m := range s.Members {
			if m.ID != uint64(i+1) || m.Address != g.configs[m.ID].RaftAddress || m.Self != (m.ID == id) {
				t.Errorf("member %d as %d sees it: %+v", i+1, id, m)
			}
			if id == leader && (m.Reachable == nil || !*m.Reachable) {
				t.Errorf("leader cannot reach %d", m.ID)
			}
		}
	}
}

func TestRefusedBeforeProposal(t *testing.T) {
	g := startGroup(t, 1, func(c *Config) { c.MaxValueSize, c.Quota = 1000, 2000 })
	n := g.nodes[1]
	long := strings.Repeat("x", 900)
	mustSet(t, n, "a", long)
	mustSet(t, n, "b", long)
	for _, c := range []struct {
		name, key, value, code, message string
	}{
		{"key of 65 characters", strings.Repeat("k", 65), "v", CodeKeyTooLong, "value too long for type character varying(64)"},
		{"key of 65 long characters", strings.Repeat("ä", 65), "v", CodeKeyTooLong, "value too long for type character varying(64)"},
		{"key not UTF-8", "k\xff", "v", CodeInvalidEncoding, `invalid byte sequence for encoding "UTF8": 0xff`},
		{"key with NUL", "k\x00", "v", CodeInvalidEncoding, `invalid byte sequence for encoding "UTF8": 0x00`},
		{"value not UTF-8", "k", "v\xe2\x28\xa1z", CodeInvalidEncoding, `invalid byte sequence for encoding "UTF8": 0xe2 0x28 0xa1`},
		{"value cut off", "k", "v\xe2\x82", CodeInvalidEncoding, `invalid byte sequence for encoding "UTF8": 0xe2 0x82`},
		{"value with NUL", "k", "v\x00", CodeInvalidEncoding, `invalid byte sequence for encoding "UTF8": 0x00`},
		{"value too large", "k", strings.Repeat("v", 1001), CodeValueTooLarge, "raftable value of 1001 bytes exceeds the limit of 1000 bytes"},
		{"quota", "k", strings.Repeat("v", 500), CodeQuota, "raftable quota of 2000 bytes is used up"},
		{"quota, replacing by more", "b", strings.Repeat("v", 1000), "", ""},
		{"quota, replacing by more yet", "c", strings.Repeat("v", 200), CodeQuota, "raftable quota of 2000 bytes is used up"},
		{"replacing by the same size", "a", strings.Repeat("y", 900), "", ""},
	} {
		err := n.Set(within(t, 10*time.Second), []byte(c.key), []byte(c.value))
		if c.code == "" {
			if err != nil {
				t.Errorf("%s: %s", c.name, describe(err))
			}
			continue
		}
		if e := wantCode(t, err, c.code); e.Message != c.message {
			t.Errorf("%s: message %q, want %q", c.name, e.Message, c.message)
		}
	}
	if err := n.Delete(within(t, 10*time.Second), []byte("a")); err != nil {
		t.Errorf("deleting at the quota: %s", describe(err))
	}
	mustSet(t, n, "k", strings.Repeat("v", 500))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	wantCode(t, n.Set(cancelled, []byte("k"), nil), CodeCancelled)
	wantCode(t, n.Barrier(cancelled), CodeCancelled)
}

func TestLargestValue(t *testing.T) {
	// Heartbeats wait behind such a value, and it has to get to all disks.
	g := startGroup(t, 3, func(c *Config) { c.MaxValueSize, c.ElectionRTT = HardMaxValueSize, 300 })
	value := bytes.Repeat([]byte("0123456789abcdef"), int(HardMaxValueSize)/16)
	follower := g.nodes[g.leader()%3+1]
	if err := follower.Set(within(t, 30*time.Second), []byte("large"), value); err != nil {
		t.Fatal(describe(err))
	}
	for _, n := range g.nodes {
		if err := n.Barrier(within(t, 30*time.Second)); err != nil {
			t.Fatal(describe(err))
		}
		if got, _ := n.Get(nil, []byte("large")); !bytes.Equal(got, value) {
			t.Fatalf("got %d bytes, set %d", len(got), len(value))
		}
	}
}

// writers set distinct keys on nodes until stop is called, which returns what
// was acknowledged.
func writers(t *testing.T, perNode int, nodes ...*Node) (stop func() map[string]string) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := make(map[string]string)
	ctx, cancel := context.WithCancel(context.Background())
	for i, n := range nodes {
		for w := range perNode {
			wg.Go(func() {
				for seq := 0; ctx.Err() == nil; seq++ {
					key, value := fmt.Sprintf("%d/%d/%d", i, w, seq), fmt.Sprint(seq)
					if err := n.Set(within(t, 20*time.Second), []byte(key), []byte(value)); err != nil {
						t.Errorf("setting %s: %s", key, describe(err))
						return
					}
					mu.Lock()
					acknowledged[key] = value
					mu.Unlock()
				}
			})
		}
	}
	return func() map[string]string {
		cancel()
		wg.Wait()
		return acknowledged
	}
}

func wantAll(t *testing.T, content, acknowledged map[string]string) {
	t.Helper()
	missing := 0
	for k, v := range acknowledged {
		if content[k] != v {
			missing++
		}
	}
	if missing > 0 || len(acknowledged) == 0 {
		t.Errorf("%d of %d acknowledged sets are missing", missing, len(acknowledged))
	}
}

// waitApplied waits until n has applied some more commands.
func waitApplied(t *testing.T, n *Node, more uint64) {
	t.Helper()
	start := n.Status().AppliedIndex
	poll(t, "more sets", func() error {
		if now := n.Status().AppliedIndex; now < start+more {
			return fmt.Errorf("%d after %d", now, start)
		}
		return nil
	})
}

func TestLeaderStopsDuringSets(t *testing.T) {
	g := startGroup(t, 3, nil)
	leader := g.leader()
	var others []*Node
	for id, n := range g.nodes {
		if id != leader {
			others = append(others, n)
		}
	}
	stop := writers(t, 8, others...)
	waitApplied(t, others[0], 100)
	g.stop(leader)
	waitApplied(t, others[0], 200)
	g.start(leader)
	waitApplied(t, others[0], 100)
	acknowledged := stop()
	wantAll(t, g.agree(), acknowledged)
	t.Logf("%d sets acknowledged", len(acknowledged))
}

func TestAllRestart(t *testing.T) {
	g := startGroup(t, 3, nil)
	stop := writers(t, 4, g.nodes[1], g.nodes[2], g.nodes[3])
	waitApplied(t, g.nodes[1], 200)
	acknowledged := stop()
	starts := g.nodes[1].data.id.Starts
	g.stopAll()
	g.startAll()
	wantAll(t, g.agree(), acknowledged)
	if got := g.nodes[1].data.id.Starts; got != starts+1 {
		t.Errorf("start %d after %d", got, starts)
	}
	mustSet(t, g.nodes[1], "after", "restart")
}

// TestRestartAlone: a member that cannot reach the others still has what its own
// log knew to be committed, from the moment when Start returns.
func TestRestartAlone(t *testing.T) {
	g := startGroup(t, 3, nil)
	mustSet(t, g.nodes[1], "k", "v")
	for i := range 50 {
		mustSet(t, g.nodes[1], "k", fmt.Sprint(i))
	}
	mustSet(t, g.nodes[1], "last", "entry") // the commit of the one before is saved with it at the latest
	g.stopAll()
	n := g.start(1)
	wantValue(t, n, "k", "49")
	if err := n.Ready(); err == nil {
		t.Error("ready without the others")
	}
}

func TestNoQuorum(t *testing.T) {
	g := startGroup(t, 3, nil)
	n := g.nodes[1]
	mustSet(t, n, "k", "v")
	g.stop(2)
	g.stop(3)
	poll(t, "the leader is missed", func() error {
		if id := n.Status().LeaderID; id != 0 {
			return fmt.Errorf("leader %d", id)
		}
		return nil
	})
	const limit = 300 * time.Millisecond
	for name, call := range map[string]func(context.Context) error{
		"set":     func(ctx context.Context) error { return n.Set(ctx, []byte("k"), []byte("w")) },
		"delete":  func(ctx context.Context) error { return n.Delete(ctx, []byte("k")) },
		"barrier": func(ctx context.Context) error { return n.Barrier(ctx) },
	} {
		begin := time.Now()
		err := call(within(t, limit))
		took := time.Since(begin)
		e := wantCode(t, err, CodeUnavailable)
		if name != "barrier" && e.DetailText != "not applied" {
			t.Errorf("%s: detail %q", name, e.DetailText)
		}
		if took < limit || took > limit+time.Second {
			t.Errorf("%s: answered after %v", name, took)
		}
	}
	wantValue(t, n, "k", "v")
	poll(t, "the others are named", func() error {
		e := wantCode(t, n.Set(within(t, limit), []byte("k"), []byte("w")), CodeUnavailable)
		for _, id := range []uint64{2, 3} {
			if !strings.Contains(e.HintText, fmt.Sprintf("%d (%s)", id, g.configs[id].RaftAddress)) {
				return fmt.Errorf("hint %q", e.HintText)
			}
		}
		return nil
	})
	if err := n.Ready(); err == nil {
		t.Error("ready without a leader")
	}
	cancelled, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if e := wantCode(t, n.Set(cancelled, []byte("k"), []byte("w")), CodeCancelled); e.DetailText != "not applied" {
		t.Errorf("cancelled: detail %q", e.DetailText)
	}
	g.startAll()
	mustSet(t, n, "k", "again")
	if got := g.agree()["k"]; got != "again" {
		t.Errorf("k is %q", got)
	}
}

// TestOutcomeUnknown: a leader that has lost the others takes a set into its log
// and cannot say what becomes of it.
func TestOutcomeUnknown(t *testing.T) {
	g := startGroup(t, 3, func(c *Config) { c.ElectionRTT = 200 }) // 2 s in which it goes on
	leader := g.leader()
	n := g.nodes[leader]
	for id := range g.configs {
		if id != leader {
			g.stop(id)
		}
	}
	e := wantCode(t, n.Set(within(t, 200*time.Millisecond), []byte("k"), []byte("v")), CodeOutcomeUnknown)
	if !strings.Contains(e.DetailText, "may have been applied") {
		t.Errorf("detail %q", e.DetailText)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	e = wantCode(t, n.Set(cancelled, []byte("k"), []byte("v")), CodeOutcomeUnknown)
	if !strings.Contains(e.DetailText, "cancelled") {
		t.Errorf("detail %q", e.DetailText)
	}
}

func TestCloseEndsCalls(t *testing.T) {
	g := startGroup(t, 3, nil)
	n := g.nodes[1]
	g.stop(2)
	g.stop(3)
	poll(t, "the leader is missed", func() error {
		if id := n.Status().LeaderID; id != 0 {
			return fmt.Errorf("leader %d", id)
		}
		return nil
	})
	errs := make(chan error, 2)
	go func() { errs <- n.Set(context.Background(), []byte("k"), []byte("v")) }()
	go func() { errs <- n.Barrier(context.Background()) }()
	poll(t, "a set under way", func() error {
		if n.Status().InFlight == 0 {
			return fmt.Errorf("none")
		}
		return nil
	})
	g.stop(1)
	wantCode(t, <-errs, CodeUnavailable)
	wantCode(t, <-errs, CodeUnavailable)
	wantCode(t, n.Set(context.Background(), []byte("k"), []byte("v")), CodeUnavailable)
	if err := n.Ready(); err == nil {
		t.Error("a closed node is ready")
	}
	n.Get(nil, []byte("k")) // must not crash
	if err := n.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestTooMuchInFlight(t *testing.T) {
	g := startGroup(t, 3, func(c *Config) { c.MaxInFlight = 4 })
	n := g.nodes[1]
	g.stop(2)
	g.stop(3)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { n.Set(ctx, []byte("k"), []byte("v")) })
	}
	poll(t, "four sets under way", func() error {
		if got := n.Status().InFlight; got != 4 {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	wantCode(t, n.Set(ctx, []byte("k"), []byte("v")), CodeTooMuchInFlight)
	cancel()
	wg.Wait()
	if got := n.Status().InFlight; got != 0 {
		t.Errorf("%d in flight after all have ended", got)
	}
}

func firstIndex(t *testing.T, n *Node) uint64 {
	log, err := n.host.GetLogReader(shardID)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := log.GetRange()
	return first
}

// TestSnapshotCatchUp: a member that was away while the others dropped the log
// that it lacks gets a snapshot, and answers for its own commands in it.
func TestSnapshotCatchUp(t *testing.T) {
	g := startGroup(t, 3, func(c *Config) { c.SnapshotEntries, c.CompactionOverhead = 100, 10 })
	away := g.leader()%3 + 1
	mustSet(t, g.nodes[away], "mine", "1")
	g.stop(away)
	n := g.nodes[g.leader()]
	for i := range 450 {
		mustSet(t, n, fmt.Sprintf("k%d", i%50), fmt.Sprint(i))
	}
	for id := range g.nodes { // nobody has the entries any more that the one away lacks
		poll(t, "log compaction", func() error {
			if first := firstIndex(t, g.nodes[id]); first < 100 {
				return fmt.Errorf("the log of %d begins at %d", id, first)
			}
			return nil
		})
	}
	back := g.start(away)
	g.awaitReady()
	content := g.agree()
	if len(content) != 51 || content["k49"] != "449" || content["mine"] != "1" {
		t.Errorf("%d keys, k49 = %q, mine = %q", len(content), content["k49"], content["mine"])
	}
	mustSet(t, back, "mine", "2")
	g.stopAll() // every one restarts from its own snapshot and the log behind it
	g.startAll()
	if got := g.agree(); len(got) != 51 || got["mine"] != "2" {
		t.Errorf("after a restart: %d keys, mine = %q", len(got), got["mine"])
	}
}
