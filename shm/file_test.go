package shm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPermissions(t *testing.T) {
	for _, c := range []struct {
		name         string
		umask        int
		mode         os.FileMode
		file, parent os.FileMode
	}{
		{"default", 0, 0, 0o640, 0o750},
		{"umask does not decide", 0o027, 0, 0o640, 0o750},
		{"umask of the secretive", 0o077, 0, 0o640, 0o700},
		{"asked for", 0o077, 0o644, 0o644, 0o700},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := small(t)
			o.Mode = c.mode
			old := unix.Umask(c.umask)
			w, err := Create(o)
			unix.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			for _, generation := range []uint64{1, 3} {
				for w.Stats().Generation < generation {
					mustSet(t, w, 1, "key", "value")
				}
				for path, want := range map[string]os.FileMode{o.Path: c.file, filepath.Dir(o.Path): c.parent} {
					info, err := os.Stat(path)
					if err != nil {
						t.Fatal(err)
					}
					if got := info.Mode().Perm(); got != want {
						t.Errorf("%s: mode %o, want %o", path, got, want)
					}
				}
			}
		})
	}
}

func TestForeignDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	o := small(t)
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Dir(o.Path), 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(o); !errors.Is(err, ErrDir) {
		t.Errorf("in another user's directory: %v", err)
	}
}

// TestCreateOver says what Create does with what it finds at its path.
func TestCreateOver(t *testing.T) {
	newer := golden(t)
	binary.LittleEndian.PutUint32(newer[8:], LayoutVersion+1)
	for _, c := range []struct {
		name       string
		content    []byte
		want       error
		generation uint64
	}{
		{"somebody's text", []byte("dear diary"), ErrNotSegment, 0},
		{"a short text", []byte("x"), ErrNotSegment, 0},
		{"a segment cut short", golden(t)[:100], ErrNotSegment, 0},
		{"nothing", nil, nil, 1},
		{"zeros", make([]byte, 5000), nil, 1},
		{"a segment", golden(t), nil, 3},
		{"a segment of a later layout", newer, nil, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table")
			if err := os.WriteFile(path, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			old, err := os.OpenFile(path, os.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			w, err := Create(Options{Path: path})
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil {
				if got, _ := os.ReadFile(path); !bytes.Equal(got, c.content) {
					t.Error("it was changed")
				}
				return
			}
			defer w.Close()
			if g := w.Stats().Generation; g != c.generation {
				t.Errorf("generation %d, want %d", g, c.generation)
			}
			var flag [8]byte
			if c.generation > 1 {
				if _, err := old.ReadAt(flag[:], 64); err != nil || flag[0] != 1 {
					t.Errorf("not marked superseded: % x, %v", flag, err)
				}
			}
			onlyFiles(t, path)
		})
	}
}

// mappings counts what this process has mapped of a segment, deleted files too.
func mappings(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), path)
}

// TestGenerationsAreUnmapped: an old generation lives as long as a Picture of it,
// and no longer.
func TestGenerationsAreUnmapped(t *testing.T) {
	w := create(t, small(t))
	r := open(t, w.o.Path)
	mustSet(t, w, 1, "key", "old")
	w.Commit(1)
	p, err := r.Picture()
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(2); w.Stats().Generation < 50; i++ {
		mustSet(t, w, i, "key", fmt.Sprint(i))
		w.Commit(i)
		r.Get(nil, []byte("key"))
	}
	unmapped := func(n int) func() bool {
		return func() bool {
			runtime.GC()
			return mappings(t, w.o.Path) == n
		}
	}
	// The writer's, the reader's, and the picture's, which is of the reader's first.
	eventually(t, "three mappings left", unmapped(3))
	if v, ok := p.Get([]byte("key")); !ok || string(v) != "old" {
		t.Errorf("the picture says %q", v)
	}
	runtime.KeepAlive(p)
	p = nil
	eventually(t, "two mappings left", unmapped(2))
	r.Close()
	eventually(t, "one mapping left", unmapped(1))
	runtime.KeepAlive(w)
}

// TestRetiredGenerationsAreCollected: a process that allocates nothing would
// otherwise hold on to every generation it has seen.
func TestRetiredGenerationsAreCollected(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	w := create(t, Options{Path: filepath.Join(t.TempDir(), "table"), ArenaBytes: 8 << 20})
	r := open(t, w.o.Path)
	value := string(make([]byte, 3<<20))
	for i := uint64(1); w.Stats().Generation < 60; i++ {
		mustSet(t, w, i, "key", value)
		w.Commit(i)
		r.Header()
	}
	eventually(t, "most of 120 mappings are gone", func() bool { return mappings(t, w.o.Path) < 20 })
}

// TestSpaceFollowsContent: the file claims what it needs, not what it may grow to.
func TestSpaceFollowsContent(t *testing.T) {
	w := create(t, Options{Path: filepath.Join(t.TempDir(), "table"), ArenaBytes: 64 << 20})
	mustSet(t, w, 1, "key", "value")
	var st unix.Stat_t
	if err := unix.Stat(w.o.Path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 2*backStep {
		t.Errorf("%d bytes claimed for one key", st.Blocks*512)
	}
}
