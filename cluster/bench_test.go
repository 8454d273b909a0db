package cluster

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/shm"
)

// BenchmarkSet is a set on three nodes in this process, with the default timing:
// from a node that follows, so that every set crosses the network twice.
func BenchmarkSet(b *testing.B) {
	for _, clients := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			g := startGroup(b, 3, func(c *Config) { c.RTT = DefaultRTT })
			benchmarkSet(b, g.nodes[g.leader()%3+1], clients)
		})
	}
}

func benchmarkSet(b *testing.B, n *Node, clients int) {
	value := bytes.Repeat([]byte("v"), 100)
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			var mine []time.Duration
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					break
				}
				begin := time.Now()
				if err := n.Set(context.Background(), fmt.Appendf(nil, "key%d", i%1000), value); err != nil {
					b.Error(describe(err))
					break
				}
				mine = append(mine, time.Since(begin))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "sets/s")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkManyKeys is how long one client takes to set 10,000 keys, from a node
// that follows: all in one call, and one after the other.
func BenchmarkManyKeys(b *testing.B) {
	keys, values := pairs("key", 10_000)
	for i := range values {
		values[i] = bytes.Repeat([]byte("v"), 100)
	}
	run := func(name string, setAll func(n *Node) error) {
		b.Run(name, func(b *testing.B) {
			g := startGroup(b, 3, func(c *Config) { c.RTT = DefaultRTT })
			n := g.nodes[g.leader()%3+1]
			b.ReportAllocs()
			for b.Loop() {
				if err := setAll(n); err != nil {
					b.Fatal(describe(err))
				}
			}
			b.ReportMetric(float64(b.N*len(keys))/b.Elapsed().Seconds(), "keys/s")
		})
	}
	run("SetAll", func(n *Node) error {
		_, err := n.SetAll(context.Background(), keys, values)
		return err
	})
	run("Set", func(n *Node) error {
		for i := range keys {
			if err := n.Set(context.Background(), keys[i], values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func BenchmarkBarrier(b *testing.B) {
	g := startGroup(b, 3, func(c *Config) { c.RTT = DefaultRTT })
	n := g.nodes[g.leader()%3+1]
	b.ReportAllocs()
	for b.Loop() {
		if err := n.Barrier(context.Background()); err != nil {
			b.Fatal(describe(err))
		}
	}
}

func BenchmarkGet(b *testing.B) {
	g := startGroup(b, 1, nil)
	n := g.nodes[1]
	mustSet(b, n, "key", strings.Repeat("v", 100))
	key, buf := []byte("key"), make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		n.Get(buf, key)
	}
}

// BenchmarkFailover is how long a set waits at worst when the leader stops.
func BenchmarkFailover(b *testing.B) {
	g := startGroup(b, 3, func(c *Config) { c.RTT = DefaultRTT })
	var worst time.Duration
	for b.Loop() {
		leader := g.leader()
		n := g.nodes[leader%3+1]
		mustSet(b, n, "k", "v")
		g.stop(leader)
		begin := time.Now()
		mustSet(b, n, "k", "v")
		worst = max(worst, time.Since(begin))
		g.start(leader)
		g.awaitReady()
	}
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
}

// BenchmarkSnapshot writes and restores a snapshot of 200,000 keys of 100 bytes.
func BenchmarkSnapshot(b *testing.B) {
	const keys = 200_000
	fill := func(path string) *stateMachine {
		w, err := shm.Create(shm.Options{Path: path})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { w.Close() })
		return newStateMachine(w, newSession(9, 1, 100), zerolog.Nop())
	}
	dir := b.TempDir()
	m := fill(filepath.Join(dir, "a"))
	value := bytes.Repeat([]byte("v"), 100)
	for i := range keys {
		if err := m.w.Set(uint64(i+1), fmt.Appendf(nil, "key%d", i), value); err != nil {
			b.Fatal(err)
		}
	}
	m.w.Commit(keys)
	var raw bytes.Buffer
	b.Run("save", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			raw.Reset()
			state, _ := m.PrepareSnapshot()
			if err := m.SaveSnapshot(state, &raw, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(raw.Len()))
	})
	b.Run("restore", func(b *testing.B) {
		into := fill(filepath.Join(dir, "b"))
		b.ReportAllocs()
		for b.Loop() {
			if err := into.RecoverFromSnapshot(bytes.NewReader(raw.Bytes()), nil, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(raw.Len()))
	})
}
