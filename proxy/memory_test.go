package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// heapLimit is how much the heap may grow while something large passes: buffers of two directions, with room to spare.
const heapLimit = 16 << 20

// heapWatch finds out how far the heap grows.
type heapWatch struct {
	t           *testing.T
	first, peak uint64
}

func watchHeap(t *testing.T) *heapWatch {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &heapWatch{t: t, first: m.HeapInuse, peak: m.HeapInuse}
}

func (h *heapWatch) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.peak = max(h.peak, m.HeapInuse)
}

func (h *heapWatch) check() {
	h.t.Helper()
	h.look()
	grown := int64(h.peak) - int64(h.first)
	h.t.Logf("the heap grew by at most %d KiB", grown>>10)
	if grown > heapLimit {
		h.t.Errorf("the heap grew by %d MiB, of which %d are allowed", grown>>20, heapLimit>>20)
	}
}

// drain reads n bytes that nobody wants.
func (h *heapWatch) drain(r io.Reader, n int) {
	h.t.Helper()
	for n > 0 {
		some := min(n, 16<<20)
		if _, err := io.CopyN(io.Discard, r, int64(some)); err != nil {
			h.t.Fatal(err)
		}
		n -= some
		h.look()
	}
}

// pour writes n bytes.
func (h *heapWatch) pour(w io.Writer, n int) {
	h.t.Helper()
	lot := bytes.Repeat([]byte("x"), 1<<20)
	for i := 0; n > 0; i++ {
		some := min(n, len(lot))
		if _, err := w.Write(lot[:some]); err != nil {
			h.t.Fatal(err)
		}
		n -= some
		if i%16 == 0 {
			h.look()
		}
	}
}

func largeSize(full int) int {
	if testing.Short() {
		return full / 16
	}
	return full
}

// TestLargeFieldsOfTheServer has fields of up to a quarter of a GiB come from PostgreSQL, in a row and in COPY data.
func TestLargeFieldsOfTheServer(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.expect("SELECT raftable('k', 'v')", `D ""`)
	for name, c := range map[string]struct {
		text  string
		size  int
		typ   byte
		extra int
	}{
		"row":  {"SELECT repeat('x', %d)", 256 << 20, 'D', 6},
		"copy": {"COPY (SELECT repeat('x', %d)) TO STDOUT", 64 << 20, 'd', 1},
	} {
		t.Run(name, func(t *testing.T) {
			size := largeSize(c.size)
			h := watchHeap(t)
			_ = w.c.SetDeadline(time.Now().Add(time.Minute))
			w.send(query(fmt.Sprintf(c.text, size)))
			var hdr [headerSize]byte
			for hdr[0] != c.typ {
				if _, err := io.ReadFull(w.r, hdr[:]); err != nil {
					t.Fatal(err)
				}
				_, n := header(hdr[:])
				if hdr[0] == c.typ && n != headerSize+size+c.extra {
					t.Fatalf("the message has %d bytes", n)
				}
				h.drain(w.r, n-headerSize)
			}
			for typ := byte(0); typ != 'Z'; {
				var err error
				if typ, _, err = w.read(); err != nil {
					t.Fatal(err)
				}
			}
			h.check()
			w.expect("SELECT raftable('k')", `D "v"`)
		})
	}
}

// TestLargeFieldsOfTheClient sends a parameter and COPY data of many MiB to PostgreSQL, in a session that has prepared
// statements of ours.
func TestLargeFieldsOfTheClient(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	w.run(&script{lines: []string{`> parse "s" "SELECT raftable($1)"`, `> parse "t" "SELECT length($1::text)"`, "> sync", "> wait"}})
	size := largeSize(64 << 20)
	t.Run("parameter", func(t *testing.T) {
		h := watchHeap(t)
		_ = w.c.SetDeadline(time.Now().Add(time.Minute))
		bind := message(t, []string{"bind", "", "t", ""})
		binary.BigEndian.PutUint32(bind[1:], uint32(len(bind)-1+size))
		binary.BigEndian.PutUint32(bind[len(bind)-6:], uint32(size))
		w.send(bind[:len(bind)-2])
		h.pour(w.c, size)
		w.send(bind[len(bind)-2:])
		h.check()
		got := strings.Join(w.run(&script{lines: []string{`> execute ""`, `> bind "" "s" "k"`, `> execute ""`, "> sync", "> wait"}}), " ")
		if want := fmt.Sprintf(`2 D "%d" C SELECT 1 2 D NULL C SELECT 1 Z I`, size); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("copy", func(t *testing.T) {
		w.expect("CREATE TEMP TABLE t (a text)", "C CREATE TABLE")
		h := watchHeap(t)
		_ = w.c.SetDeadline(time.Now().Add(time.Minute))
		w.send(query("COPY t FROM STDIN"))
		w.send(binary.BigEndian.AppendUint32([]byte{'d'}, uint32(size+5)))
		h.pour(w.c, size)
		w.send([]byte{'\n'})
		h.check()
		got := strings.Join(w.run(&script{lines: []string{"> copydone", "> wait 3"}}), " ")
		if got != `G "\x00\x00\x01\x00\x00" C COPY 1 Z I` {
			t.Errorf("got %s", got)
		}
		w.expect("SELECT raftable('k')", "D NULL")
	})
}

// TestGigabyte has a message of the largest size pass in both directions, with a server that only repeats it.
func TestGigabyte(t *testing.T) {
	size := largeSize(1<<30 - 1)
	server := newEcho(t)
	_, addr := startProxy(t, Config{Upstream: server, Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	_ = w.c.SetDeadline(time.Now().Add(time.Minute))
	h := watchHeap(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lot := make([]byte, 1<<20)
		_, _ = w.c.Write(binary.BigEndian.AppendUint32([]byte{'d'}, uint32(size+4)))
		for left := size; left > 0; left -= len(lot) {
			if _, err := w.c.Write(lot[:min(left, len(lot))]); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	h.drain(w.r, headerSize+size)
	<-done
	h.check()
}

// newEcho is a server that sends back what it gets once the session has begun.
func newEcho(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := readStartupBytes(c); err != nil {
			return
		}
		if _, err := c.Write(append(bytes.Clone(faultGreeting), "Z\x00\x00\x00\x05I"...)); err == nil {
			_, _ = io.Copy(c, c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// TestFullBuffers has both sides write more than all buffers hold before either reads: a client that does both at the same
// time, as PostgreSQL demands, gets all its answers.
func TestFullBuffers(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: newMapTable(), Logger: testLogger(t)})
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"forwarded": {[]string{`bind "" "t" "{x*1000}"`, `execute ""`}, "2DC"},
		"ours":      {[]string{`bind "" "s" "{x*60}"`, `execute ""`}, "2DC"},
		"mixed":     {[]string{`bind "" "t" "{x*1000}"`, `execute ""`, `bind "" "s" "k"`, `execute ""`}, "2DC2DC"},
	} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, addr)
			w.run(&script{lines: []string{`> parse "s" "SELECT raftable($1)"`, `> parse "t" "SELECT repeat($1::text, 10)"`, "> sync", "> wait"}})
			var round []byte
			for _, l := range c.lines {
				round = append(round, message(t, splitWords(l))...)
			}
			rounds := 3000
			all := append(bytes.Repeat(round, rounds), syncMessage...)
			sent := make(chan error, 1)
			_ = w.c.SetDeadline(time.Now().Add(time.Minute))
			go func() { _, err := w.c.Write(all); sent <- err }()
			want := strings.Repeat(c.want, rounds) + "Z"
			for i := range len(want) {
				typ, _, err := w.read()
				if err != nil || typ != want[i] {
					t.Fatalf("answer %d is %c, want %c, %v", i, typ, want[i], err)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestWriteAllThenRead has a client write a pipeline whole before it reads. PostgreSQL allows that as long as its answers
// fit into the socket's buffers, so the proxy must.
func TestWriteAllThenRead(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	_ = w.c.(*net.TCPConn).SetReadBuffer(4 << 20)
	round := []string{`> bind "" "t" "{x*5000}"`, `> execute ""`, `> bind "" "s" "k"`, `> execute ""`}
	lines := []string{`> parse "s" "SELECT raftable($1)"`, `> parse "t" "SELECT length($1::text)"`}
	for range 1000 {
		lines = append(lines, round...)
	}
	got := w.run(&script{lines: append(lines, "> sync", "> wait")})
	if len(got) != 2+6*1000+1 || got[3] != `D "5000"` || got[len(got)-2] != "C SELECT 1" {
		t.Fatalf("%d answers, the last is %s", len(got), got[len(got)-1])
	}
}

// TestClientThatNeverReads stops its own server and nobody else.
func TestClientThatNeverReads(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	srv, addr := startProxy(t, Config{Upstream: pg.Socket(), Table: newMapTable(), Logger: testLogger(t)})
	other := dialWire(t, addr)
	control := dialWire(t, pg.Addr())
	stuck := func() bool {
		return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"), `D "2"`)
	}
	h := watchHeap(t)
	var lazy []*wireConn
	for _, text := range []string{"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)", "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT"} {
		w := dialWire(t, addr)
		w.send(query(text))
		lazy = append(lazy, w)
	}
	eventually(t, "both servers wait for their clients", stuck)
	for range 50 {
		other.expect("SELECT raftable('k', 'v')", `D ""`)
		other.expect("SELECT repeat('y', 100000)", "D ")
	}
	if !stuck() {
		t.Error("the servers do not wait for their clients any more")
	}
	h.check()
	for _, w := range lazy {
		w.c.Close()
	}
	eventually(t, "their sessions end", func() bool { return srv.Sessions() == 1 })
	eventually(t, "their servers end", func() bool {
		return strings.Contains(control.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"), `D "0"`)
	})
	other.expect("SELECT raftable('k')", `D "v"`)
}
