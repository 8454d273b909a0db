package shm

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
)

// benchDir is a directory in memory where there is one, as in production.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "raftproxy-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// filled makes a table of n keys with 100-byte values at index 1.
func filled(b *testing.B, n int) (*Writer, [][]byte) {
	w := create(b, Options{Path: benchDir(b) + "/table"})
	keys := make([][]byte, n)
	value := make([]byte, 100)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "app/config/%d", i)
		if err := w.Set(1, keys[i], value); err != nil {
			b.Fatal(err)
		}
	}
	w.Commit(1)
	return w, keys
}

const benchKeys = 100_000

func BenchmarkGetHit(b *testing.B) {
	w, keys := filled(b, benchKeys)
	r := open(b, w.o.Path)
	var dst []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var ok bool
		if dst, ok = r.Get(dst[:0], keys[i*7919%len(keys)]); !ok {
			b.Fatal("not found")
		}
	}
}

// TestGetDoesNotAllocate pins down what the benchmarks show.
func TestGetDoesNotAllocate(t *testing.T) {
	w := create(t, small(t))
	mustSet(t, w, 1, "key", "value")
	w.Commit(1)
	r, key, dst := open(t, w.o.Path), []byte("key"), make([]byte, 0, 100)
	if n := testing.AllocsPerRun(100, func() { r.Get(dst, key) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

// BenchmarkGetHot reads one key, as a feature flag would be.
func BenchmarkGetHot(b *testing.B) {
	w, keys := filled(b, 100)
	r := open(b, w.o.Path)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var ok bool
		if dst, ok = r.Get(dst[:0], keys[42]); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkGetMiss(b *testing.B) {
	w, _ := filled(b, benchKeys)
	r := open(b, w.o.Path)
	key := []byte("app/config/........")
	var dst []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(key[11:], uint64(i)<<32)
		if _, ok := r.Get(dst[:0], key); ok {
			b.Fatal("found")
		}
	}
}

// BenchmarkGetParallelWithWriter reads on all processors while another goroutine
// sets and commits without a pause, through generations.
func BenchmarkGetParallelWithWriter(b *testing.B) {
	w, keys := filled(b, benchKeys)
	r := open(b, w.o.Path)
	value := make([]byte, 100)
	var stop atomic.Bool
	done := make(chan uint64)
	go func() {
		index := uint64(1)
		for !stop.Load() {
			index++
			if err := w.Set(index, keys[index*7919%benchKeys], value); err != nil {
				b.Error(err)
				break
			}
			w.Commit(index)
		}
		done <- index
	}()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var dst []byte
		for i := 0; pb.Next(); i++ {
			var ok bool
			if dst, ok = r.Get(dst[:0], keys[i*7919%benchKeys]); !ok {
				b.Error("not found")
				return
			}
		}
	})
	b.StopTimer()
	stop.Store(true)
	sets := <-done
	b.ReportMetric(float64(sets)/b.Elapsed().Seconds(), "sets/s")
}

func BenchmarkSetCommit(b *testing.B) {
	w, keys := filled(b, benchKeys)
	value := make([]byte, 100)
	index := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		index++
		if err := w.Set(index, keys[index*7919%benchKeys], value); err != nil {
			b.Fatal(err)
		}
		w.Commit(index)
	}
	b.ReportMetric(float64(w.Stats().Generation), "generations")
}

// BenchmarkGrow moves all keys to the next generation: the longest that a set
// can take.
func BenchmarkGrow(b *testing.B) {
	w, _ := filled(b, benchKeys)
	b.ReportAllocs()
	for b.Loop() {
		next, err := w.grow(w.t, 0)
		if err == nil {
			err = w.switchTo(next)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPicture(b *testing.B) {
	w, _ := filled(b, benchKeys)
	b.ReportAllocs()
	for b.Loop() {
		w.Picture()
	}
}

func BenchmarkPictureAll(b *testing.B) {
	w, _ := filled(b, benchKeys)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range w.Picture().All() {
			n++
		}
		if n != benchKeys {
			b.Fatal(n)
		}
	}
}

func BenchmarkPictureUnordered(b *testing.B) {
	w, _ := filled(b, benchKeys)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range w.Picture().Unordered() {
			n++
		}
		if n != benchKeys {
			b.Fatal(n)
		}
	}
}
