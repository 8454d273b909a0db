package shm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// compileC builds testdata/creader.c with the C reader.
func compileC(t *testing.T, flags ...string) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	program := filepath.Join(t.TempDir(), "creader")
	args := append([]string{"-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Ic", "-o", program,
		"c/raftable_shm.c", "testdata/creader.c"}, flags...)
	if out, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

func runC(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// sortedLines makes the output of the C reader, which has no order, comparable.
func sortedLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// dump is what "creader dump" should print of a segment.
func dump(t *testing.T, path string) string {
	t.Helper()
	r := open(t, path)
	h := r.Header()
	p, err := r.Picture()
	if err != nil {
		t.Fatal(err)
	}
	heartbeat := int64(0)
	if !h.Heartbeat.IsZero() {
		heartbeat = h.Heartbeat.UnixNano()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "generation %d applied %d hash %016x keys %d bytes %d writer %d heartbeat %d\n",
		h.Generation, h.Applied, h.StateHash, h.Keys, h.Bytes, h.WriterPID, heartbeat)
	for k, v := range p.All() {
		fmt.Fprintf(&b, "%x=%x\n", k, v)
	}
	return sortedLines(b.String())
}

// TestCReadsTheSame compares the C reader with ours on the golden segment, which
// ties both to the same layout, and on a larger one.
func TestCReadsTheSame(t *testing.T) {
	program := compileC(t)
	w := create(t, small(t))
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range uint64(3000) {
		value := make([]byte, rng.IntN(50))
		for j := range value {
			value[j] = byte(rng.Uint32())
		}
		key := randomKey(rng) + fmt.Sprint(rng.IntN(300))
		if rng.IntN(4) == 0 {
			if _, err := w.Delete(i+1, []byte(key)); err != nil {
				t.Fatal(err)
			}
		} else {
			mustSet(t, w, i+1, key, string(value))
		}
		w.Commit(i) // the last one stays uncommitted
	}
	for _, path := range []string{goldenPath(), w.o.Path} {
		if got, want := sortedLines(runC(t, program, "dump", path)), dump(t, path); got != want {
			t.Errorf("%s: C reads\n%s\nGo reads\n%s", path, got, want)
		}
	}
}

// TestCReadsWhileWritten has the C reader check the bank while it is at work.
func TestCReadsWhileWritten(t *testing.T) {
	program := compileC(t)
	w := create(t, small(t))
	b, err := newBank(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "bank", w.o.Path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fscanln(out, new(string)) // "open"
	for range 5000 {
		if err := b.transfer(); err != nil {
			t.Error(err)
			break
		}
	}
	mustSet(t, w, b.index+1, "end", string(balance(0, b.rng)))
	w.Commit(b.index + 1)
	var verdict string
	fmt.Fscanf(out, "%s", &verdict)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, verdict)
	}
}

// TestCDamagedSegments runs the C reader under sanitizers over the segments that
// TestDamagedContent gives to ours.
func TestCDamagedSegments(t *testing.T) {
	program := compileC(t, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 6))
	args := []string{"dump"}
	for i := range 1500 {
		data := damaged(golden(t), rng)
		if i%10 == 0 {
			data = data[:rng.IntN(len(data))]
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out := runC(t, program, args...)
	for _, sign := range []string{"generation", "open:", "stat:"} {
		if !strings.Contains(out, sign) {
			t.Errorf("no segment shows %q", sign)
		}
	}
}
