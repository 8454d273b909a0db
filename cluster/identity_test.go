package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// readIdentity reads what is on disk.
func readIdentity(t *testing.T, cfg Config) identity {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(cfg.DataDir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	var id identity
	if err := json.Unmarshal(raw, &id); err != nil {
		t.Fatal(err)
	}
	return id
}

// wantRefusal starts the node twice and wants the same error both times: a
// refusal must not mend or break anything.
func wantRefusal(t *testing.T, cfg Config, words ...string) {
	t.Helper()
	for range 2 {
		n, err := Start(cfg)
		if err == nil {
			n.Close()
			t.Fatalf("started, want an error with %q", words)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("error %q lacks %q", err, w)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q has more than one line", err)
		}
	}
}

// single is one member that has run and set some keys, and is stopped.
func single(t *testing.T, change func(*Config)) *group {
	t.Helper()
	g := startGroup(t, 1, change)
	for i := range 50 {
		mustSet(t, g.nodes[1], fmt.Sprint("k", i), strings.Repeat("v", 1000))
	}
	return g
}

func TestSettingsRefused(t *testing.T) {
	g := newGroup(t, 3, nil)
	for name, tc := range map[string]struct {
		change func(*Config)
		words  string
	}{
		"no id":              {func(c *Config) { c.ReplicaID = 0 }, "replica id"},
		"no directory":       {func(c *Config) { c.DataDir = "" }, "data directory"},
		"no address":         {func(c *Config) { c.RaftAddress = "" }, "host:port"},
		"no port":            {func(c *Config) { c.RaftAddress = "127.0.0.1:0" }, "no port"},
		"IPv6":               {func(c *Config) { c.RaftAddress = "[::1]:7001" }, "IPv6"},
		"unknown host":       {func(c *Config) { c.ListenAddress = "nowhere.invalid:7001" }, "does not resolve"},
		"not a member":       {func(c *Config) { c.ReplicaID = 7 }, "lacks this one"},
		"another address":    {func(c *Config) { c.Members[1] = "127.0.0.1:7001" }, "its Raft address is"},
		"address twice":      {func(c *Config) { c.Members[3] = c.Members[2] }, "members 2 and 3 have the same address"},
		"value size":         {func(c *Config) { c.MaxValueSize = HardMaxValueSize + 1 }, "value size"},
		"in flight":          {func(c *Config) { c.MaxInFlight = 1 << 20 }, "in flight"},
		"tick":               {func(c *Config) { c.RTT = 1500 * time.Microsecond }, "milliseconds"},
		"heartbeat too slow": {func(c *Config) { c.HeartbeatRTT = 20 }, "heartbeats"},
		"full disk":          {func(c *Config) { c.test.freeSpace = func() (uint64, error) { return 10 << 20, nil } }, "10 MiB are free"},
		"shared memory":      {func(c *Config) { c.ShmPath = filepath.Join(c.DataDir, identityFile, "x") }, "shared-memory"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := g.configs[1]
			cfg.DataDir = t.TempDir()
			cfg.Members = maps.Clone(cfg.Members)
			tc.change(&cfg)
			wantRefusal(t, cfg, tc.words)
		})
	}
}

func TestIdentityRefused(t *testing.T) {
	g := single(t, nil)
	cfg := g.configs[1]
	second := cfg
	second.ShmPath += "2"
	wantRefusal(t, second, "in use by another process")
	g.stop(1)

	other := cfg
	other.ReplicaID = 2
	wantRefusal(t, other, "belongs to replica 1, not to replica 2")
	moved := cfg
	moved.RaftAddress = freeAddress(t)
	wantRefusal(t, moved, "cannot change")

	name := filepath.Join(cfg.DataDir, identityFile)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{
		"is damaged": "{", "damaged": "{}", "format version 2": strings.Replace(string(good), `"format_version": 1`, `"format_version": 2`, 1),
	} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, cfg, what)
	}
	os.Remove(name)
	wantRefusal(t, cfg, "no identity.json")
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	starts := readIdentity(t, cfg).Starts
	cfg.Members = nil // nobody asks for them any more
	g.configs[1] = cfg
	g.startAll()
	wantValue(t, g.nodes[1], "k49", strings.Repeat("v", 1000))
	if got := readIdentity(t, cfg).Starts; got != starts+1 {
		t.Errorf("start %d after %d", got, starts)
	}
}

// logFiles returns the log files that have something in them, oldest first.
func logFiles(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".log" {
			if info, err := d.Info(); err == nil && info.Size() > 0 {
				names = append(names, path)
			}
		}
		return nil
	})
	if len(names) == 0 {
		t.Fatal("no log files")
	}
	return names
}

func snapshotFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, raftDir, "*", "*", "*", "*", "*", "*.gbsnap"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no snapshots (%v)", err)
	}
	return names
}

// awaitSnapshot waits until the second snapshot of single is the only one, and
// the floor is up to date.
func awaitSnapshot(t *testing.T, n *Node, cfg Config) {
	t.Helper()
	poll(t, "the second snapshot, and the floor", func() error {
		ss, err := n.logs.GetSnapshot(shardID, 1)
		found, _ := filepath.Glob(filepath.Join(cfg.DataDir, raftDir, "*", "*", "*", "*", "snapshot-*"))
		if err != nil || ss.Index < 40 || len(found) != 1 {
			return fmt.Errorf("snapshots %q, the last at %d (%v)", found, ss.Index, err)
		}
		n.logs.mu.Lock()
		defer n.logs.mu.Unlock()
		if err := n.logs.raiseFloor(0); err != nil || n.floor.index < 50 {
			return fmt.Errorf("index %d (%v)", n.floor.index, err)
		}
		return nil
	})
}

func withDir(cfg Config, dir string) Config {
	cfg.DataDir = dir
	return cfg
}

// damages is what may happen to a data directory while nobody uses it.
var damages = []struct {
	name string
	do   func(t *testing.T, dir string) error
}{
	{"no Raft directory", func(_ *testing.T, dir string) error { return os.RemoveAll(filepath.Join(dir, raftDir)) }},
	{"empty Raft directory", func(_ *testing.T, dir string) error {
		os.RemoveAll(filepath.Join(dir, raftDir))
		return os.Mkdir(filepath.Join(dir, raftDir), 0o700)
	}},
	{"no log", func(_ *testing.T, dir string) error {
		found, err := filepath.Glob(filepath.Join(dir, raftDir, "*", "*", "tandb"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("found %q (%v)", found, err)
		}
		return os.RemoveAll(found[0])
	}},
	{"no log file", func(t *testing.T, dir string) error { return os.Remove(logFiles(t, dir)[0]) }},
	{"empty log file", func(t *testing.T, dir string) error { return os.Truncate(logFiles(t, dir)[0], 0) }},
	{"cut log file", func(t *testing.T, dir string) error { return cut(logFiles(t, dir)[0]) }},
	{"flipped bit at the end", func(t *testing.T, dir string) error {
		return flip(logFiles(t, dir)[0], func(size int) int { return size - 3000 })
	}},
	{damageToOld, func(t *testing.T, dir string) error {
		return flip(logFiles(t, dir)[0], func(size int) int { return size / 2 })
	}},
	{"no snapshot", func(t *testing.T, dir string) error { return os.Remove(snapshotFiles(t, dir)[0]) }},
	{"cut snapshot", func(t *testing.T, dir string) error { return cut(snapshotFiles(t, dir)[0]) }},
	{"flipped bit in the snapshot", func(t *testing.T, dir string) error {
		return flip(snapshotFiles(t, dir)[0], func(size int) int { return size / 2 })
	}},
}

// damageToOld hits entries that the snapshot covers. After a close nothing is
// missing then; after a kill the log is read from its beginning.
const damageToOld = "flipped bit in the middle"

func cut(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Truncate(name, info.Size()/2)
}

func flip(name string, where func(size int) int) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	raw[where(len(raw))] ^= 0x10
	return os.WriteFile(name, raw, 0o600)
}

// TestLogRefused: a log that lost something is never started with, whether it
// was closed or the process was killed.
func TestLogRefused(t *testing.T) {
	g := single(t, func(c *Config) { c.SnapshotEntries, c.CompactionOverhead = 20, 5 })
	cfg := g.configs[1]
	awaitSnapshot(t, g.nodes[1], cfg)
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(cfg.DataDir)); err != nil { // as kill -9 would leave it
		t.Fatal(err)
	}
	g.stop(1)
	wantAll50 := func(t *testing.T, dir string) {
		g.configs[1] = withDir(cfg, dir)
		g.startAll()
		if got := len(listed(g.nodes[1])); got != 50 {
			t.Errorf("%d keys, want 50", got)
		}
		g.stop(1)
	}
	for _, d := range damages {
		for from, source := range map[string]string{"closed": cfg.DataDir, "killed": killed} {
			t.Run(d.name+"/"+from, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
					t.Fatal(err)
				}
				if err := d.do(t, dir); err != nil {
					t.Fatal(err)
				}
				if d.name == damageToOld && from == "closed" {
					wantAll50(t, dir)
					return
				}
				wantRefusal(t, withDir(cfg, dir), "replace this member")
			})
		}
	}
	wantAll50(t, killed) // without damage both can be started
	wantAll50(t, cfg.DataDir)
}

// TestOtherHostAndPlace: a data directory comes to another host name and mount
// point, as that of a container does, with a snapshot that others need.
func TestOtherHostAndPlace(t *testing.T) {
	g := startGroup(t, 3, func(c *Config) { c.SnapshotEntries, c.CompactionOverhead = 50, 5 })
	for i := range 200 {
		mustSet(t, g.nodes[1], fmt.Sprint("k", i%20), fmt.Sprint(i))
	}
	want := g.agree()
	g.stopAll()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for id, cfg := range g.configs {
		moved := cfg
		moved.DataDir += "-moved"
		if err := os.Rename(cfg.DataDir, moved.DataDir); err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(moved.DataDir, raftDir)
		if err := os.Rename(filepath.Join(root, host), filepath.Join(root, "another-host")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "dragonboat.ds"), []byte("of another host"), 0o600); err != nil {
			t.Fatal(err)
		}
		g.configs[id] = moved
	}
	g.startAll()
	if got := g.agree(); !maps.Equal(got, want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	for id, n := range g.nodes {
		ss, err := n.logs.GetSnapshot(shardID, id)
		if err != nil || !strings.HasPrefix(ss.Filepath, g.configs[id].DataDir) {
			t.Errorf("snapshot of %d is looked for at %s (%v)", id, ss.Filepath, err)
		}
		if _, err := os.Stat(ss.Filepath); err != nil {
			t.Error(err)
		}
	}
	g.stopAll()
	root := filepath.Join(g.configs[1].DataDir, raftDir)
	if err := os.Mkdir(filepath.Join(root, "third-host"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, g.configs[1], "several host names")
}

func TestMarkStartedIsDurableFirst(t *testing.T) {
	g := newGroup(t, 1, nil)
	cfg := g.configs[1]
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if id := readIdentity(t, cfg); id.Started || id.Starts != 1 || id.ReplicaID != 1 {
		t.Errorf("identity before Raft: %+v", id)
	}
	d.close()
	// Killed before the log had anything: that start may be repeated.
	g.startAll()
	mustSet(t, g.nodes[1], "k", "v")
	if id := readIdentity(t, cfg); !id.Started || id.Starts != 2 {
		t.Errorf("identity after Raft: %+v", id)
	}
}

func TestWriteDurably(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, content := range []string{"longer content", "short"} {
		if err := writeDurably(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := writeDurably(filepath.Join(name, "x"), nil); err == nil || errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}

// TestNewerSnapshotRefused: a snapshot of a later version of the program stops
// the start with a clear error, and leaves everything as it is.
func TestNewerSnapshotRefused(t *testing.T) {
	g := single(t, func(c *Config) { c.SnapshotEntries, c.CompactionOverhead = 20, 5 })
	awaitSnapshot(t, g.nodes[1], g.configs[1])
	g.stop(1)
	name := snapshotFiles(t, g.configs[1].DataDir)[0]
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	body := raw[fileHeader : len(raw)-fileTail-crc32.Size]
	at := -1
	for applied := uint64(0); applied < 100; applied++ { // our header begins with these
		if i := bytes.Index(body, binary.LittleEndian.AppendUint64([]byte{snapshotVersion}, applied)); i >= 0 && applied > 10 {
			at = i
		}
	}
	if at < 0 {
		t.Fatal("no snapshot in the snapshot file")
	}
	body[at] = snapshotVersion + 1
	binary.BigEndian.PutUint32(raw[len(raw)-fileTail-crc32.Size:], crc32.ChecksumIEEE(body))
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, g.configs[1], "snapshot has format version 2, this program knows version 1")
	body[at] = snapshotVersion
	binary.BigEndian.PutUint32(raw[len(raw)-fileTail-crc32.Size:], crc32.ChecksumIEEE(body))
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	g.startAll()
	if got := len(listed(g.nodes[1])); got != 50 {
		t.Errorf("%d keys, want 50", got)
	}
}

func TestPortInUse(t *testing.T) {
	g := newGroup(t, 1, nil)
	l, err := net.Listen("tcp", g.configs[1].RaftAddress)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, g.configs[1], "address already in use")
	l.Close()
	g.startAll() // it was a first start, and still is
	mustSet(t, g.nodes[1], "k", "v")
}

// TestRestartsTakeNoRoom: what Tan reserves is given back.
func TestRestartsTakeNoRoom(t *testing.T) {
	g := newGroup(t, 1, nil)
	for range 4 {
		g.startAll()
		mustSet(t, g.nodes[1], "k", "v")
		g.stop(1)
	}
	g.startAll()
	var blocks int64
	for _, name := range logFiles(t, g.configs[1].DataDir) {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		blocks += st.Blocks
	}
	if got := blocks * 512; got > 70<<20 {
		t.Errorf("the log takes %d MiB", got>>20)
	}
}
