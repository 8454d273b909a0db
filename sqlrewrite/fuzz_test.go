package sqlrewrite

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// FuzzParse shows that no text makes Parse panic or crash, and that what it says can be used: ranges
// and positions lie in the text, parameters are numbered, types resolve.
func FuzzParse(f *testing.F) {
	for _, file := range readSQLFiles(f) {
		for _, c := range file.cases {
			f.Add(c.text, c.options.StandardConformingStrings, uint32(0))
		}
	}
	for _, tower := range towers {
		f.Add(strings.Replace(tower(20), "1", "raftable($1)", 1), true, uint32(25))
	}
	f.Fuzz(func(t *testing.T, text string, conforming bool, declared uint32) {
		p := Parse(text, Options{StandardConformingStrings: conforming})
		if p.Class != ClassNone && !Mentions([]byte(text)) {
			t.Fatalf("a call is found in %q, which does not mention the word", text)
		}
		highest, at, chars := ClassNone, 0, utf8.RuneCountInString(text)
		for _, s := range p.Statements {
			if s.Start < at || s.End < s.Start || s.End > len(text) {
				t.Fatalf("%q: range [%d,%d) after %d", text, s.Start, s.End, at)
			}
			at, highest = s.End, max(highest, s.Class)
			if (s.Local != nil) != (s.Class == ClassLocal) || (s.Refusal != nil) != (s.Class == ClassRefused) || (s.Command != nil) != (s.Class == ClassCommand) {
				t.Fatalf("%q: class %d, %+v, %+v", text, s.Class, s.Local, s.Refusal)
			}
			if r := s.Rewrite; (r != nil) != (s.Class == ClassRewritten || s.Class == ClassHarvested) && s.Class != ClassLocal {
				t.Fatalf("%q: class %d, %+v", text, s.Class, s.Rewrite)
			} else if r != nil {
				checkRewrite(t, text, s, r, conforming)
				checkRewrite(t, text, s, r.For([]uint32{declared}), conforming)
			}
			if s.Refusal != nil {
				checkRefusal(t, text, s.Refusal, chars)
			}
			if s.Local != nil {
				checkLocal(t, text, s.Local, declared, chars)
			}
		}
		if highest != p.Class {
			t.Fatalf("%q: class %d, statements %d", text, p.Class, highest)
		}
	})
}

func checkRefusal(t *testing.T, text string, r *Refusal, chars int) {
	if len(r.Code) != 5 || r.Message == "" || r.Position < 0 || r.Position > chars {
		t.Fatalf("%q: refusal %+v", text, r)
	}
}

// checkRewrite shows that the pieces are those of the statement, that positions can be mapped, and that what is sent can be read.
func checkRewrite(t *testing.T, text string, s Statement, r *Rewrite, conforming bool) {
	client, chars := 0, utf8.RuneCountInString(text)
	for _, p := range r.Pieces {
		switch p.Kind {
		case PieceClient:
			if p.Start < s.Start || p.End <= p.Start || p.End > s.End {
				t.Fatalf("%q: piece %+v", text, p)
			}
			client += p.End - p.Start
		case PieceValue:
			if p.Value < 0 || p.Value >= len(r.Values) {
				t.Fatalf("%q: piece %+v", text, p)
			}
			fallthrough
		default:
			if p.Call < 0 || p.Call >= len(r.Calls) {
				t.Fatalf("%q: piece %+v", text, p)
			}
		}
	}
	if client > 2*(s.End-s.Start) { // arguments of sets may stand there twice
		t.Fatalf("%q: %d bytes of the client's", text, client)
	}
	first := s.MaxParam + 1
	sent := r.Text(text, first)
	total := utf8.RuneCountInString(sent)
	for pos := -1; pos <= total+2; pos += 1 + total/200 {
		origin, call := r.Origin(text, first, pos)
		if origin < 1 || origin > chars+1 || call < -1 || call >= len(r.Calls) {
			t.Fatalf("%q: character %d of %q comes from %d, call %d", text, pos, sent, origin, call)
		}
		if call < 0 && pos >= 1 && pos <= total && runeAt(sent, pos) != runeAt(text, origin) {
			t.Fatalf("%q: character %d of %q comes from %d", text, pos, sent, origin)
		}
	}
	x := `it's \`
	values := make([]*string, len(r.Values))
	for i := range values {
		if i%2 == 0 {
			values[i] = &x
		}
	}
	literal := r.Literal(text, values)
	for _, sql := range []string{sent, literal} {
		if now := look(sql, Options{StandardConformingStrings: conforming}); now.ok {
			if _, err := parseTree(now.text, now.tokens); err != nil {
				t.Fatalf("%q is sent as %q: %v", text, sql, err)
			}
		}
	}
	if origin, _ := r.OriginLiteral(text, values, utf8.RuneCountInString(literal)+1); origin < 1 || origin > chars+1 {
		t.Fatalf("%q: the end comes from %d", text, origin)
	}
}

// runeAt gives character pos, from 1.
func runeAt(s string, pos int) rune {
	for _, r := range s {
		if pos--; pos == 0 {
			return r
		}
	}
	return -1
}

// FuzzExecutions shows that the places for arguments lie in the text, and that arguments can be put there.
func FuzzExecutions(f *testing.F) {
	for _, s := range []string{
		"EXECUTE p", "execute p(1, 'x')", "EXPLAIN ANALYZE EXECUTE \"P q\" /* c */ ; SELECT 1", "CREATE TABLE execute AS EXECUTE execute (1) WITH NO DATA",
		"EXPLAIN (ANALYZE off) CREATE TABLE x AS /* execute */ EXECUTE p", "EXECUTE p(raftable('a'), (SELECT 1))--", "SELECT 'execute'; EXECUTE p;EXECUTE q('é')",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, conforming bool) {
		o := Options{StandardConformingStrings: conforming}
		for _, e := range Parse(text, o).Executions {
			if e.Start < 0 || e.At <= e.Start || e.At > e.End || e.End > len(text) || e.Name == "" {
				t.Fatalf("%q: %+v", text, e)
			}
			add := "(1, 2)"
			if e.Args > 0 {
				add = ", 1, 2"
			}
			again := Parse(text[:e.At]+add+text[e.At:], o).Executions
			if len(again) <= 0 {
				t.Fatalf("%q: %+v: nothing is executed with arguments", text, e)
			}
			for _, a := range again {
				if a.Statement == e.Statement && (a.Name != e.Name || a.Args != e.Args+2) {
					t.Fatalf("%q: %+v, then %+v", text, e, a)
				}
			}
		}
	})
}

func checkLocal(t *testing.T, text string, l *Local, declared uint32, chars int) {
	if len(l.Columns) == 0 {
		t.Fatalf("%q: no columns", text)
	}
	for _, c := range l.Columns {
		want := map[Op][2]int{OpGet: {1, 1}, OpSet: {2, 3}}[c.Op]
		if c.Position < 1 || c.Position > chars || len(c.Args) < want[0] || len(c.Args) > want[1] || l.From != (c.Op >= OpKey) {
			t.Fatalf("%q: column %+v", text, c)
		}
		for _, a := range c.Args {
			if a.Position < 1 || a.Position > chars || a.Param < 0 || a.Param > len(l.Params) || !utf8.ValidString(a.Value) {
				t.Fatalf("%q: argument %+v", text, a)
			}
		}
	}
	for _, types := range [][]uint32{nil, {declared}, {25, declared, declared}} {
		oids, refusal := l.ResolveParams(types)
		if refusal != nil {
			checkRefusal(t, text, refusal, chars)
		} else if len(oids) != max(len(types), len(l.Params)) {
			t.Fatalf("%q: %d declared, %d used, %d resolved", text, len(types), len(l.Params), len(oids))
		}
	}
}

// FuzzLexer compares the tokens with those of PostgreSQL's lexer wherever that reads the text at all.
// Numbers and operators may be cut finer, which only makes a tree look deeper. The comments are blanked
// as they are for the parser, because this edition of its lexer ends a constant at a comment.
func FuzzLexer(f *testing.F) {
	for _, file := range readSQLFiles(f) {
		for _, c := range file.cases {
			f.Add(c.text)
		}
	}
	for _, s := range []string{"+-*-", "a@-b", "1e+5-.5+1.", "a<--b\n", "'a'\n'b'", "e'\\''", "b'1'x'2'", "$a$b$a$", "$1", "a$1", "x[1:2]::y", "u&'a' uescape '!'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return
		}
		got, clean, ok := structure(text)
		if !ok {
			return
		}
		scanned, err := pg_query.Scan(clean)
		if err != nil {
			return
		}
		if want := scannedStructure(clean, scanned); got != want {
			t.Fatalf("%q\nours:         %s\nPostgreSQL's: %s", text, got, want)
		}
	})
}

// structure writes down all tokens but numbers, operators and dots. It is not ok for a text that ends inside
// a token, and for one with two constants in a row, which is not parsed.
func structure(text string) (tokens, clean string, ok bool) {
	var b strings.Builder
	lex, last := lexer{text: text, clean: []byte(text)}, kEnd
	for {
		t := lex.next()
		switch t.kind {
		case kEnd:
			return b.String(), string(lex.clean), true
		case kBad:
			return "", "", false
		case kNumber, kOp, kOther, kDot:
		default:
			fmt.Fprintf(&b, "%d-%d %s\n", t.start, t.end, lex.clean[t.start:t.end])
		}
		if t.kind == kString && last == kString {
			return "", "", false
		}
		last = t.kind
	}
}

func scannedStructure(text string, r *pg_query.ScanResult) string {
	var b strings.Builder
	for _, t := range r.Tokens {
		s := text[t.Start:t.End]
		if c := classes[s[0]]; c == cIdent || strings.ContainsAny(s[:1], "'\"()[],;") || s[0] == '$' && len(s) > 1 {
			fmt.Fprintf(&b, "%d-%d %s\n", t.Start, t.End, s)
		}
	}
	return b.String()
}
