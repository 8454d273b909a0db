package sqlrewrite

import (
	"bytes"
	"math/rand"
	"strings"
	"testing"
)

// mentionsPlainly is what Mentions means.
func mentionsPlainly(b []byte) bool {
	return bytes.Contains(bytes.ToLower(b), []byte("raftable"))
}

func TestMentionsAtEveryPlace(t *testing.T) {
	for length := range 80 {
		for at := 0; at+8 <= length; at++ {
			b := bytes.Repeat([]byte("r"), length)
			copy(b[at:], "rAfTaBlE")
			if !Mentions(b) {
				t.Fatalf("not found in %q", b)
			}
			for miss := range 8 {
				c := bytes.Clone(b)
				c[at+miss] ^= 0x40
				if Mentions(c) {
					t.Fatalf("found in %q", c)
				}
			}
		}
	}
}

func TestMentionsAllocatesNothing(t *testing.T) {
	b := []byte(strings.Repeat("select raft able ", 100) + "raftable")
	if n := testing.AllocsPerRun(100, func() { Mentions(b) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzMentions(f *testing.F) {
	for _, s := range []string{
		"", "r", "raftabl", "raftable", "RAFTABLE", "xraftable", "select raftable('k')", "raftabraftable",
		"raftablraftabl", "\x12\x01\x06\x14\x01\x02\x0c\x05", "r\x00ftable", "raftab\xc4\xb1e", "RAFTABL\u212a",
		strings.Repeat("raftabl ", 20), strings.Repeat("ra", 33) + "ftable",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := Mentions(b), mentionsPlainly(b); got != want {
			t.Fatalf("Mentions(%q) = %v, want %v", b, got, want)
		}
	})
}

func BenchmarkMentions(b *testing.B) {
	prose := "SELECT a.id, a.created_at, b.label FROM accounts AS a LEFT JOIN labels b ON b.id = a.label_id WHERE a.tenant = $1 AND a.state IN ('late', 'after', 'table') ORDER BY a.created_at DESC LIMIT 50; "
	mixed, rnd := make([]byte, 16384), rand.New(rand.NewSource(1))
	for i := range mixed {
		mixed[i] = word[rnd.Intn(len(word))]
	}
	for _, c := range []struct{ name, text string }{
		{"worst-mixed-letters", string(mixed)},
		{"short", "SELECT abalance FROM pgbench_accounts WHERE aid = 42"},
		{"sql-16K", strings.Repeat(prose, 1+16384/len(prose))[:16384]},
		{"blob-1M", strings.Repeat("\x00\x01\x7f\xfe0123456789", 1<<20/14)},
		{"worst-ra", strings.Repeat("ra", 8192)},
		{"worst-raftabl", strings.Repeat("raftabl", 16384/7)},
		{"worst-almost", strings.Repeat("raftablX", 2048)},
		{"worst-able", strings.Repeat("Xaftable", 2048)},
	} {
		b.Run(c.name, func(b *testing.B) {
			text := []byte(c.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if Mentions(text) {
					b.Fatal("found")
				}
			}
		})
	}
}
