package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestCPUTime compares it with what the kernel says of a process that has ended.
func TestCPUTime(t *testing.T) {
	busy := exec.Command("sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	var used time.Duration
	for deadline := time.Now().Add(time.Minute); used < 100*time.Millisecond && time.Now().Before(deadline); {
		used = cpuTime(busy.Process.Pid)
	}
	_ = busy.Process.Kill()
	_ = busy.Wait()
	total := busy.ProcessState.UserTime() + busy.ProcessState.SystemTime()
	if used < 100*time.Millisecond || used > total+20*time.Millisecond {
		t.Errorf("%v of %v", used, total)
	}
	if used := cpuTime(0); used != 0 {
		t.Errorf("no process has used %v", used)
	}
	if used := cpuTime(os.Getpid()); used <= 0 {
		t.Errorf("this process has used %v", used)
	}
}
