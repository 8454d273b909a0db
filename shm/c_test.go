package shm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// compileC builds testdata/creader.c with the C reader.
func compileC(t *testing.T, flags ...string) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	sources := []string{"c/raftable_shm.h", "c/raftable_shm.c", "testdata/creader.c"}
	for _, name := range sources {
		// Tells the go command that a cached result depends on the file.
		if _, err := os.Stat(name); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "creader")
	args := append([]string{"-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Ic", "-o", program}, flags...)
	args = append(args, sources[1:]...)
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

// dump is what "creader dump" should print of a segment.
func dump(path string) string {
	r, err := Open(path)
	switch {
	case errors.Is(err, ErrLayoutVersion):
		return "open: " + unix.EPROTONOSUPPORT.Error()
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrNotSegment):
		return "open: " + unix.EBADMSG.Error()
	case err != nil:
		return err.Error()
	}
	defer r.Close()
	var b strings.Builder
	p, err := r.Picture()
	if err == nil {
		h := p.m.hdr
		fmt.Fprintf(&b, "generation %d applied %d hash %016x keys %d bytes %d writer %d heartbeat %d\n",
			h.generation, p.Index(), p.StateHash(), p.Len(), p.Bytes(), h.writerPID.Load(), h.heartbeat.Load())
	} else {
		m := r.m.Load()
		p = &Picture{m, counters{applied: m.hdr.applied.Load()}}
		fmt.Fprintf(&b, "stat: %s\n", unix.EBADMSG.Error())
	}
	for k, v := range p.Unordered() {
		fmt.Fprintf(&b, "%x=%x", k, v)
		if got, ok := p.Get(k); !ok || !bytes.Equal(got, v) {
			b.WriteString(" but get differs")
		}
		b.WriteByte('\n')
	}
	return strings.TrimSpace(b.String())
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
		if got, want := strings.TrimSpace(runC(t, program, "dump", path)), dump(path); got != want {
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
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "bank", w.o.Path)
	var out lockedBuffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the C reader is there", func() bool { return out.String() != "" })
	for range 5000 {
		if err := b.transfer(); err != nil {
			t.Error(err)
			break
		}
	}
	mustSet(t, w, b.index+1, "end", string(balance(0, b.rng)))
	w.Commit(b.index + 1)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}

// lockedBuffer is what a command prints, to be read while it runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestCDamagedSegments compares the C reader, under sanitizers, with ours on
// damaged segments.
func TestCDamagedSegments(t *testing.T) {
	program := compileC(t, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
	segments := readCorpus(t)
	if len(segments) < 10 {
		t.Errorf("only %d segments in the corpus", len(segments))
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 1500 {
		data := damaged(golden(t), rng)
		if i%10 == 0 {
			data = data[:rng.IntN(len(data))]
		}
		segments = append(segments, data)
	}
	dir, args := t.TempDir(), []string{"dump"}
	var want strings.Builder
	for i, data := range segments {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
		fmt.Fprintln(&want, dump(path))
	}
	got, expected := strings.Split(runC(t, program, args...), "\n"), strings.Split(want.String(), "\n")
	for i := range min(len(got), len(expected)) {
		if !strings.EqualFold(got[i], expected[i]) { // strerror and Go differ in capitals
			t.Fatalf("C reads\n%s\nGo reads\n%s", got[i], expected[i])
		}
	}
	if len(got) != len(expected) {
		t.Errorf("C prints %d lines, Go %d", len(got), len(expected))
	}
	for _, sign := range []string{"generation", "open:", "stat:"} {
		if !strings.Contains(want.String(), sign) {
			t.Errorf("no segment shows %q", sign)
		}
	}
}
