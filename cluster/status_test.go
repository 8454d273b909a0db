package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/rs/zerolog"
)

func TestStatusJSON(t *testing.T) {
	no, lag := false, uint64(3)
	raw, err := json.Marshal(Status{CommitLag: &lag, Members: []MemberStatus{{ID: 2, Address: "b:1", Reachable: &no}, {ID: 3}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"replica_id":0,"raft_address":"","leader_id":0,"term":0,"applied_index":0,"commit_index":0,"commit_lag":3,` +
		`"keys":0,"bytes":0,"quota":0,"in_flight":0,"disk_free":0,"state_hash":"","generation":0,"shm_path":"",` +
		`"members":[{"id":2,"address":"b:1","reachable":false,"self":false},{"id":3,"address":"","reachable":null,"self":false}],` +
		`"ready":false,"ready_reason":""}`
	if string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

// TestReady goes through the reasons not to be ready.
func TestReady(t *testing.T) {
	n := &Node{closing: make(chan struct{}), events: newRaftEvents(), fsm: newStateMachine(nil, nil, zerolog.Nop())}
	n.data = &dataDir{id: identity{Members: map[uint64]string{1: "a:1", 2: "b:1"}}}
	n.cfg.ReplicaID = 1
	want := func(words string) {
		t.Helper()
		err := n.Ready()
		if words == "" && err == nil {
			return
		}
		if words == "" || err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v, want %q", err, words)
		}
	}
	want("no leader is known")
	n.events.ConnectionFailed(raftio.ConnectionInfo{Address: "b:1"})
	want("2 (b:1)")
	n.events.LeaderUpdated(raftio.LeaderInfo{LeaderID: 2, Term: 1})
	want("not caught up")
	n.caughtUp.Store(true)
	want("")
	n.events.LeaderUpdated(raftio.LeaderInfo{LeaderID: 0, Term: 2})
	want("no leader is known")
	n.events.LeaderUpdated(raftio.LeaderInfo{LeaderID: 1, Term: 3})
	n.fsm.halt(errors.New("broken"))
	want("halted: broken")
	close(n.closing)
	want("closed")
}

func TestLeadershipChange(t *testing.T) {
	e := newRaftEvents()
	first := e.leader.Load()
	e.LeaderUpdated(raftio.LeaderInfo{})
	if e.leader.Load() != first {
		t.Error("nothing has changed")
	}
	e.LeaderUpdated(raftio.LeaderInfo{LeaderID: 1, Term: 2})
	<-first.changed
	second := e.leader.Load()
	e.LeaderUpdated(raftio.LeaderInfo{LeaderID: 1, Term: 3}) // the same one, but its log may have been cut
	<-second.changed
	if l := e.leader.Load(); l.id != 1 || l.term != 3 {
		t.Errorf("leader %d in term %d", l.id, l.term)
	}
}

func TestErrorFields(t *testing.T) {
	cause := errors.New("cause")
	var err error = &Error{Code: "55000", Message: "m", DetailText: "d", HintText: "h", Err: cause}
	var fields interface {
		SQLState() string
		Detail() string
		Hint() string
	}
	if !errors.As(fmt.Errorf("wrapped: %w", err), &fields) || fields.SQLState() != "55000" || fields.Detail() != "d" ||
		fields.Hint() != "h" || err.Error() != "m" || !errors.Is(err, cause) {
		t.Errorf("got %+v", err)
	}
}

// TestDiskFull: with a full disk this node takes no sets; the others go on.
func TestDiskFull(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 40)
	g := startGroup(t, 3, func(c *Config) {
		if c.ReplicaID == 1 {
			c.test.freeSpace = func() (uint64, error) { return free.Load(), nil }
		}
	})
	mustSet(t, g.nodes[1], "k", "1")
	full := func(bytes uint64) {
		free.Store(bytes)
		poll(t, "the disk is looked at", func() error {
			if got := g.nodes[1].Status().DiskFree; got != bytes {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	full(freeForSets - 1)
	e := wantCode(t, g.nodes[1].Set(within(t, time.Second), []byte("k"), []byte("2")), CodeDiskFull)
	if e.DetailText != "not applied" {
		t.Errorf("detail %q", e.DetailText)
	}
	full(0) // not even the log is written
	mustSet(t, g.nodes[2], "k", "3")
	mustSet(t, g.nodes[3], "k", "4")
	full(1 << 40)
	mustSet(t, g.nodes[1], "k", "5")
	if got := g.agree()["k"]; got != "5" {
		t.Errorf("k is %q", got)
	}
}

func TestRaftLogger(t *testing.T) {
	var out bytes.Buffer
	target := zerolog.New(&out).Level(zerolog.InfoLevel)
	l := &raftLogger{pkg: "raft", target: func() *zerolog.Logger { return &target }, last: make(map[string]*repeated)}
	l.Debugf("debug %d", 1)
	l.Infof("info %d", 1)
	l.Warningf("warning %d\n", 1)
	l.Warningf("warning %d\n", 2) // too soon
	l.Errorf("error %d", 1)
	l.last["warning %d\n"].written = time.Now().Add(-repeatInterval)
	l.Warningf("warning %d\n", 3)
	func() {
		defer func() {
			if err, ok := recover().(error); !ok || err.Error() != "panic 1" {
				t.Errorf("panicked with %v", err)
			}
		}()
		l.Panicf("panic %d", 1)
	}()
	want := `{"level":"info","package":"raft","message":"warning 1"}
{"level":"warn","package":"raft","message":"error 1"}
{"level":"info","held_back":1,"package":"raft","message":"warning 3"}
{"level":"error","package":"raft","message":"panic 1"}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestConfigDefaults(t *testing.T) {
	c := Config{ReplicaID: 1, RaftAddress: "127.0.0.1:7001", ListenAddress: ":7001", DataDir: "relative"}
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	if c.ListenAddress != "0.0.0.0:7001" || !strings.HasPrefix(c.DataDir, "/") || !strings.HasPrefix(c.ShmPath, "/dev/shm/raftproxy-") ||
		c.MaxKeyLength != 64 || c.MaxValueSize != 1<<20 || c.Quota != 256<<20 || c.ElectionRTT != 10 {
		t.Errorf("got %+v", c)
	}
	other := Config{ReplicaID: 1, RaftAddress: "127.0.0.1:7001", DataDir: "another"}
	if err := other.complete(); err != nil || other.ShmPath == c.ShmPath {
		t.Errorf("two directories share %s (%v)", c.ShmPath, err)
	}
}

// TestGetAllocatesNothing holds the promise that the proxy's hot path rests on.
func TestGetAllocatesNothing(t *testing.T) {
	g := startGroup(t, 1, nil)
	n := g.nodes[1]
	mustSet(t, n, "k", "value")
	key, buf := []byte("k"), make([]byte, 0, 64)
	if allocs := testing.AllocsPerRun(100, func() {
		if out, ok := n.Get(buf, key); !ok || len(out) != 5 {
			t.Error("not found")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestListIsOnePicture: a list under way does not see what is set meanwhile.
func TestListIsOnePicture(t *testing.T) {
	g := startGroup(t, 1, nil)
	n := g.nodes[1]
	for i := range 10 {
		mustSet(t, n, fmt.Sprint("k", i), "before")
	}
	got := make(map[string]string)
	for k, v := range n.List {
		got[string(k)] = string(v)
		if len(got) == 1 {
			mustSet(t, n, "k5", "after")
			mustSet(t, n, "k55", "after")
			if err := n.Delete(within(t, 10*time.Second), []byte("k9")); err != nil {
				t.Fatal(describe(err))
			}
		}
	}
	want := make(map[string]string)
	for i := range 10 {
		want[fmt.Sprint("k", i)] = "before"
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	calls := 0
	n.List(func(_, _ []byte) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("%d calls after yield returned false", calls)
	}
}
