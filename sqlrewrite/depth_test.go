package sqlrewrite

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// towers are texts whose parse tree grows with n.
var towers = map[string]func(n int) string{
	"plus":        repeat("select 1", "+1", ""),
	"concat":      repeat("select 'a'", "||'a'", ""),
	"operator":    repeat("select x", " operator(a.+) x", ""),
	"not":         repeat("select ", "not ", "true"),
	"minus":       repeat("select ", "- ", "x"),
	"plusminus":   repeat("select ", "+-", "x"),
	"prefix":      repeat("select ", "@ ", "x"),
	"cast":        repeat("select 1", "::a", ""),
	"collate":     repeat("select 1", " collate a", ""),
	"at zone":     repeat("select 1", " at time zone a", ""),
	"at local":    repeat("select 1", " at local", ""),
	"isnull":      repeat("select 1", " isnull", ""),
	"literal":     repeat("select ", "int '1' + ", "1"),
	"between":     repeat("select ", "x between 1 and not ", "y"),
	"like":        repeat("select x", " like not x", ""),
	"less":        repeat("select x", " < not x", ""),
	"union":       repeat("select", " union select", ""),
	"union, and":  repeat("select", " union select a, b from c where d and e", ""),
	"values":      repeat("select", " union values(1)", ""),
	"table":       repeat("table a", " union table a", ""),
	"labels":      repeat("select 1", " case union select 1 end union select 1", ""),
	"join":        repeat("select from a", " natural join a", ""),
	"cross join":  repeat("select from a", " cross join a", ""),
	"join, and":   repeat("select from a", " join a on a and a", ""),
	"right join":  both("select from a", " join a", "", " on a", ""),
	"from":        both("select from ", "(", "a cross join b", ") cross join c", ""),
	"subjoin":     both("select ", "from a join (select ", "1", ") b on c", ""),
	"paren":       both("select ", "(", "1", ")", ""),
	"row":         both("select ", "row(", "1", ")", ""),
	"rows":        both("select ", "(1,", "1", ")", ""),
	"values in":   both("select ", "(values(", "1", "))", ""),
	"call":        both("select ", "f(", "1", ")", ""),
	"call, and":   both("select ", "f(a and ", "1", ")", ""),
	"filter":      both("select ", "f(1) filter (where ", "a", ")", ""),
	"over":        both("select ", "f(1) over (partition by ", "a", ")", ""),
	"coalesce":    both("select ", "coalesce(", "1", ")", ""),
	"json":        both("select ", "json_object('a':", "1", ")", ""),
	"xml":         both("select ", "xmlelement(name a,", "1", ")", ""),
	"typmod":      both("select ", "a::b(", "1", ")", ""),
	"sub-select":  both("select ", "(select ", "1", ")", ""),
	"exists":      both("select ", "exists(select ", "1", ")", ""),
	"exists and":  both("select ", "exists(select where a and ", "1", ")", ""),
	"from select": both("select ", " from (select ", "1", ") a", ""),
	"function":    both("select from ", "f((select a from ", "b", "))", ""),
	"with":        both("", "with a as (", "select", ") select", ""),
	"in":          both("select ", "a in (", "a", ")", ""),
	"any":         both("select ", "a = any(", "a", ")", ""),
	"and (or (":   both("select ", "a and (b or (", "a", "))", ""),
	"array":       both("select array", "[", "1", "]", ""),
	"subscript":   both("select a", "[a", "", "]", ""),
	"(…)[1]":      both("select ", "(", "a", ")[1]", ""),
	"case":        both("select ", "case when a then ", "1", " end", ""),
	"case and":    both("select ", "case when a and ", "b", " then c end", ""),
	"case else":   both("select ", "case when a then b else ", "1", " end", ""),
	"case of":     both("select ", "case ", "1", " when a then b end", ""),
	"case .end":   both("select ", "case when a.end and ", "1", " then b end", ""),
	"grouping":    both("select group by ", "grouping sets(", "a", ")", ""),
	"json_table":  both("select from json_table(a,'b' columns (", "nested 'a' columns(", "a int", ")", "))"),
	"partition":   both("create table a partition of b for values in ", "(", "1", ")", ""),
	"schema":      repeat("create schema a", " create view a as select", ""),
}

func repeat(before, unit, after string) func(int) string {
	return func(n int) string { return before + strings.Repeat(unit, n) + after }
}

func both(before, left, middle, right, after string) func(int) string {
	return func(n int) string {
		return before + strings.Repeat(left, n) + middle + strings.Repeat(right, n) + after
	}
}

// steps are random ways to make an expression deeper; % is the deeper one, x a name.
var steps = []string{
	"- %", "not %", "(%)", "+(%)", "% + x", "x || %", "% :: x", "(%) and (x)", "x and %", "% or x", "(% , x)", "row(%)",
	"f(%)", "f(x, %)", "f(x) filter (where %)", "f(x) over (order by %)", "coalesce(x, %)", "array[%]", "x[%]", "(%)[1]",
	"(select %)", "(select x, %)", "exists (select x where %)", "(select % union select x)", "(select x union select x, %)",
	"(values (%))", "(with x as (select %) select)", "(select from x join x on %)", "(select from (select %) x)",
	"(select from x, lateral f(%))", "(select limit %)", "x in (%)", "(%) in (x, x)", "x = any(%)", "x between x and %",
	"(%) between x and x", "case when % then x end", "case when x and % then x else x end", "case when x then %  else x end",
	"case % when x then x end", "case x when x then x else % end", "(%) is null", "(%) is distinct from x", "(%) collate x",
	"(%) at time zone x", "cast(% as x)", "x like %", "json_object('x': %)", "xmlelement(name x, %)", "(x, x, %) = x",
	"nullif(x, %)", "greatest(%, x)", "(table x union select %)", "(select group by cube(x, %))", "(x).y[%]",
	"overlay(x placing % from x)", "extract(x from %)", "x is not distinct from %", "grouping(%)", "json_array(%)", "(select x case, % end)",
}

// tallest gives the largest text of a family that a survey lets through.
func tallest(text func(n int) string) string {
	lo, hi := 0, 1
	for ; hi < 1<<17 && look(text(hi), standard).ok; hi *= 2 {
		lo = hi
	}
	for lo+1 < hi {
		if n := (lo + hi) / 2; look(text(n), standard).ok {
			lo = n
		} else {
			hi = n
		}
	}
	return text(lo)
}

var standard = Options{StandardConformingStrings: true}

// towering runs the parser on the tallest texts; a stack overflow ends the process.
func towering(t *testing.T) {
	for name, text := range towers {
		s := tallest(text)
		_, err := pg_query.Parse(s)
		t.Logf("%s: depth %d, %d bytes, %v", name, look(s, standard).depth, len(s), err)
	}
	parsed, randomTowers, rnd := 0, 80, rand.New(rand.NewSource(1))
	if raceEnabled {
		randomTowers = 15
	}
	for range randomTowers {
		s, leaf := "select %", "x"
		mix := make([]string, 1+rnd.Intn(3))
		for i := range mix {
			mix[i] = steps[rnd.Intn(len(steps))]
		}
		for {
			deeper := strings.Replace(s, "%", mix[rnd.Intn(len(mix))], 1)
			if len(deeper) > 1<<15 || !look(strings.Replace(deeper, "%", leaf, 1), standard).ok {
				break
			}
			s = deeper
		}
		if _, err := pg_query.Parse(strings.Replace(s, "%", leaf, 1)); err == nil {
			parsed++
		}
	}
	t.Logf("parsed %d of %d random towers", parsed, randomTowers)
	if parsed < randomTowers/2 {
		t.Errorf("only %d of %d random towers are SQL", parsed, randomTowers)
	}
}

// TestDepth shows that no tower that is let through overflows the stack of a thread, whatever the size
// of the stack. Each size needs a process of its own.
func TestDepth(t *testing.T) {
	if os.Getenv("SQLREWRITE_TOWERS") != "" {
		towering(t)
		return
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh to set a stack size with")
	}
	for _, kib := range []int{128, 512, 8192} {
		t.Run(fmt.Sprint(kib, "KiB"), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(sh, "-c", fmt.Sprintf("ulimit -S -s %d && exec %s -test.run '^TestDepth$' -test.v", kib, os.Args[0]))
			cmd.Env = append(os.Environ(), "SQLREWRITE_TOWERS=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out[:min(len(out), 4000)])
			}
			t.Logf("%s", out)
		})
	}
}

// TestLimits shows that flat texts pass however long they are, and that deep ones do not.
func TestLimits(t *testing.T) {
	flat := map[string]string{
		"IN list":      repeat("select raftable('a') where 1 in (1", ",1", ")")(200_000),
		"VALUES":       repeat("insert into t values (1,'a',raftable('b'))", ",(1,'a','b')", "")(100_000),
		"batch":        repeat("select raftable('a')", ";insert into t values (1 + 1)", "")(50_000),
		"AND chain":    repeat("select raftable('a') where a", " and a = 1", "")(100_000),
		"OR chain":     repeat("select raftable('a') where a", " or not a and b between 1 and 2", "")(50_000),
		"CASE arms":    repeat("select case", " when a and b then c || 'd'", " end, raftable('a')")(50_000),
		"columns":      repeat("select raftable('a')", ", a.b + 1 as c", "")(50_000),
		"array":        repeat("select raftable('a'), array[1", ",1", "]")(100_000),
		"long strings": repeat("select raftable('a'), '", "((((;;;; union", "'")(1_000_000),
		"concat":       repeat("select raftable('a') || 'a'", " || 'a'", "")(700),
	}
	for name, text := range flat {
		if s := look(text, standard); depthLimit == maxDepth && !s.ok {
			t.Errorf("%s is not let through: depth %d, %d tokens", name, s.depth, s.tokens)
		}
	}
	for name, text := range towers {
		if look(text(1<<17), standard).ok {
			t.Errorf("%s is let through", name)
		}
	}
	for name, text := range map[string]string{
		"a large constant under many operators": "select " + strings.Repeat("- ", 1000) + "'" + strings.Repeat("a", 16<<20) + "'",
		"too many tokens":                       repeat("select raftable('a') where 1 in (1", ",1", ")")(1_000_000),
	} {
		if look(text, standard).ok {
			t.Errorf("%s: let through", name)
		}
	}
}

// treeDepth is the number of nodes on the longest way through a parse tree.
func treeDepth(m protoreflect.Message) int {
	deepest := 0
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i, list := 0, v.List(); i < list.Len(); i++ {
				deepest = max(deepest, treeDepth(list.Get(i).Message()))
			}
		default:
			deepest = max(deepest, treeDepth(v.Message()))
		}
		return true
	})
	if _, wrapper := m.Interface().(*pg_query.Node); wrapper {
		return deepest
	}
	return deepest + 1
}

// nodesAround are those of a statement that is not deep at all.
const nodesAround = 12

// FuzzDepth shows that no parse tree has more nodes one below the other than levels were counted. Where
// it fails something can be nested that is not counted.
func FuzzDepth(f *testing.F) {
	for _, tower := range towers {
		f.Add(tower(30))
	}
	for _, file := range readSQLFiles(f) {
		for _, c := range file.cases {
			f.Add(c.text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return
		}
		s := look(text, standard)
		if !s.ok {
			return
		}
		tree, err := pg_query.Parse(s.text)
		if err != nil {
			return
		}
		if d := treeDepth(tree.ProtoReflect()); d > s.depth+nodesAround {
			t.Fatalf("%d nodes deep, but %d counted: %q", d, s.depth, text)
		}
	})
}
