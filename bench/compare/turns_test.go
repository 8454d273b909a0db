package main

import (
	"strings"
	"testing"
	"time"
)

// A worker counts what pgbench tells between the end of the warm-up and the last line, and only the time of its own turns.
func TestWorkerCounts(t *testing.T) {
	w := &worker{}
	tell := func(worked time.Duration, line string) {
		w.worked, w.told = worked, make(chan struct{})
		w.listen(strings.NewReader(line))
	}
	warm := time.Duration(*warmUp) * time.Second
	tell(0, "progress: 1700000000.000 s, 10.0 tps, lat 0.1 ms stddev 0.01, 0 failed\n")           // before the first turn
	tell(warm/2, "progress: 1700000002.000 s, 100.0 tps, lat 0.1 ms stddev 0.01, 0 failed\n")     // in the warm-up
	tell(warm-1, "pgbench (15.18)\nprogress: 1700000003.000 s, 100.0 tps, lat 0.1 ms stddev 0\n") // the last in it
	if w.enough() {
		t.Error("the warm-up counts")
	}
	tell(warm+time.Second, "progress: 1700000005.500 s, 400.0 tps, lat 0.1 ms stddev 0.01, 0 failed\n")
	tell(warm+time.Duration(*seconds)*time.Second, "progress: 1700000006.500 s, 500.0 tps, lat 0.1 ms stddev 0.01, 0 failed\n")
	if !w.enough() {
		t.Error("all that counts is not enough")
	}
	tps, cpu := w.result()
	if want := 1500 / (w.end.worked - w.begin.worked).Seconds(); tps != want || cpu != 0 {
		t.Errorf("%.1f transactions per second with %.1f µs, want %.1f and 0", tps, cpu, want)
	}
	if len(w.other) != 1 || w.other[0] != "pgbench (15.18)" {
		t.Errorf("other lines: %q", w.other)
	}
}
