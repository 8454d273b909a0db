package cluster

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
