package sqlrewrite

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestExecutions(t *testing.T) {
	type want struct {
		Execution
		before string // what stands in front of the place for arguments
	}
	for text, wants := range map[string][]want{
		"EXECUTE p":                   {{Execution{Name: "p"}, "EXECUTE p"}},
		"execute \"P q\" -- execute":  {{Execution{Name: "P q"}, "execute \"P q\""}},
		"EXECUTE p(1, ('x') /* é */)": {{Execution{Name: "p", Args: 2}, "EXECUTE p(1, ('x')"}},
		"SELECT 'execute'":            nil,
		"SELECT execute FROM t":       nil,
		"EXPLAIN (ANALYZE) EXECUTE p": {{Execution{Name: "p", Explain: true, Analyze: true}, "EXPLAIN (ANALYZE) EXECUTE p"}},
		"EXPLAIN EXECUTE p(1)":        {{Execution{Name: "p", Explain: true, Args: 1}, "EXPLAIN EXECUTE p(1"}},
		"CREATE TABLE execute AS EXECUTE execute(1) WITH NO DATA": {
			{Execution{Name: "execute", Into: true, Args: 1}, "CREATE TABLE execute AS EXECUTE execute(1"},
		},
		"SELECT 1;; EXECUTE a;EXECUTE b (2)": {
			{Execution{Name: "a", Statement: 1}, "SELECT 1;; EXECUTE a"},
			{Execution{Name: "b", Statement: 2, Args: 1}, "SELECT 1;; EXECUTE a;EXECUTE b (2"},
		},
		"EXECUTE p(":     nil,
		"EXECUTE p\x00":  nil,
		"EXECUTE '\xff'": nil,
		"PREPARE p AS SELECT 1; CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION f()": nil,
	} {
		got := Parse(text, standard).Executions
		if len(got) != len(wants) {
			t.Errorf("%s: %+v", text, got)
			continue
		}
		for i, w := range wants {
			w.At = len(w.before)
			if !strings.HasPrefix(text, w.before) {
				t.Fatalf("%s does not start with %s", text, w.before)
			}
			e := got[i]
			if e.Start > e.At || e.End < e.At {
				t.Errorf("%s: %+v", text, e)
			}
			if e.Args > 0 && text[e.Open-1] != '(' {
				t.Errorf("%s: the parenthesis is not in front of %d", text, e.Open)
			}
			e.Start, e.End, e.Open = 0, 0, 0
			if diff := cmp.Diff(w.Execution, e); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", text, diff)
			}
		}
	}
}

func TestWithArguments(t *testing.T) {
	text := "SELECT 1; EXECUTE p(raftable('a') || 'é' , raftable('b'))"
	r := Parse(text, standard).Statements[1].Rewrite
	e := Parse(text, standard).Executions[0]
	prepared := Parse("PREPARE p AS SELECT $1::text, raftable('c') || $2", standard).Statements[0].Rewrite
	r = e.WithArguments(r, prepared, false)
	more := "more"
	values := []*string{nil, &text, &more}
	want := " EXECUTE p((NULL::pg_catalog.text) || 'é' , (" + Quote(&text) + "::pg_catalog.text), 'more')"
	if got := r.Literal(text, values); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for part, origin := range map[string]int{"|| 'é'": 35, "'more'": 57, "EXEC": 11} {
		pos := utf8.RuneCountInString(want[:strings.Index(want, part)]) + 1
		if got, call := r.OriginLiteral(text, values, pos); got != origin || call >= 0 {
			t.Errorf("%s comes from %d, call %d, not from %d", part, got, call, origin)
		}
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{"": "''", "a": "'a'", "it's": "'it''s'", `a\b`: `E'a\\b'`, `\'`: `E'\\'''`} {
		if got := Quote(&value); got != want {
			t.Errorf("%q: %s", value, got)
		}
	}
	if got := Quote(nil); got != "NULL" {
		t.Error(got)
	}
}

func TestTimeoutOf(t *testing.T) {
	for value, want := range map[string]int{
		"1": 1, "500": 500, " 2 s ": 2000, "1.5min": 90_000, "1h": 3_600_000, "1d": 86_400_000, "2000us": 2, "0x10": 16, "010": 8, "1e3": 1000, "+7": 7, ".5s": 500,
		"2147483647": 2147483647, "": 0, "0": 0, "-1": 0, "x": 0, "1 week": 0, "2147483648": 0, "1us": 0, "s": 0, ".": 0, "1 s s": 0, "0x": 0,
	} {
		if got, ok := TimeoutOf(value); ok != (want > 0) || ok && got != want {
			t.Errorf("%q: %d, %t", value, got, ok)
		}
	}
}
