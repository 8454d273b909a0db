package shm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// small options make generations change every few sets.
func small(t testing.TB) Options {
	return Options{Path: filepath.Join(t.TempDir(), "d", "table"), ArenaBytes: 2048, Slots: 8}
}

func create(t testing.TB, o Options) *Writer {
	t.Helper()
	w, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func open(t testing.TB, path string) *Reader {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func mustSet(t testing.TB, w *Writer, index uint64, key, value string) {
	t.Helper()
	if err := w.Set(index, []byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func mustDelete(t testing.TB, w *Writer, index uint64, key string, existed bool) {
	t.Helper()
	got, err := w.Delete(index, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if got != existed {
		t.Fatalf("Delete(%q) says existed=%v, want %v", key, got, existed)
	}
}

// get is a Get that a test can compare: "-" is no such key.
func get(g interface {
	Get(dst, key []byte) ([]byte, bool)
}, key string) string {
	value, ok := g.Get(nil, []byte(key))
	if !ok {
		return "-"
	}
	return string(value)
}

func TestSetCommitGet(t *testing.T) {
	w := create(t, small(t))
	for _, r := range []*Reader{open(t, w.o.Path), w.Reader()} {
		if got := get(r, "a"); got != "-" {
			t.Errorf("in an empty table: %q", got)
		}
	}
	mustSet(t, w, 1, "a", "1")
	mustSet(t, w, 1, "", "empty key")
	mustSet(t, w, 1, "empty value", "")
	for _, r := range []*Reader{open(t, w.o.Path), w.Reader()} {
		if got := get(r, "a"); got != "-" {
			t.Errorf("before the commit: %q", got)
		}
	}
	if v, ok := w.Get([]byte("a")); !ok || string(v) != "1" {
		t.Errorf("the writer itself: %q, %v", v, ok)
	}
	w.Commit(1)
	mustSet(t, w, 2, "a", "2")
	for _, r := range []*Reader{open(t, w.o.Path), w.Reader()} {
		for key, want := range map[string]string{"a": "1", "": "empty key", "empty value": "", "b": "-"} {
			if got := get(r, key); got != want {
				t.Errorf("Get(%q) = %q, want %q", key, got, want)
			}
		}
		if out, ok := r.Get([]byte("x="), []byte("a")); !ok || string(out) != "x=1" {
			t.Errorf("Get does not append: %q", out)
		}
	}
	if w.Applied() != 1 {
		t.Errorf("applied %d", w.Applied())
	}
}

func TestPictureStays(t *testing.T) {
	w := create(t, small(t))
	mustSet(t, w, 1, "b", "1")
	mustSet(t, w, 1, "a", "1")
	mustSet(t, w, 1, "c", "1")
	w.Commit(1)
	p := w.Picture()
	mustSet(t, w, 2, "a", "2")
	mustDelete(t, w, 2, "b", true)
	mustDelete(t, w, 2, "b", false)
	mustSet(t, w, 2, "d", "2")
	w.Commit(2)
	want(t, p, 1, "a=1 b=1 c=1 ")
	want(t, w.Picture(), 2, "a=2 c=1 d=2 ")
	for i := range 1000 {
		mustSet(t, w, 3, fmt.Sprint(i), "3")
	}
	if g := w.Stats().Generation; g < 3 {
		t.Fatalf("still generation %d", g)
	}
	want(t, p, 1, "a=1 b=1 c=1 ")
	want(t, w.Picture(), 2, "a=2 c=1 d=2 ")
}

func want(t *testing.T, p *Picture, index uint64, content string) {
	t.Helper()
	var b bytes.Buffer
	n := 0
	for k, v := range p.All() {
		fmt.Fprintf(&b, "%s=%s ", k, v)
		n++
	}
	if b.String() != content || p.Index() != index || p.Len() != n {
		t.Errorf("index %d, %d keys: %s; want index %d: %s", p.Index(), p.Len(), b.String(), index, content)
	}
}

func TestReplace(t *testing.T) {
	w := create(t, small(t))
	mustSet(t, w, 1, "old", "1")
	w.Commit(1)
	mustSet(t, w, 2, "old", "2")
	r := open(t, w.o.Path)

	i := 0
	broken := errors.New("broken stream")
	next := func(end error) func() ([]byte, []byte, error) {
		i = 0
		return func() ([]byte, []byte, error) {
			if i++; i > 500 {
				return nil, nil, end
			}
			return []byte(fmt.Sprint("key", i)), []byte("value"), nil
		}
	}
	if err := w.Replace(10, next(broken)); err != broken {
		t.Fatal(err)
	}
	if got := get(r, "old"); got != "1" || w.Applied() != 1 || get(r, "key1") != "-" {
		t.Errorf("after a failed Replace: %q at %d", got, w.Applied())
	}
	if v, _ := w.Get([]byte("old")); string(v) != "2" {
		t.Errorf("what was not committed is lost: %q", v)
	}
	if err := w.Replace(10, next(io.EOF)); err != nil {
		t.Fatal(err)
	}
	if get(r, "old") != "-" || get(r, "key1") != "value" || get(r, "key500") != "value" {
		t.Error("the content was not replaced")
	}
	if h := r.Header(); h.Keys != 500 || h.Applied != 10 {
		t.Errorf("%+v", h)
	}
	mustSet(t, w, 11, "new", "11")
	w.Commit(11)
	if get(r, "new") != "11" {
		t.Error("no set after Replace")
	}
	onlyFiles(t, w.o.Path)
}

// onlyFiles checks that no half-built generation was left behind.
func onlyFiles(t *testing.T, path string) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Dir(path) + "/*")
	if len(names) != 2 || names[0] != path || names[1] != path+".lock" {
		t.Errorf("files: %q", names)
	}
}

func TestLock(t *testing.T) {
	o := small(t)
	w := create(t, o)
	if _, err := Create(o); !errors.Is(err, ErrLocked) {
		t.Fatalf("second writer: %v", err)
	}
	mustSet(t, w, 1, "a", "1")
	w.Commit(1)
	r := open(t, o.Path)
	now := time.Unix(1700000000, 5)
	w.Heartbeat(now)
	if h := r.Header(); h.WriterPID != os.Getpid() || !h.Heartbeat.Equal(now) {
		t.Errorf("%+v", h)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if h := r.Header(); h.WriterPID != 0 || get(r, "a") != "1" || get(w.Reader(), "a") != "1" {
		t.Errorf("after Close: %+v", h)
	}
	if err := w.Set(2, nil, nil); err != ErrClosed {
		t.Errorf("Set after Close: %v", err)
	}

	w2 := create(t, o)
	if get(r, "a") != "-" {
		t.Error("the reader did not follow to the new segment")
	}
	if g := r.Header().Generation; g != w2.Stats().Generation || g <= 1 {
		t.Errorf("generation %d", g)
	}
}
