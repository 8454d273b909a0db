package proxy

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// description makes the body of a RowDescription with columns of type text.
func description(columns ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(columns)))
	for _, c := range columns {
		b = append(append(b, c...), 0)
		b = append(b, 0, 0, 0, 7, 0, 3)             // table, attribute
		b = append(b, 0, 0, 0x03, 0xf1, 0xff, 0xff) // text[], any size
		b = append(b, 0xff, 0xff, 0xff, 0xff, 0, 1) // no type modifier, binary
	}
	return b
}

// row makes the body of a DataRow; nil is NULL.
func row(values ...any) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			b = appendNull(b)
		case string:
			b = appendValue(b, []byte(v))
		case []byte:
			b = appendValue(b, v)
		}
	}
	return b
}

// harvesting is a shape with calls of the given kinds, named after their numbers.
func harvesting(ops ...sqlrewrite.Op) *shape {
	rw := &sqlrewrite.Rewrite{}
	for i, op := range ops {
		args := 2
		if op == sqlrewrite.OpGet {
			args = 1
		}
		rw.Harvest = append(rw.Harvest, sqlrewrite.Harvest{Op: op, Name: "c" + itoa(i), Args: args})
	}
	return &shape{rw: rw}
}

func TestDescribe(t *testing.T) {
	name := sqlrewrite.HarvestName
	for _, c := range []struct {
		what    string
		body    []byte
		want    string
		harvest []int
	}{
		{"a set", description(name(0)), " c0:2278:4:-1:1", []int{0}},
		{"a get", description(name(1)), " c1:25:-1:-1:1", []int{1}},
		{"among others, in any order", description("a", name(1), "", name(0), "a"),
			" a:1009:-1:-1:1 c1:25:-1:-1:1 :1009:-1:-1:1 c0:2278:4:-1:1 a:1009:-1:-1:1", []int{-1, 1, -1, 0, -1}},
		{"a call that is not one of the statement's", description(name(2)), " " + name(2) + ":1009:-1:-1:1", []int{-1}},
		{"no columns", description(), "", []int{}},
	} {
		s := harvesting(sqlrewrite.OpSet, sqlrewrite.OpGet)
		got := s.describe(c.body)
		if line := rowDescription(got); line != c.want {
			t.Errorf("%s: %q, want %q", c.what, line, c.want)
		}
		if diff := cmp.Diff(c.harvest, s.harvest); diff != "" {
			t.Errorf("%s: harvested columns (-want +got):\n%s", c.what, diff)
		}
		// Cut anywhere it is passed on as it came.
		for n := range len(c.body) {
			if got := s.describe(c.body[:n]); n != 2 && !bytes.Equal(got, c.body[:n]) {
				t.Errorf("%s, %d bytes of it: %q", c.what, n, got)
			}
		}
	}
	plain := &shape{rw: &sqlrewrite.Rewrite{}}
	if b := description("a"); &plain.describe(b)[0] != &b[0] {
		t.Error("what is not harvested is copied")
	}
}

func TestTrimParameters(t *testing.T) {
	parameters := func(oids ...byte) []byte {
		b := []byte{0, byte(len(oids))}
		for _, o := range oids {
			b = append(b, 0, 0, 0, o)
		}
		return b
	}
	for _, c := range []struct {
		in     []byte
		params int
		want   []byte
	}{
		{parameters(25, 23, 25), 1, parameters(25)},
		{parameters(25, 23), 2, parameters(25, 23)},
		{parameters(25), 0, parameters()},
		{parameters(25), 2, parameters(25)}, // fewer than there must be: the client may wonder
		{[]byte{0}, 0, []byte{0}},
		{nil, 3, nil},
	} {
		if got := trimParameters(c.in, c.params); !bytes.Equal(got, c.want) {
			t.Errorf("%d of %v: %v, want %v", c.params, c.in, got, c.want)
		}
	}
}

// sentOf is the text that the server has of a statement with calls. values are those in the text, if it takes no parameters.
func sentOf(t testing.TB, text string, values ...string) *sentText {
	t.Helper()
	rw := sqlrewrite.Parse(text, sqlrewrite.Options{StandardConformingStrings: true}).Statements[0].Rewrite
	if rw == nil {
		t.Fatalf("%s is not rewritten", text)
	}
	s := &sentText{rw: rw, text: text, first: 1}
	if rw.Literals {
		for i := range values {
			s.literals = append(s.literals, &values[i])
		}
	}
	return s
}

// sql is the text that the server has.
func (t *sentText) sql() string {
	if t.literals != nil {
		return t.rw.Literal(t.text, t.literals)
	}
	return t.rw.Text(t.text, t.first)
}

// fields makes the body of an ErrorResponse.
func fields(f ...string) []byte { return []byte(strings.Join(f, "\x00") + "\x00\x00") }

func TestMapError(t *testing.T) {
	const text = "SELECT 'é', raftable('k') || nothing, raftable('l'), nowhere FROM t"
	const copied = "COPY (SELECT raftable('k'), nothing) TO STDOUT"
	for _, c := range []struct {
		what string
		sent *sentText
		at   string // what the server complains of
	}{
		{"in front of all calls", sentOf(t, text), "'é'"},
		{"behind a call", sentOf(t, text), "nothing"},
		{"behind all calls", sentOf(t, text), "nowhere"},
		{"behind a value in the text", sentOf(t, copied, "värde 'quoted' \\"), "nothing"},
	} {
		place := func(s string) string { return "P" + itoa(characters(s[:strings.Index(s, c.at)])+1) }
		got := c.sent.mapError(fields("SERROR", "C42703", "Mno", place(c.sent.sql()), "Dwhy", "Hhow"), false)
		if want := fields("SERROR", "C42703", "Mno", place(c.sent.text), "Dwhy", "Hhow"); !bytes.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.what, got, want)
		}
	}
	s := sentOf(t, text)
	for _, c := range []struct{ what, in, want string }{
		{"no position", "SERROR\x00C22012\x00Mno\x00\x00", "SERROR\x00C22012\x00Mno\x00\x00"},
		{"a position that is none", "Mno\x00Pthere\x00\x00", "Mno\x00\x00"},
		{"position zero", "Mno\x00P0\x00\x00", "Mno\x00\x00"},
		{"a negative position", "Mno\x00P-7\x00\x00", "Mno\x00\x00"},
		{"a position too large for any number", "Mno\x00P99999999999999999999\x00\x00", "Mno\x00\x00"},
		{"a position behind the text", "P1000000\x00\x00", "P" + itoa(characters(text)+1) + "\x00\x00"},
		{"no end", "Mno", "Mno\x00\x00"},
		{"nothing", "", "\x00"},
		{"unknown fields", "Zé\x00\x00", "Zé\x00\x00"},
		{"empty fields", "M\x00D\x00\x00", "M\x00D\x00\x00"},
	} {
		if got := s.mapError([]byte(c.in), false); string(got) != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// TestMapErrorOfBatch says of a query what PostgreSQL says of a query, though it ran in a pipeline.
func TestMapErrorOfBatch(t *testing.T) {
	s := sentOf(t, "SELECT 1 WHERE raftable('k') IS NULL")
	in := fields("C25001", "MVACUUM cannot be executed within a pipeline")
	if got, want := s.mapError(in, true), fields("C25001", "MVACUUM cannot run inside a transaction block"); !bytes.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := s.mapError(in, false); !bytes.Equal(got, in) {
		t.Errorf("in a pipeline: %q", got)
	}
}

func TestCountArguments(t *testing.T) {
	for _, c := range []struct {
		arguments          int
		code, detail, want string
	}{
		{2, "42601", "Expected 3 parameters but got 4.", "Expected 1 parameters but got 2."},
		{2, "42601", "Expected 3 parameters but got 2.", "Expected 1 parameters but got 0."},
		{0, "42601", "Expected 3 parameters but got 4.", "Expected 3 parameters but got 4."},
		{2, "42602", "Expected 3 parameters but got 4.", "Expected 3 parameters but got 4."},
		{2, "42601", "Something else with 3 and 4.", "Something else with 3 and 4."},
		{2, "42601", "", ""},
	} {
		s := &sentText{arguments: c.arguments}
		if got := s.countArguments(c.code, c.detail); got != c.want {
			t.Errorf("%q with %d more: %q, want %q", c.detail, c.arguments, got, c.want)
		}
	}
}

// FuzzDescribe describes any bytes: what is well formed stays so, and what is not stays as it is.
func FuzzDescribe(f *testing.F) {
	f.Add(description("a", sqlrewrite.HarvestName(0), sqlrewrite.HarvestName(1)))
	f.Add(description(sqlrewrite.HarvestName(1), sqlrewrite.HarvestName(1), sqlrewrite.HarvestName(7)))
	f.Add(append(description(sqlrewrite.HarvestName(0)), "more"...))
	f.Add([]byte("\xff\xffa\x00"))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, body []byte) {
		s := harvesting(sqlrewrite.OpSet, sqlrewrite.OpGet)
		before := bytes.Clone(body)
		got := s.describe(body)
		if !bytes.Equal(body, before) {
			t.Error("the message was changed in its place")
		}
		if len(body) < 2 {
			return
		}
		n, whole := int(binary.BigEndian.Uint16(body)), 2
		for range n {
			name := bytes.IndexByte(body[whole:], 0)
			if name < 0 || len(body)-whole-name-1 < fieldSize {
				if !bytes.Equal(got, body) {
					t.Errorf("%q became %q", body, got)
				}
				return
			}
			whole += name + 1 + fieldSize
		}
		if len(s.harvest) != n || binary.BigEndian.Uint16(got) != uint16(n) {
			t.Errorf("%d columns, %d looked at, %d said", n, len(s.harvest), binary.BigEndian.Uint16(got))
		}
		if !bytes.HasSuffix(got, body[whole:]) {
			t.Errorf("what is behind the columns became %q", got)
		}
	})
}

// FuzzMapError takes any bytes for an error of the server's: what comes out is an ErrorResponse, with the same fields.
func FuzzMapError(f *testing.F) {
	f.Add([]byte("SERROR\x00VERROR\x00C42703\x00Mcolumn \"x\" does not exist\x00P30\x00\x00"))
	f.Add([]byte("C42883\x00Mfunction pg_catalog.varchar(point, integer, boolean) does not exist\x00P14\x00\x00"))
	f.Add([]byte("C42601\x00DExpected 3 parameters but got 4.\x00P-1\x00\x00"))
	f.Add([]byte("C25001\x00Mx cannot be executed within a pipeline\x00\x00"))
	f.Add([]byte("P9223372036854775807\x00\x00\x00\x00"))
	f.Add([]byte{})
	sent := []*sentText{
		sentOf(f, "SELECT 'é', raftable('k') || nothing, raftable(x) FROM t"),
		sentOf(f, "COPY (SELECT raftable('k'), nothing) TO STDOUT", "värde"),
		{rw: sqlrewrite.Whole(0, 8), text: "SELECT 1", first: 1, arguments: 2},
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		for _, s := range sent {
			for _, query := range []bool{false, true} {
				got := s.mapError(body, query)
				if len(got) == 0 || got[len(got)-1] != 0 {
					t.Fatalf("%q became %q, which has no end", body, got)
				}
				var in, out []byte
				for _, f := range splitFields(body) {
					if f[0] != 'P' {
						in = append(in, f[0])
					}
				}
				for _, f := range splitFields(got) {
					if f[0] != 'P' {
						out = append(out, f[0])
					} else if len(f) < 2 || f[1] == '-' || f[1] == '0' {
						t.Fatalf("%q has the position %q", got, f)
					}
				}
				if !bytes.Equal(in, out) {
					t.Fatalf("fields %q became %q", in, out)
				}
			}
		}
		if !bytes.Equal(before, body) {
			t.Error("the message was changed in its place")
		}
	})
}
