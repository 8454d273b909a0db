package shm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv names the role in which the test binary runs itself again.
const childEnv = "SHM_TEST_CHILD"

// children are the roles. Each gets the path of the segment, and reports a
// failure by returning it.
var children = map[string]func(path string) error{
	"bank":               childBank,
	"reader":             childReader,
	"half":               childHalf,
	"dies-before-rename": func(path string) error { return childDies(path, false) },
	"dies-after-rename":  func(path string) error { return childDies(path, true) },
	"tmpfs":              childTmpfs,
	"file-limit":         childFileLimit,
}

func TestMain(m *testing.M) {
	role, ok := children[os.Getenv(childEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	// The parent holds the other end of the standard input for as long as it lives.
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	if err := role(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is a running role.
type child struct {
	*exec.Cmd
	out *bufio.Reader
	err strings.Builder
}

func newChild(role, path string) *child {
	c := &child{Cmd: exec.Command(os.Args[0], path)}
	c.Env = append(os.Environ(), childEnv+"="+role)
	c.Stderr = &c.err
	if _, err := c.StdinPipe(); err != nil {
		panic(err)
	}
	return c
}

func startChild(t *testing.T, role, path string) *child {
	t.Helper()
	c := newChild(role, path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			c.kill()
		}
	})
	return c
}

// kill ends the child as a crash would, and waits for it.
func (c *child) kill() {
	c.Process.Kill()
	c.Wait()
}

// line waits for the child to print a line.
func (c *child) line(t *testing.T) string {
	t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.kill()
		t.Fatalf("%s: %v: %s", c.Args, err, c.err.String())
	}
	return strings.TrimSpace(s)
}

// wait waits for the child to end well.
func (c *child) wait(t *testing.T) {
	t.Helper()
	if err := c.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", c.Args, err, c.err.String())
	}
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out: ", what)
		}
	}
}

func childBank(path string) error {
	w, err := Create(Options{Path: path, ArenaBytes: 2048, Slots: 8})
	if err != nil {
		return err
	}
	b, err := newBank(w)
	for err == nil {
		err = b.transfer()
	}
	return err
}

// TestKilledWriters kills writers at arbitrary moments. A reader that was there
// from the start sees a whole index at any time, goes over to the segment of the
// next writer, and never sees a generation number fall.
func TestKilledWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	rng := rand.New(rand.NewPCG(3, 4))
	var r *Reader
	generation := uint64(0)
	for range 15 {
		c := startChild(t, "bank", path)
		if r == nil {
			eventually(t, "the first segment", func() bool {
				var err error
				r, err = Open(path)
				return err == nil
			})
		}
		eventually(t, "the new writer", func() bool { return r.Header().WriterPID == c.Process.Pid })
		last, target := uint64(0), rng.Uint64N(1000)
		for last <= target {
			var err error
			if last, err = checkBank(r, last); err != nil {
				t.Fatal(err)
			}
		}
		if h := r.Header(); h.Generation < generation {
			t.Fatalf("generation %d after %d", h.Generation, generation)
		} else {
			generation = h.Generation
		}
		c.kill()
		if _, err := checkBank(r, last); err != nil {
			t.Fatal("after the kill: ", err)
		}
	}
	w := create(t, Options{Path: path})
	if _, ok := r.Get(nil, account(0)); ok || w.Stats().Generation <= generation {
		t.Errorf("generation %d after %d, not empty", w.Stats().Generation, generation)
	}
	onlyFiles(t, path)
}

func childReader(path string) error {
	r, err := Open(path)
	if err != nil {
		return err
	}
	fmt.Println("open")
	for last := uint64(0); ; {
		if last, err = checkBank(r, last); err != nil {
			return err
		}
		if _, ok := r.Get(nil, []byte("end")); ok {
			return nil
		}
	}
}

// TestReaderInAnotherProcess has another process check the bank.
func TestReaderInAnotherProcess(t *testing.T) {
	w := create(t, small(t))
	b, err := newBank(w)
	if err != nil {
		t.Fatal(err)
	}
	c := startChild(t, "reader", w.o.Path)
	c.line(t)
	for range 5000 {
		if err := b.transfer(); err != nil {
			t.Fatal(err)
		}
	}
	// An account, so that the sum stays right.
	mustSet(t, w, b.index+1, "end", string(balance(0, b.rng)))
	w.Commit(b.index + 1)
	c.wait(t)
}

// childHalf dies, or rather waits to be killed, between Set and Commit.
func childHalf(path string) error {
	w, err := Create(Options{Path: path, ArenaBytes: 2048, Slots: 8})
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := w.Set(1, fmt.Append(nil, i), []byte("committed")); err != nil {
			return err
		}
	}
	w.Commit(1)
	for i := range 100 {
		if err := w.Set(2, fmt.Append(nil, i), []byte("not committed")); err != nil {
			return err
		}
	}
	if _, err := w.Delete(2, []byte("0")); err != nil {
		return err
	}
	fmt.Println("set")
	select {}
}

func TestKilledBeforeCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	c := startChild(t, "half", path)
	c.line(t)
	r := open(t, path)
	if r.Header().Generation < 2 {
		t.Fatal("the test should go through a growth")
	}
	if _, err := Create(Options{Path: path}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second process could write: %v", err)
	}
	c.kill()
	for _, r := range []*Reader{r, open(t, path)} {
		p, err := r.Picture()
		if err != nil {
			t.Fatal(err)
		}
		want(t, p, 1, "0=committed 1=committed 2=committed ")
	}
	w := create(t, Options{Path: path})
	if got := get(r, "0"); got != "-" {
		t.Errorf("in the new writer's segment: %q", got)
	}
	mustSet(t, w, 1, "0", "new")
	w.Commit(1)
	if got := get(r, "0"); got != "new" {
		t.Errorf("the reader did not follow: %q", got)
	}
}

// dyingMemory kills the process when it publishes its generation, before or after
// the rename. The generation that it replaces gets a second name.
type dyingMemory struct {
	*file
	renamed bool
}

func (m dyingMemory) publish() error {
	err := os.Link(m.target, m.target+".old")
	if m.renamed {
		err = errors.Join(err, m.file.publish())
	}
	fmt.Println("dead ", err)
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

func childDies(path string, renamed bool) error {
	o := Options{Path: path, ArenaBytes: 2048, Slots: 8}
	o.newMemory = func(generation, size uint64) (memory, error) {
		mem, err := createFile(nextName(path, generation), path, int64(size), defaultMode)
		if generation == 3 {
			return dyingMemory{mem, renamed}, err
		}
		return mem, err
	}
	w, err := Create(o)
	for i := uint64(1); err == nil; i++ {
		err = w.Set(i, []byte("key"), fmt.Append(nil, i))
		w.Commit(i)
	}
	return err
}

// TestKilledInSwitch: a reader of the generation that was being replaced when the
// writer died reads on, and finds what the next writer makes.
func TestKilledInSwitch(t *testing.T) {
	for role, generation := range map[string]uint64{"dies-before-rename": 2, "dies-after-rename": 3} {
		t.Run(role, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table")
			c := startChild(t, role, path)
			if got := c.line(t); got != "dead  <nil>" {
				t.Fatal(got)
			}
			c.Wait()
			r := open(t, path+".old")
			r.path = path // as if it had been open since before the switch
			h := r.Header()
			if h.Generation != generation || h.Applied == 0 || get(r, "key") != fmt.Sprint(h.Applied) {
				t.Fatalf("%+v, key is %q", h, get(r, "key"))
			}
			os.Remove(path + ".old")
			w := create(t, Options{Path: path})
			mustSet(t, w, 1, "key", "new")
			w.Commit(1)
			if got := get(r, "key"); got != "new" {
				t.Errorf("the reader did not follow: %q", got)
			}
			onlyFiles(t, path)
		})
	}
}

// TestPathGone: whoever removes the file takes nothing from those who read it.
func TestPathGone(t *testing.T) {
	w := create(t, small(t))
	mustSet(t, w, 1, "key", "1")
	w.Commit(1)
	r := open(t, w.o.Path)
	for w.Stats().Generation < 2 {
		mustSet(t, w, 2, "key", "2")
	}
	if err := os.Rename(w.o.Path, w.o.Path+".away"); err != nil {
		t.Fatal(err)
	}
	w.Commit(2)
	if got := get(r, "key"); got != "1" {
		t.Errorf("without a file to go over to: %q", got)
	}
	if err := os.Rename(w.o.Path+".away", w.o.Path); err != nil {
		t.Fatal(err)
	}
	if got := get(r, "key"); got != "2" {
		t.Errorf("with the file back: %q", got)
	}
}
