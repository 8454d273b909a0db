package child

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	// Run as a parent that starts a sleeper, reports its pid and then dies without a word: see TestDiesWithItsParent.
	if file := os.Getenv("CHILD_TEST_PARENT"); file != "" {
		p, err := Start(exec.Command("sleep", "600"), syscall.SIGKILL)
		if err != nil {
			panic(err)
		}
		if err := os.WriteFile(file+".tmp", []byte(strconv.Itoa(p.Pid())), 0o600); err != nil {
			panic(err)
		}
		if err := os.Rename(file+".tmp", file); err != nil {
			panic(err)
		}
		select {}
	}
	os.Exit(m.Run())
}

// alive says whether pid is a process that is not a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fields[0] != "Z"
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestDiesWithItsParent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "CHILD_TEST_PARENT="+file)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	eventually(t, "the parent reports its child", func() bool {
		b, err := os.ReadFile(file)
		pid, _ = strconv.Atoi(string(b))
		return err == nil
	})
	if !alive(pid) {
		t.Fatalf("child %d is gone while its parent lives", pid)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	eventually(t, "the child of a killed parent ends", func() bool { return !alive(pid) })
}

func TestStop(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		grace        time.Duration
		killed       bool
	}{
		{"obeys", `echo ready; exec sleep 600`, time.Minute, false},
		{"ignores the signal", `trap "" TERM; echo ready; while :; do sleep 1; done`, 50 * time.Millisecond, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			cmd := exec.Command("sh", "-c", tc.script)
			cmd.Stdout = w
			p, err := Start(cmd, syscall.SIGKILL)
			_ = w.Close()
			if err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "ready\n" {
				t.Fatalf("read %q, %v", line, err)
			}
			if !p.Running() {
				t.Fatal("not running after it spoke")
			}
			err = p.Stop(syscall.SIGTERM, tc.grace)
			if (err != nil) != tc.killed {
				t.Fatalf("Stop: %v, want killed=%v", err, tc.killed)
			}
			if p.Running() || alive(p.Pid()) {
				t.Fatal("still there after Stop")
			}
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Fatalf("a signal to an ended process: %v", err)
			}
		})
	}
}

func TestExit(t *testing.T) {
	p, err := Start(exec.Command("sh", "-c", "exit 3"), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) {
		t.Fatalf("Wait: %v", err)
	}
	if p.ExitCode() != 3 {
		t.Fatalf("exit code %d", p.ExitCode())
	}
	if _, err := Start(exec.Command("/nonexistent/program"), syscall.SIGKILL); err == nil {
		t.Fatal("a program that is not there was started")
	}
}
