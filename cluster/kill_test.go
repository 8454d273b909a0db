package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childEnv holds the settings of a member that this test binary runs as a
// process of its own: see runChild.
const childEnv = "RAFTPROXY_CLUSTER_TEST_CHILD"

// childRunEnv, if it is set, says how many keys a child sets in one call.
const childRunEnv = "RAFTPROXY_CLUSTER_TEST_RUN"

// runChild sets one key after the other, or many at a time, and prints each key,
// or what all of them begin with, that was acknowledged, until it is killed.
func runChild(settings string) {
	var cfg Config
	if err := json.Unmarshal([]byte(settings), &cfg); err != nil {
		panic(err)
	}
	n, err := Start(cfg)
	if err != nil {
		panic(err)
	}
	set := func(key string) error { return n.Set(context.Background(), []byte(key), []byte(key)) }
	if size, err := strconv.Atoi(os.Getenv(childRunEnv)); err == nil {
		set = func(key string) error {
			keys, values := pairs(key, size)
			_, err := n.SetAll(context.Background(), keys, values)
			return err
		}
	}
	const writers = 4
	var mu sync.Mutex
	for w := range writers {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d/%d", cfg.ReplicaID, n.data.id.Starts, w, i)
				if err := set(key); err != nil {
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
		for key := range runAndKill(t, g, 150, 0) {
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

// TestKillAllWithinRuns does so while many keys are set at a time.
func TestKillAllWithinRuns(t *testing.T) {
	const size = 2*manyOperations + 100
	g := newGroup(t, 3, func(c *Config) { c.SnapshotEntries, c.CompactionOverhead = 100, 20 })
	acknowledged := make(map[string]bool)
	for range 2 {
		for run := range runAndKill(t, g, 6, size) {
			acknowledged[run] = true
		}
	}
	g.startAll()
	content := g.agree()
	runs := make(map[string]bool) // of which there is anything
	for key := range content {
		runs[key[:strings.LastIndexByte(key, '/')]] = true
	}
	cut := 0
	for run := range acknowledged {
		if err := (&runOf{prefix: run, size: size, applied: size}).check(content); err != nil {
			t.Error("acknowledged:", err)
		}
	}
	for run := range runs {
		if acknowledged[run] {
			continue
		}
		applied := 0
		for content[fmt.Sprint(run, "/", applied)] != "" {
			applied++
		}
		if applied != size && applied%manyOperations != 0 {
			t.Errorf("%s: %d of %d are there", run, applied, size)
		}
		if err := (&runOf{prefix: run, size: size, applied: applied}).check(content); err != nil {
			t.Error(err)
		}
		cut++
	}
	t.Logf("%d runs acknowledged, %d begun without, %d keys", len(acknowledged), cut, len(content))
}

// runAndKill runs all members as processes, kills them when each has
// acknowledged some sets, and returns all that were. With run > 0 they set so
// many keys at a time, and each such run counts as one set.
func runAndKill(t *testing.T, g *group, each, run int) map[string]bool {
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
		if run > 0 {
			c.Env = append(c.Env, fmt.Sprint(childRunEnv, "=", run))
		}
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
