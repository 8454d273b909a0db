package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// demoRun is a demo of the real program.
type demoRun struct {
	cmd  *exec.Cmd
	out  *safeBuffer
	tmp  string
	shm  []string // directories of the nodes' segments
	pids []int    // of all processes under it, once it was ready
	urls []string
	done chan error
}

// safeBuffer is written by a process and read by a test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String is what was written so far.
func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var (
	psqlLine = regexp.MustCompile(`node \d:  psql -h (\S+) -p (\d+) -U postgres postgres\n`)
	shmFlag  = regexp.MustCompile(`--shm-path\x00([^\x00]+)`)
)

// startDemo runs the demo as the given user and waits until it says that it is ready.
func startDemo(t *testing.T, nodes int, uid int) *demoRun {
	t.Helper()
	slow(t)
	tmp, err := os.MkdirTemp("/tmp", "rpdemo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := errors.Join(os.Chmod(tmp, 0o711), os.Chown(tmp, uid, -1)); err != nil {
		t.Fatal(err)
	}
	d := &demoRun{cmd: exec.Command(binary, "demo", "--nodes", strconv.Itoa(nodes)), out: &safeBuffer{}, tmp: tmp, done: make(chan error, 1)}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	d.cmd.Dir = "/"
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	if uid != os.Geteuid() {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	waitFor(t, "the demo", func() error {
		select {
		case err := <-d.done:
			t.Fatalf("the demo ended: %v\n%s", err, d.out)
		default:
		}
		if !strings.Contains(d.out.String(), "Ctrl-C ends") {
			return errors.New(d.out.String())
		}
		return nil
	})
	for _, m := range psqlLine.FindAllStringSubmatch(d.out.String(), -1) {
		d.urls = append(d.urls, pgtest.URL(m[1]+":"+m[2], pgtest.DefaultPassword))
	}
	d.pids = descendants(d.cmd.Process.Pid)
	for _, pid := range d.pids {
		cmdline, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") // it may have ended
		if m := shmFlag.FindSubmatch(cmdline); m != nil {
			d.shm = append(d.shm, filepath.Dir(string(m[1])))
		}
	}
	if len(d.urls) != nodes || len(d.shm) != nodes || len(d.pids) < 2*nodes {
		t.Fatalf("%d psql lines, segments %q, processes %d\n%s", len(d.urls), d.shm, d.pids, d.out)
	}
	return d
}

// stat reads the fields behind the name in /proc/PID/stat: state, parent, …; nil where there is no such process.
func stat(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// descendants are all processes under pid.
func descendants(pid int) []int {
	parents := map[int]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, e := range entries {
		if id, err := strconv.Atoi(filepath.Base(e)); err == nil {
			if f := stat(id); len(f) > 1 {
				parents[id], _ = strconv.Atoi(f[1])
			}
		}
	}
	var all []int
	for id := range parents {
		for p := parents[id]; p > 1; p = parents[p] {
			if p == pid {
				all = append(all, id)
				break
			}
		}
	}
	return all
}

// end waits for the end of the demo and gives its exit code.
func (d *demoRun) end(t *testing.T) int {
	t.Helper()
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		t.Fatalf("the demo does not end\n%s", d.out)
		return -1
	}
}

// noProcessLeft waits until all processes of the demo are gone. Those whose parent was killed take a moment.
func (d *demoRun) noProcessLeft(t *testing.T) {
	t.Helper()
	waitFor(t, "the end of all processes", func() error {
		for _, pid := range d.pids {
			if f := stat(pid); f != nil && f[0] != "Z" {
				return errors.New("process " + strconv.Itoa(pid) + " is alive")
			}
		}
		return nil
	})
}

// nothingLeft looks for files and processes.
func (d *demoRun) nothingLeft(t *testing.T) {
	t.Helper()
	for _, pid := range d.pids {
		if f := stat(pid); f != nil && f[0] != "Z" {
			t.Errorf("process %d is alive", pid)
		}
	}
	if left, err := os.ReadDir(d.tmp); err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v, %v", d.tmp, left, err)
	}
	for _, dir := range d.shm {
		for _, path := range []string{dir, filepath.Dir(dir)} {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left in shared memory: %s", path)
			}
		}
	}
}

func TestDemo(t *testing.T) {
	users := map[string]int{"as this user": os.Geteuid()}
	if os.Geteuid() == 0 {
		users["as an ordinary user"] = 65534
	}
	for name, uid := range users {
		t.Run(name, func(t *testing.T) {
			d := startDemo(t, 3, uid)
			if out := d.out.String(); !strings.Contains(out, "Ready: 3 nodes. Node ") || !strings.Contains(out, "raftable('greeting', 'hello')") {
				t.Errorf("it says:\n%s", out)
			}
			mustPsql(t, d.urls[0], "select raftable('greeting', 'hello')")
			for _, url := range d.urls {
				waitForOutput(t, url, "select raftable('greeting')", "hello")
				waitForOutput(t, url, "select * from raftable()", "greeting|hello")
			}
			if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if code := d.end(t); code != 0 {
				t.Errorf("exit code %d\n%s", code, d.out)
			}
			d.nothingLeft(t)
		})
	}
}

// TestDemoEndsWithItsParts kills one process of a demo, which then ends as a whole and says why.
func TestDemoEndsWithItsParts(t *testing.T) {
	for _, tc := range []struct{ name, program, says string }{
		{"node", "raftproxy", "node 1 (process "},
		{"server", "postgres", "PostgreSQL of node 1 has ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDemo(t, 1, os.Geteuid())
			victim := 0
			for _, pid := range d.pids {
				comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
				// Of the server the postmaster, whose parent is the demo itself.
				if f := stat(pid); len(f) > 1 && f[1] == strconv.Itoa(d.cmd.Process.Pid) && strings.TrimSpace(string(comm)) == tc.program {
					victim = pid
				}
			}
			if victim == 0 {
				t.Fatalf("no %s among %d", tc.program, d.pids)
			}
			if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if code := d.end(t); code != 1 || !strings.Contains(d.out.String(), tc.says) {
				t.Errorf("exit code %d\n%s", code, d.out)
			}
			d.noProcessLeft(t)
			d.nothingLeft(t)
		})
	}
}

// TestKilledDemoLeavesNoProcess kills the demo itself: the kernel ends what it started.
func TestKilledDemoLeavesNoProcess(t *testing.T) {
	d := startDemo(t, 1, os.Geteuid())
	defer func() {
		for _, dir := range d.shm {
			_ = os.RemoveAll(filepath.Dir(dir))
		}
	}()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.end(t)
	d.noProcessLeft(t)
}
