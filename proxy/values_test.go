package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/raftproxy/raftproxy/internal/pgtest"
	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// TestAppendJSON writes strings that encoding/json reads back, one of every character that there is.
func TestAppendJSON(t *testing.T) {
	var all []string
	for r := rune(1); r <= utf8.MaxRune; r++ {
		if r == 0xd800 {
			r = 0xe000
		}
		if r < 0x3000 || r%97 == 0 || r > 0xffff && r < 0x10100 || r > 0x10fff0 || r >= 0xe000 && r < 0x10000 {
			all = append(all, string(r))
		}
	}
	all = append(all, "", `a"b\c`, "\x7f\x1f", "é\U0001f600é", strings.Join(all, ""), "\\u0041")
	for _, s := range all {
		for _, ascii := range []bool{false, true} {
			b := appendJSON([]byte("["), []byte(s), ascii)
			if ascii && !isASCII(b) {
				t.Fatalf("%q has bytes beyond ASCII: %q", s, b)
			}
			var got []string
			if err := json.Unmarshal(append(b, ']'), &got); err != nil || len(got) != 1 || got[0] != s {
				t.Fatalf("%q, ASCII %v: encoding/json reads %q of %q, %v", s, ascii, got, b, err)
			}
		}
	}
}

// TestAppendBind adds values to a Bind that has any number of formats, and reads the message again.
func TestAppendBind(t *testing.T) {
	value := func(s ...string) (out [][]byte) {
		for _, v := range s {
			if v == "-" {
				out = append(out, nil)
			} else {
				out = append(out, []byte(v))
			}
		}
		return out
	}
	for _, c := range []struct {
		what         string
		formats      []int16
		params, more [][]byte
		results      []int16
		want         []int16 // formats, nil for all text
	}{
		{"nothing", nil, nil, nil, nil, nil},
		{"no formats", nil, value("a", "-"), value("v"), nil, nil},
		{"text for all", []int16{0}, value("a", "b"), value("v"), []int16{1}, nil},
		{"binary for all", []int16{1}, value("a", "b"), value("v", "-"), nil, []int16{1, 1, 0, 0}},
		{"binary for all, with no values", []int16{1}, value("a"), nil, []int16{0, 1}, []int16{1}},
		{"one each", []int16{0, 1}, value("a", "b"), value("v"), nil, []int16{0, 1, 0}},
		{"binary for none", []int16{1}, nil, value("v"), nil, []int16{0}},
		{"text for none", []int16{0}, nil, value("v", ""), nil, []int16{0, 0}},
		{"an unknown code", []int16{7}, value("a"), value("v"), []int16{9}, []int16{7, 0}},
		{"many", []int16{1}, make([][]byte, 3000), make([][]byte, 3000), nil, append(slices.Repeat([]int16{1}, 3000), make([]int16, 3000)...)},
	} {
		in := bindMessage{formats: c.formats, values: c.params, resultFormats: c.results}
		b := appendBind([]byte("before"), []byte("portal"), []byte("statement"), &in, c.more)
		if typ, size := header(b[6:]); typ != 'B' || size != len(b)-6 {
			t.Errorf("%s: the header says %c and %d", c.what, typ, size)
			continue
		}
		var got bindMessage
		if !got.decode(b[6+headerSize:]) || string(got.portal) != "portal" || string(got.statement) != "statement" {
			t.Errorf("%s: cannot read %q", c.what, b)
			continue
		}
		if !slices.Equal(got.formats, c.want) {
			t.Errorf("%s: formats %v, want %v", c.what, got.formats, c.want)
		}
		if !slices.Equal(got.resultFormats, c.results) {
			t.Errorf("%s: result formats %v", c.what, got.resultFormats)
		}
		if a, b := elementsLine(got.values), elementsLine(slices.Concat(c.params, c.more)); a != b {
			t.Errorf("%s: values%s, want%s", c.what, a, b)
		}
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		formats, values, params int
		want                    string
	}{
		{0, 0, 0, ""}, {1, 0, 0, ""}, {0, 2, 2, ""}, {1, 2, 2, ""}, {2, 2, 2, ""},
		{2, 3, 3, "2 parameter formats but 3 parameters"},
		{2, 0, 0, "2 parameter formats but 0 parameters"},
		{3, 2, 2, "3 parameter formats but 2 parameters"},
		{0, 1, 2, `supplies 1 parameters, but prepared statement "s" requires 2`},
		{1, 3, 2, `supplies 3 parameters, but prepared statement "s" requires 2`},
	} {
		m := bindMessage{statement: []byte("s"), formats: make([]int16, c.formats), values: make([][]byte, c.values)}
		got := ""
		if e := m.fits(c.params); e != nil {
			got = e.message
			if e.code != "08P01" {
				t.Errorf("%v: code %s", c, e.code)
			}
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q", c, got)
		}
		if n := clientFormats(&m); c.formats == 1 && n != c.values || c.formats != 1 && n != c.formats {
			t.Errorf("%v: %d formats", c, n)
		}
	}
}

// TestParseTimeoutAgainstPostgres reads times as PostgreSQL reads lock_timeout, but for those that are not positive.
func TestParseTimeoutAgainstPostgres(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	w := dialWire(t, pg.Addr())
	for _, s := range []string{
		"1", "1ms", "1 ms", " 1 ms ", "1\tms", "1\nms", "+1", "-1", "0", "0s", "1s", "2 s", "1min", "1h", "1d", "24d", "25d", "1us", "499us", "500us",
		"501us", "1500us", "2500us", "1S", "1MS", "1 Min", "1m", "1sec", "1.5", "1.5s", "1.0005s", "1.4999ms", "1.5ms", "2.5ms", "0.5ms",
		"0.4s", ".5s", "5.s", "1e3", "1e3ms", "1E3", "1e", "1e+2s", "0x10", "0X1f", "0x", "010", "08", "0b1", "1_000", "1,000", "1s1", "1 s s", "s", "",
		" ", "-", "+", ".", "ten", "inf", "nan", "NaN", "infinity", "2147483647", "2147483648", "2147483647ms", "2147483.647s", "2147483.648s",
		"99999999999999999999", "1e300", "1e999", "9223372036854775808", "0.0000001d", "1\u00a0s", "１", "1\vms", "1\fms", "1;s", "'1'", "1 -s",
		"7.9999s", "500.4us", "0.00051s", "0.0005s", "1.49d", "0.5us", "1.5us", "08.5s", "007s", "010.5s", "-010", "00", "0", "0.4999us", "3.14159min", "0.5h",
	} {
		want := ""
		if got := w.ask(fmt.Sprintf("SET lock_timeout = '%s'", strings.ReplaceAll(s, "'", "''"))); strings.HasPrefix(got, "C SET") {
			want = strings.Split(w.ask("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'"), `"`)[1]
		}
		got := ""
		if d, ok := parseTimeout(s); ok {
			got = fmt.Sprint(d.Milliseconds())
		}
		if want == "0" {
			want = ""
		}
		if got != want {
			t.Errorf("%q is %q ms, PostgreSQL says %q", s, got, want)
		}
	}
}

// TestTakeHeld says what lets a held message go, and what does away with it.
func TestTakeHeld(t *testing.T) {
	set := harvesting(sqlrewrite.OpSet)
	for _, c := range []struct {
		what  string
		entry entry
		reply *reply
		next  byte
		want  string // goes, stays or is dropped
	}{
		{"the end of a query", 'S', nil, 'Z', "goes"},
		{"an error", 'S', nil, 'E', "dropped"},
		{"an error of a statement in between", 'E', nil, 'E', "dropped"},
		{"a notice", 'S', nil, 'N', "stays"},
		{"a setting", 'S', nil, 'S', "stays"},
		{"a hidden answer", 'P' | quietAnswer, nil, '1', "stays"},
		{"an answer", 'P', nil, '1', "goes"},
		{"the next description", 'D' | replied, &reply{}, 'T', "stays"},
		{"a row", 'E' | replied, &reply{}, 'D', "goes"},
		{"a harvested row", 'E' | replied, &reply{shape: set}, 'D', "stays"},
		{"the end of a statement", 'E' | replied, &reply{}, 'C', "goes"},
		{"the end of the last statement of a query", 'E' | replied, &reply{holdComplete: true}, 'C', "stays"},
		{"the end of a harvested statement", 'E' | replied, &reply{shape: set}, 'C', "stays"},
		{"a portion of a harvested statement", 'E' | replied, &reply{shape: set}, 's', "stays"},
		{"a portion of another statement", 'E' | replied, &reply{}, 's', "goes"},
	} {
		p := newScripted(t, nil)
		b := &p.s.back
		p.s.owed.pushReplied(c.entry, c.reply)
		if b.takeHeld(c.next) != nil {
			t.Errorf("%s: there is something, though nothing is held", c.what)
		}
		b.held = []byte("held")
		got := b.takeHeld(c.next)
		said := "goes"
		switch {
		case got == nil && b.held != nil:
			said = "stays"
		case got == nil:
			said = "dropped"
		case b.held != nil || !bytes.Equal(got, []byte("held")):
			t.Errorf("%s: given and kept", c.what)
		}
		if said != c.want {
			t.Errorf("%s: it is %s, want %s", c.what, said, c.want)
		}
	}
}
