package sqlrewrite

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkParse measures texts that are read for the first time; a session keeps the plans of those
// it has seen.
func BenchmarkParse(b *testing.B) {
	long := `SELECT o.id, o.total, c.name, raftable('rate/' || o.currency) AS rate FROM orders o JOIN customers c ON c.id = o.customer_id ` +
		`WHERE o.created_at > now() - interval '1 day' AND o.state IN ('new', 'paid', 'sent') AND c.tenant = $1 ` +
		`GROUP BY o.id, o.total, c.name HAVING count(*) > 1 ORDER BY o.total DESC LIMIT 50`
	for _, c := range []struct {
		name, text string
		want       Class
	}{
		{"get", "SELECT raftable('k')", ClassLocal},
		{"get-param", "SELECT raftable($1)", ClassLocal},
		{"set", "SELECT raftable($1, $2)", ClassLocal},
		{"list", "SELECT * FROM raftable()", ClassLocal},
		{"300-characters", long, ClassRewritten},
		{"condition", "SELECT * FROM t WHERE flag = raftable('f') AND id = $1", ClassRewritten},
		{"harvested", "SELECT raftable(name, val) FROM cfg", ClassHarvested},
		{"command", "SET raftable.timeout = '2s'", ClassCommand},
		{"only-the-word", "SELECT id, raftable FROM t WHERE raftable = $1 AND name = 'raftable'", ClassNone},
		{"mention-in-string", strings.Replace(long, "raftable(", "lookup('raftable(' || ", 1), ClassNone},
		{"mention-in-1M", "SELECT '" + strings.Repeat("raftable(1) ", 1<<20/12) + "'", ClassNone},
		{"mention-in-1M-of-sql", "SELECT raftable FROM t" + strings.Repeat(", (SELECT a FROM t WHERE b = 'c')", 1<<20/32), ClassNone},
		{"batch-1000", strings.Repeat("SELECT raftable('k');", 1000), ClassLocal},
		{"insert-10000-rows", "INSERT INTO t VALUES (raftable('k'), 1, 'x')" + strings.Repeat(", (2, 3, 'abc')", 10000), ClassRewritten},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.text)))
			b.ReportAllocs()
			for b.Loop() {
				if p := Parse(c.text, standard); p.Class != c.want {
					b.Fatalf("class %d", p.Class)
				}
			}
		})
	}
}

// BenchmarkText measures what a statement that has been read before costs at each execution.
func BenchmarkText(b *testing.B) {
	text := "SELECT * FROM t WHERE flag = raftable('f') AND id = $1 AND name = raftable($1)"
	r := Parse(text, standard).Statements[0].Rewrite
	b.ReportAllocs()
	for b.Loop() {
		if s := r.Text(text, 2); len(s) < len(text) {
			b.Fatal(s)
		}
	}
}

// BenchmarkOrigin measures the way back of the position of an error.
func BenchmarkOrigin(b *testing.B) {
	text := "SELECT * FROM t WHERE flag = raftable('f') AND id = $1 AND name = raftable($1)"
	r := Parse(text, standard).Statements[0].Rewrite
	b.ReportAllocs()
	for b.Loop() {
		if origin, _ := r.Origin(text, 2, 100); origin == 0 {
			b.Fatal(origin)
		}
	}
}

// TestHostileTexts reads texts that would take a lexer or a parser minutes if their time were quadratic.
func TestHostileTexts(t *testing.T) {
	size := 1 << 19
	if raceEnabled {
		size >>= 4 // there it is enough that nothing breaks
	}
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, text := range map[string]string{
		"nested comments":       fill("/*") + fill("*/") + "SELECT raftable('a')",
		"many comments":         "SELECT raftable('a'" + fill("/**/") + ")",
		"comments of operators": "SELECT raftable('a'" + strings.Repeat("+/*"+strings.Repeat("*", 2000)+"*/", 1000) + "1)",
		"operators":             "SELECT raftable('a'" + fill("+-") + "1)",
		"one operator":          "SELECT raftable('a' " + fill("@") + " 1)",
		"comment starts":        "SELECT raftable('a')" + fill("/*"),
		"dollar signs":          "SELECT raftable('a'), $a$" + fill("$a") + "$a$",
		"dollar tags":           "SELECT raftable('a'), " + fill("$a"),
		"open quotes":           "SELECT raftable('a'), '" + fill("''"),
		"continued constants":   "SELECT raftable(" + fill("'a'\n") + ")",
		"blanks":                "SELECT raftable(" + fill("'a' ,") + ")",
		"open parentheses":      "SELECT raftable('a'), " + fill("("),
		"dots":                  "SELECT raftable('a'), a" + fill(".a"),
		"names":                 "SELECT " + fill("raftable.") + "raftable('a')",
		"calls":                 "SELECT 1" + fill(",raftable('a')"),
		"statements":            "SELECT 1" + fill(";SELECT raftable('é')"),
		"statements, refused":   "SELECT 1" + fill(";SELECT k FROM raftable() WHERE raftable('a','b')"),
		"arguments":             "SELECT raftable(1" + fill(",key=>1") + ")",
		"backslashes":           "SELECT raftable(E'" + fill(`\\`) + "')",
		"unicode escapes":       "SELECT raftable(U&'" + fill(`\0061`) + "')",
		"calls, rewritten":      "SELECT 1" + fill(",1+raftable('a')"),
		"keys, rewritten":       "SELECT 1" + manyKeys(size/24),
		"columns, rewritten":    "SELECT 1" + fill(",raftable(k)::text") + " FROM t",
		"sets, harvested":       "SELECT 1" + fill(",raftable(k,v)") + " FROM t",
		"gets beside sets":      "SELECT raftable('a','b')" + fill(",upper(raftable('c'))"),
		"sorted sets":           "SELECT raftable('a',v)" + strings.Repeat(",raftable('c',v)", size/48) + " FROM t ORDER BY k" + fill(",k")[:size/4],
		"sets beside gets":      "SELECT raftable(k,v)" + fill(",raftable('c',v),upper(raftable('x'))"),
		"nested calls":          "SELECT " + strings.Repeat("raftable('a'||", 400) + "'a'" + strings.Repeat(")", 400) + fill(",raftable(raftable(k))"),
		"functions in FROM":     "SELECT 1 FROM raftable()" + fill(",raftable()"),
		"executions":            "SELECT 1" + fill(";EXECUTE p(1)"),
		"settings":              "SELECT 1" + fill(";SET raftable.timeout=1"),
		"words":                 "SELECT extension" + fill(",raftable"),
		"one long name":         "SELECT raftable('a') AS " + fill("a"),
	} {
		for _, conforming := range []bool{true, false} {
			start := time.Now()
			o := Options{StandardConformingStrings: conforming}
			for _, s := range Parse(text, o).Statements {
				if s.Rewrite != nil {
					s.Rewrite.Text(text, 1)
					s.Rewrite.Origin(text, 1, len(text))
				}
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("%s: %v", name, d)
			} else {
				t.Logf("%s: %v", name, d.Round(time.Millisecond))
			}
		}
	}
}

// manyKeys are gets of n keys, all different.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",1+raftable('%d')", i)
	}
	return b.String()
}
