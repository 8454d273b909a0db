package proxy

import (
	"bytes"
	"context"
	"testing"

	"github.com/rs/zerolog"
)

// benchServer answers each message as postgres would answer it for a SELECT of one text column that has one row, and puts all
// answers to what one write has brought into one buffer. It makes nothing anew, so that the allocations are the proxy's.
type benchServer struct {
	answer []byte
	// parameters is how many a ParameterDescription has.
	parameters byte
	// bind is the last Bind message, which shows what the values were.
	bind []byte
}

const (
	benchColumns  = "T\x00\x00\x00\x1c\x00\x01key\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
	benchRow      = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x017"
	benchComplete = "C\x00\x00\x00\x0dSELECT 1\x00"
	benchReady    = "Z\x00\x00\x00\x05I"
)

func (v *benchServer) take(b []byte) {
	v.answer = v.answer[:0]
	for len(b) >= headerSize {
		typ, size := header(b)
		v.message(typ, b[:size])
		b = b[size:]
	}
}

func (v *benchServer) message(typ byte, msg []byte) {
	say := func(s string) { v.answer = append(v.answer, s...) }
	switch typ {
	case 'P':
		say("1\x00\x00\x00\x04")
	case 'B':
		v.bind = append(v.bind[:0], msg...)
		say("2\x00\x00\x00\x04")
	case 'D':
		if msg[headerSize] == 'S' {
			at := len(v.answer)
			say("t\x00\x00\x00\x00\x00")
			v.answer = append(v.answer, v.parameters)
			for range v.parameters {
				say("\x00\x00\x00\x19")
			}
			finishMessage(v.answer, at)
		}
		say(benchColumns)
	case 'E':
		say(benchRow + benchComplete)
	case 'C':
		say("3\x00\x00\x00\x04")
	case 'S':
		say(benchReady)
	case 'Q':
		say(benchColumns + benchRow + benchComplete + benchReady)
	}
}

// rewrittenSession is a session with a benchServer, in which the keys 1 to 100 have values.
func rewrittenSession(tb testing.TB) (s *session, server *benchServer, said *bytes.Buffer) {
	tb.Helper()
	table := newMapTable()
	for i := range 100 {
		key := itoa(i + 1)
		if err := table.Set(context.Background(), []byte(key), []byte("value "+key)); err != nil {
			tb.Fatal(err)
		}
	}
	srv, err := New(Config{Upstream: "127.0.0.1:1", Table: table})
	if err != nil {
		tb.Fatal(err)
	}
	said, server = &bytes.Buffer{}, &benchServer{}
	conn := &fakeConn{}
	s = newSession(srv, &fakeConn{write: func(b []byte) { said.Write(b) }}, conn, zerolog.Nop())
	conn.write = func(b []byte) {
		server.take(b)
		if len(server.answer) == 0 {
			return
		}
		if err := s.back.feed(server.answer); err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.back.feed([]byte(benchReady)); err != nil {
		tb.Fatal(err)
	}
	said.Reset()
	return s, server, said
}

// rewrittenRuns are ways to run a statement with a call in its condition. In each it runs once.
var rewrittenRuns = []struct {
	name    string
	prepare []string // what is sent beforehand, up to a sync
	run     []string
	want    string // what the client gets for run
}{
	{
		name: "simple",
		run:  []string{`query "SELECT key FROM kv WHERE value = raftable('7')"`},
		want: benchColumns + benchRow + benchComplete + benchReady,
	},
	{
		name:    "prepared",
		prepare: []string{`parse "P_0" "SELECT key FROM kv WHERE value = raftable('7')"`, `sync`},
		run:     []string{`bind "" "P_0"`, `describe P ""`, `execute ""`, `sync`},
		want:    "2\x00\x00\x00\x04" + benchColumns + benchRow + benchComplete + benchReady,
	},
	{
		name:    "parameter",
		prepare: []string{`parse "P_0" "SELECT key FROM kv WHERE value = raftable($1)"`, `sync`},
		run:     []string{`bind "" "P_0" "7"`, `describe P ""`, `execute ""`, `sync`},
		want:    "2\x00\x00\x00\x04" + benchColumns + benchRow + benchComplete + benchReady,
	},
	{
		name: "unnamed",
		run: []string{
			`parse "" "SELECT key FROM kv WHERE value = raftable('7')"`, `bind "" ""`, `describe P ""`, `execute ""`, `sync`,
		},
		want: "1\x00\x00\x00\x042\x00\x00\x00\x04" + benchColumns + benchRow + benchComplete + benchReady,
	},
}

// BenchmarkRewritten measures what the proxy does between system calls for a statement that postgres runs with a value put in.
func BenchmarkRewritten(b *testing.B) {
	for _, r := range rewrittenRuns {
		b.Run(r.name, func(b *testing.B) {
			s, server, said := rewrittenSession(b)
			run := messages(b, r.run...)
			if err := s.front.feed(messages(b, r.prepare...)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(run)))
			for b.Loop() {
				said.Reset()
				if err := s.front.feed(run); err != nil {
					b.Fatal(err)
				}
			}
			if said.String() != r.want {
				b.Fatalf("the client got %q", said)
			}
			if !bytes.Contains(server.bind, []byte("\x00\x00\x00\x07value 7")) {
				b.Fatalf("the server got %q", server.bind)
			}
		})
	}
}

// TestRewrittenAllocatesNothing runs statements that have been read before.
func TestRewrittenAllocatesNothing(t *testing.T) {
	for _, r := range rewrittenRuns {
		if r.name == "unnamed" {
			continue // a Parse makes a statement
		}
		t.Run(r.name, func(t *testing.T) {
			s, _, said := rewrittenSession(t)
			run := messages(t, r.run...)
			if err := s.front.feed(messages(t, r.prepare...)); err != nil {
				t.Fatal(err)
			}
			n := testing.AllocsPerRun(100, func() {
				said.Reset()
				if err := s.front.feed(run); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
