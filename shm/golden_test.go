package shm

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"
)

var update = flag.Bool("update", false, "write the golden segment of a layout version that has none yet")

func goldenPath() string { return fmt.Sprintf("testdata/segment-v%d.bin", LayoutVersion) }

// writeGolden makes the segment that the golden file holds: in the second
// generation, with all that a segment can contain.
func writeGolden(t *testing.T) *Writer {
	w := create(t, Options{Path: filepath.Join(t.TempDir(), "table"), ArenaBytes: 512, Slots: 8, seed: 0x5eed})
	mustSet(t, w, 1, "", "the empty key")
	mustSet(t, w, 1, "key", "first")
	mustSet(t, w, 1, "gone", "carried until it was deleted")
	w.Commit(1)
	for i := range 6 {
		mustSet(t, w, 2, fmt.Sprint("app/config/", i), "more than eight slots take")
	}
	w.Commit(3)
	mustSet(t, w, 4, "key", "second")
	mustDelete(t, w, 4, "gone", true)
	mustSet(t, w, 5, "ключ", "значение")
	mustSet(t, w, 5, "empty", "")
	mustSet(t, w, 5, "zeros", "\x00\x00")
	w.Commit(5)
	mustSet(t, w, 6, "key", "not committed")
	w.Heartbeat(time.Unix(1700000000, 0))
	return w
}

const goldenContent = "=the empty key app/config/0=more than eight slots take app/config/1=more than eight slots take " +
	"app/config/2=more than eight slots take app/config/3=more than eight slots take " +
	"app/config/4=more than eight slots take app/config/5=more than eight slots take " +
	"empty= key=second zeros=\x00\x00 ключ=значение "

// TestGolden compares a segment byte for byte with one that was written when the
// layout version was new. If it fails, the layout has changed: raise
// LayoutVersion (here and in c/raftable_shm.h), then run with -update.
func TestGolden(t *testing.T) {
	w := writeGolden(t)
	got, err := os.ReadFile(w.o.Path)
	if err != nil {
		t.Fatal(err)
	}
	clear(got[unsafe.Offsetof(header{}.writerPID):][:8]) // the one thing that varies
	want, err := os.ReadFile(goldenPath())
	if os.IsNotExist(err) && *update {
		want, err = got, os.WriteFile(goldenPath(), got, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d bytes, the golden file has %d", len(got), len(want))
	}
	for i := 0; i < len(got); i += 8 {
		if !bytes.Equal(got[i:i+8], want[i:i+8]) {
			t.Errorf("at %d: % x, the golden file has % x", i, got[i:i+8], want[i:i+8])
		}
	}
}

// TestReadGolden reads what an earlier build of the same layout version wrote.
func TestReadGolden(t *testing.T) {
	r := open(t, goldenPath())
	p, err := r.Picture()
	if err != nil {
		t.Fatal(err)
	}
	want(t, p, 5, goldenContent)
	h := r.Header()
	if h.Generation != 2 || h.Slots != 16 || h.WriterPID != 0 || h.Heartbeat.Unix() != 1700000000 {
		t.Errorf("%+v", h)
	}
	for key, want := range map[string]string{"key": "second", "gone": "-", "": "the empty key", "empty": ""} {
		if got := get(r, key); got != want {
			t.Errorf("Get(%q) = %q, want %q", key, got, want)
		}
	}
}
