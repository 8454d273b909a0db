package proxy

import (
	"bytes"
	"context"
	"testing"

	"github.com/rs/zerolog"
)

// benchSession is a session whose server answers with the given bytes and whose client swallows everything.
func benchSession(b *testing.B, answer []byte) *session {
	b.Helper()
	table := newMapTable()
	if err := table.Set(context.Background(), []byte("k"), []byte("value")); err != nil {
		b.Fatal(err)
	}
	srv, err := New(Config{Upstream: "127.0.0.1:1", Table: table})
	if err != nil {
		b.Fatal(err)
	}
	server := &fakeConn{}
	s := newSession(srv, &fakeConn{write: func([]byte) {}}, server, zerolog.Nop())
	buf := make([]byte, len(answer))
	server.write = func([]byte) {
		copy(buf, answer)
		if err := s.back.feed(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.back.feed([]byte{'Z', 0, 0, 0, 5, 'I'}); err != nil {
		b.Fatal(err)
	}
	return s
}

func messages(b testing.TB, lines ...string) []byte {
	b.Helper()
	var out []byte
	for _, l := range lines {
		out = append(out, message(b, splitWords(l))...)
	}
	return out
}

func benchFeed(b *testing.B, s *session, msg []byte) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if err := s.front.feed(msg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForward measures what the proxy does between two system calls, for a statement and its answer.
func BenchmarkForward(b *testing.B) {
	row := append([]byte{'D', 0, 0, 0, 16, 0, 1, 0, 0, 0, 6}, "abcdef"...)
	simple := append(append([]byte("T\x00\x00\x00\x1a\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"), row...),
		"C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I"...)
	b.Run("simple", func(b *testing.B) {
		benchFeed(b, benchSession(b, simple), messages(b, `query "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"`))
	})
	// A text that has the word and no call is looked up in the plan cache.
	b.Run("word", func(b *testing.B) {
		benchFeed(b, benchSession(b, simple), messages(b, `query "SELECT raftable FROM pgbench_accounts WHERE aid = 4711;"`))
	})
	prepared := append(append([]byte("2\x00\x00\x00\x04"), row...), "C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I"...)
	b.Run("prepared", func(b *testing.B) {
		benchFeed(b, benchSession(b, prepared), messages(b, `bind "" "P_1" "4711"`, `execute ""`, `sync`))
	})
	b.Run("rows", func(b *testing.B) {
		s := benchSession(b, nil)
		rows := bytes.Repeat(row, bufferSize/len(row))
		b.ReportAllocs()
		b.SetBytes(int64(len(rows)))
		for b.Loop() {
			if err := s.back.feed(rows); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("copydata", func(b *testing.B) {
		s := benchSession(b, nil)
		line := message(b, []string{"copydata", "1\t2\tsome text of a row\n"})
		benchFeed(b, s, bytes.Repeat(line, bufferSize/len(line)))
	})
}

// BenchmarkLocal measures statements that are answered from the table, here a map.
func BenchmarkLocal(b *testing.B) {
	b.Run("get/simple", func(b *testing.B) {
		benchFeed(b, benchSession(b, nil), messages(b, `query "SELECT raftable('k')"`))
	})
	b.Run("get/prepared", func(b *testing.B) {
		s := benchSession(b, []byte("1\x00\x00\x00\x04Z\x00\x00\x00\x05I"))
		if err := s.front.feed(messages(b, `parse "s" "SELECT raftable($1)"`, `sync`)); err != nil {
			b.Fatal(err)
		}
		benchFeed(b, s, messages(b, `bind "" "s" "k"`, `describe P ""`, `execute ""`, `sync`))
	})
	b.Run("set/simple", func(b *testing.B) {
		benchFeed(b, benchSession(b, nil), messages(b, `query "SELECT raftable('k', 'v')"`))
	})
}
