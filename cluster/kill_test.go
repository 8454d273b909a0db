package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childEnv holds the settings of a member that this test binary runs as a
// process of its own: see runChild.
const childEnv = "RAFTPROXY_CLUSTER_TEST_CHILD"

// runChild sets one key after the other and prints each that was acknowledged,
// until it is killed.
func runChild(settings string) {
	var cfg Config
	if err := json.Unmarshal([]byte(settings), &cfg); err != nil {
		panic(err)
	}
	n, err := Start(cfg)
	if err != nil {
		panic(err)
	}
	const writers = 4
	var mu sync.Mutex
	for w := range writers {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d", cfg.ReplicaID, w, i)
				if err := n.Set(context.Background(), []byte(key), []byte(key)); err != nil {
					panic(describe(err))
				}
				mu.Lock()
				fmt.Println(key)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestKillAll kills every process of a group at once, again and again.
func TestKillAll(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.SnapshotEntries, c.CompactionOverhead = 300, 50 })
	acknowledged := make(map[string]bool)
	for range 2 {
		for key := range runAndKill(t, g, 150) {
			acknowledged[key] = true
		}
	}
	g.startAll()
	content := g.agree()
	missing := 0
	for key := range acknowledged {
		if content[key] != key {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged sets are missing", missing, len(acknowledged))
	}
	t.Logf("%d sets acknowledged, %d keys", len(acknowledged), len(content))
}

// runAndKill runs all members as processes, kills them when each has
// acknowledged some sets, and returns all that were.
func runAndKill(t *testing.T, g *group, each int) map[string]bool {
	t.Helper()
	var mu sync.Mutex
	keys := make(map[string]bool)
	var enough, done sync.WaitGroup
	var children []*exec.Cmd
	defer func() {
		for _, c := range children {
			c.Process.Kill()
		}
		done.Wait()
		for _, c := range children {
			c.Wait()
		}
	}()
	for _, cfg := range g.configs {
		settings, err := json.Marshal(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childEnv+"="+string(settings))
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
		enough.Add(1)
		done.Go(func() {
			lines := bufio.NewScanner(out)
			count := 0
			for lines.Scan() {
				mu.Lock()
				keys[lines.Text()] = true
				mu.Unlock()
				if count++; count == each {
					enough.Done()
				}
			}
			if count < each {
				enough.Done()
			}
		})
	}
	ready := make(chan struct{})
	go func() { enough.Wait(); close(ready) }()
	select {
	case <-ready:
	case <-time.After(60 * time.Second):
		t.Error("no sets in time")
	}
	for _, c := range children {
		c.Process.Kill()
	}
	done.Wait()
	if len(keys) < each*len(children) {
		t.Errorf("only %d sets were acknowledged before the kill", len(keys))
	}
	return keys
}
