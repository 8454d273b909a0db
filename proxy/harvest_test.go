package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/raftproxy/raftproxy/internal/pgtest"
	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// binaryArray makes an array of text as array_send writes it; nil is NULL.
func binaryArray(elements ...any) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = binary.BigEndian.AppendUint32(b, 1) // has NULLs
	b = binary.BigEndian.AppendUint32(b, oidText)
	b = binary.BigEndian.AppendUint32(b, uint32(len(elements)))
	b = binary.BigEndian.AppendUint32(b, 1)
	return append(b, row(elements...)[2:]...)
}

func TestArrayElements(t *testing.T) {
	text := func(s string) []byte { return []byte(s) }
	for _, c := range []struct {
		what   string
		in     []byte
		format int16
		want   string // as transcribed, "no" for what is no array
	}{
		{"plain", text(`{a,b}`), 0, ` "a" "b"`},
		{"one", text(`{a}`), 0, ` "a"`},
		{"none, which no call has", text(`{}`), 0, "no"},
		{"NULL", text(`{NULL,a,NULL}`), 0, ` NULL "a" NULL`},
		{"the word NULL", text(`{"NULL",null}`), 0, ` "NULL" "null"`},
		{"the empty string", text(`{"",a}`), 0, ` "" "a"`},
		{"quotes and backslashes", text(`{"a\"b","c\\d","\\","\""}`), 0, ` "a\"b" "c\\d" "\\" "\""`},
		{"braces and commas", text(`{"a,b","{x}","}"}`), 0, ` "a,b" "{x}" "}"`},
		{"blanks and lines", text("{\" a \",\"b\nc\"}"), 0, ` " a " "b\nc"`},
		{"a backslash outside of quotes is array_in's business", text(`{a\b}`), 0, ` "a\\b"`},
		{"no braces", text(`a,b`), 0, "no"},
		{"half a brace", text(`{`), 0, "no"},
		{"no end", text(`{a`), 0, "no"},
		{"a quote without an end", text(`{"a}`), 0, "no"},
		{"an end in quotes", text(`{"a\"}`), 0, "no"},
		{"a backslash at the end", text(`{"\}`), 0, "no"},
		{"more behind the end", text(`{a}b}`), 0, "no"},
		{"more behind a quote", text(`{"a"b}`), 0, "no"},
		{"bounds", text(`[2:3]={a,b}`), 0, "no"},
		{"a comma at the end", text(`{a,}`), 0, "no"},
		{"nothing", nil, 0, "no"},

		{"binary", binaryArray("a", "", nil, "b"), 1, ` "a" "" NULL "b"`},
		{"binary, one", binaryArray("a"), 1, ` "a"`},
		{"binary, two dimensions", append([]byte{0, 0, 0, 2}, binaryArray("a")[4:]...), 1, "no"},
		{"binary, no dimension", make([]byte, 20), 1, "no"},
		{"binary, more behind the end", append(binaryArray("a"), 0), 1, "no"},
		{"binary, cut short", binaryArray("a", "b")[:25], 1, "no"},
		{"binary, many elements", append(append(binaryArray()[:12], 0x7f, 0xff, 0xff, 0xff), 0, 0, 0, 1), 1, "no"},
		{"binary, nothing", nil, 1, "no"},
	} {
		got := "no"
		if e, ok := arrayElements(c.in, c.format); ok {
			got = elementsLine(e)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// elementsLine transcribes elements.
func elementsLine(elements [][]byte) string {
	var line strings.Builder
	for _, e := range elements {
		if e == nil {
			line.WriteString(" NULL")
		} else {
			line.WriteString(" " + quoted(e))
		}
	}
	return line.String()
}

// FuzzArrayElements reads any bytes as an array. What was read, written again, is read alike.
func FuzzArrayElements(f *testing.F) {
	for _, s := range []string{`{a,"b \"c\\",NULL,""}`, `{}`, `{"a}`, `{a,}`, `{"\`, `{NULL}`, `{{a},{b}}`} {
		f.Add([]byte(s), false)
	}
	f.Add(binaryArray("a", nil, ""), true)
	f.Add(append(binaryArray("a")[:12], 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1), true)
	f.Fuzz(func(t *testing.T, b []byte, binary bool) {
		format := int16(0)
		if binary {
			format = 1
		}
		before := bytes.Clone(b)
		elements, ok := arrayElements(b, format)
		if !bytes.Equal(b, before) {
			t.Fatal("the message was changed in its place")
		}
		if !ok || len(elements) == 0 {
			return
		}
		values := make([]any, len(elements))
		for i, e := range elements {
			if e != nil {
				values[i] = e
			}
		}
		again, ok := binaryElements(binaryArray(values...))
		if diff := cmp.Diff(elementsLine(elements), elementsLine(again)); !ok || diff != "" {
			t.Fatalf("read again as binary: %v\n%s", ok, diff)
		}
		if again, ok = textElements(arrayText(elements)); !ok || elementsLine(again) != elementsLine(elements) {
			t.Fatalf("read again as text: %v, %s of %s", ok, elementsLine(again), elementsLine(elements))
		}
	})
}

// arrayText makes an array as array_out writes it.
func arrayText(elements [][]byte) []byte {
	b := []byte{'{'}
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		if e == nil {
			b = append(b, "NULL"...)
			continue
		}
		b = append(b, '"')
		for _, c := range e {
			if c == '"' || c == '\\' {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
		b = append(b, '"')
	}
	return append(b, '}')
}

// textHarvest has a set in front of a plain column, under a name that nothing of the model has.
const textHarvest = "SELECT raftable(k, v), n FROM harvested"

// scripted is a session whose server answers the messages of a client's by hand.
type scripted struct {
	t    *testing.T
	s    *session
	said bytes.Buffer // to the client
	told []byte       // to the server
}

// newScripted begins one; answer is asked what the server says to what it was sent, and may be nil.
func newScripted(t *testing.T, answer func(msgs []byte) []byte) *scripted {
	t.Helper()
	srv, err := New(Config{Upstream: "127.0.0.1:1", Table: newMapTable()})
	if err != nil {
		t.Fatal(err)
	}
	p := &scripted{t: t}
	server := &fakeConn{}
	p.s = newSession(srv, &fakeConn{write: func(b []byte) { p.said.Write(b) }}, server, srv.cfg.Logger)
	server.write = func(b []byte) {
		p.told = append(p.told, b...)
		if answer != nil {
			p.feed(answer(b))
		}
	}
	p.feed([]byte("Z\x00\x00\x00\x05I"))
	p.said.Reset()
	return p
}

// feed has the server say something, in one piece.
func (p *scripted) feed(b []byte) {
	p.t.Helper()
	if len(b) > 0 {
		if err := p.s.back.feed(bytes.Clone(b)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *scripted) table() map[string]string { return p.s.srv.cfg.Table.(*mapTable).rows }

// transcript is what the client was told.
func (p *scripted) transcript() string {
	p.t.Helper()
	var lines []string
	b := p.said.Bytes()
	for len(b) > 0 {
		if len(b) < headerSize {
			p.t.Fatalf("%q is no message", b)
		}
		typ, size := header(b)
		if size < headerSize || size > len(b) {
			p.t.Fatalf("%q has a length that is none", b)
		}
		lines = append(lines, transcribe(typ, b[headerSize:size]))
		b = b[size:]
	}
	return strings.Join(lines, "\n")
}

// harvestAnswers answers a simple query of textHarvest's kind with the given description and rows.
func harvestAnswers(rowDesc []byte, rows ...[]byte) func([]byte) []byte {
	return func(msgs []byte) (out []byte) {
		for len(msgs) > 0 {
			typ, size := header(msgs)
			msgs = msgs[size:]
			switch typ {
			case 'P':
				out = append(out, newMessage('1', nil)...)
			case 'B':
				out = append(out, newMessage('2', nil)...)
			case 'C':
				out = append(out, newMessage('3', nil)...)
			case 'D':
				out = append(out, newMessage('T', rowDesc)...)
			case 'E':
				if size > headerSize+5 { // the portal that does not exist
					out = append(out, rawMessage('E', "SERROR\x00VERROR\x00C34000\x00Mno\x00\x00")...)
					continue
				}
				for _, r := range rows {
					out = append(out, newMessage('D', r)...)
				}
				out = append(out, newMessage('C', []byte("SELECT "+itoa(len(rows))+"\x00"))...)
			case 'S':
				out = append(out, newMessage('Z', []byte("I"))...)
			}
		}
		return out
	}
}

// TestHarvestOfRowsThatDoNotFit has the server send what is no answer to the question. What was right before it has been done
// and is shown, the client gets an error in its own protocol, and the session goes on.
func TestHarvestOfRowsThatDoNotFit(t *testing.T) {
	set, n := sqlrewrite.HarvestName(0), "n"
	good := row("{k,v}", "1")
	for _, c := range []struct {
		what string
		desc []byte
		rows [][]byte
		want string // of the error
	}{
		{"more columns than described", description(set, n), [][]byte{row("{l,v}", "1", "2")}, "another number of columns"},
		{"fewer columns", description(set, n), [][]byte{row("{l,v}")}, "another number of columns"},
		{"no row at all", description(set, n), [][]byte{{0}}, "no row"},
		{"an empty message", description(set, n), [][]byte{{}}, "no row"},
		{"no array", description(set, n), [][]byte{row("l", "1")}, "no array"},
		{"a NULL", description(set, n), [][]byte{row(nil, "1")}, "no array"},
		{"an array of one", description(set, n), [][]byte{row("{l}", "1")}, "no array"},
		{"an array of three", description(set, n), [][]byte{row("{l,v,1}", "1")}, "no array"},
		{"cut short in a length", description(n, set), [][]byte{row("1", "{l,v}")[:9]}, "cut short"},
		{"cut short in a value", description(n, set), [][]byte{row("1", "{l,v}")[:14]}, "cut short"},
		{"a length beyond the message", description(n, set), [][]byte{append(row("1", "")[:7], 0x7f, 0xff, 0xff, 0xff)}, "cut short"},
	} {
		t.Run(c.what, func(t *testing.T) {
			desc := c.desc
			first := good
			if bytes.HasPrefix(desc[2:], []byte("n\x00")) {
				first = row("1", "{k,v}")
			}
			p := newScripted(t, harvestAnswers(desc, append([][]byte{first}, c.rows...)...))
			feedAll(t, p.s, query(textHarvest))
			got := p.transcript()
			if !strings.Contains(got, c.want) || !strings.Contains(got, `C="XX000"`) || !strings.HasSuffix(got, "Z I") {
				t.Errorf("the client is told\n%s", got)
			}
			if n := strings.Count(got, "\nD "); n != 1 {
				t.Errorf("the client sees %d rows in\n%s", n, got)
			}
			if diff := cmp.Diff(map[string]string{"k": "v"}, p.table()); diff != "" {
				t.Errorf("the table (-want +got):\n%s", diff)
			}
			p.said.Reset()
			feedAll(t, p.s, query("SELECT raftable('k')"))
			if got := p.transcript(); !strings.Contains(got, `D "v"`) {
				t.Errorf("afterwards\n%s", got)
			}
		})
	}
}

// TestHarvestDescribedBadly has the server describe columns that the statement does not have.
func TestHarvestDescribedBadly(t *testing.T) {
	set := sqlrewrite.HarvestName(0)
	for what, desc := range map[string][]byte{
		"nothing": {}, "cut short": description(set, "n")[:40], "fewer": description(set), "none of the calls": description("a", "b"),
		"more than there are": append([]byte{0xff, 0xff}, description(set, "n")[2:]...),
	} {
		t.Run(what, func(t *testing.T) {
			p := newScripted(t, harvestAnswers(desc, row("{k,v}", "1")))
			feedAll(t, p.s, query(textHarvest))
			if !bytes.HasSuffix(p.said.Bytes(), []byte("Z\x00\x00\x00\x05I")) {
				t.Errorf("the client is told %q", p.said.Bytes())
			}
			if len(p.table()) > 0 {
				t.Errorf("%v was set", p.table())
			}
		})
	}
}

// TestHarvestOfGiantArrays has arrays come that claim to be what they are not, and one that is really large.
func TestHarvestOfGiantArrays(t *testing.T) {
	large := strings.Repeat("x", 32<<20)
	p := newScripted(t, harvestAnswers(description(sqlrewrite.HarvestName(0), "n"), row("{k,"+large+"}", "1")))
	feedAll(t, p.s, query(textHarvest))
	if got := p.table()["k"]; got != large {
		t.Errorf("%d bytes were set", len(got))
	}
	many := "{" + strings.Repeat("a,", 1<<20) + "a}"
	p = newScripted(t, harvestAnswers(description(sqlrewrite.HarvestName(0), "n"), row(many, "1")))
	feedAll(t, p.s, query(textHarvest))
	if got := p.transcript(); !strings.Contains(got, "no array of arguments") {
		t.Errorf("the client is told\n%s", got)
	}
}

// TestHarvestInPieces cuts what the server says at every byte.
func TestHarvestInPieces(t *testing.T) {
	answers := func(portal bool) []byte {
		var b []byte
		b = append(append(b, newMessage('1', nil)...), newMessage('T', description(sqlrewrite.HarvestName(0), "n"))...)
		b = append(append(b, newMessage('2', nil)...), newMessage('D', row("{k,v}", "1"))...)
		if portal {
			return append(b, newMessage('s', nil)...)
		}
		return append(b, newMessage('C', []byte("SELECT 1\x00"))...)
	}
	for _, portal := range []bool{false, true} {
		all := answers(portal)
		for at := range len(all) {
			p := newScripted(t, nil)
			o := &p.s.owed
			shape := harvesting(sqlrewrite.OpSet)
			o.mu.Lock()
			o.push('P')
			o.pushReplied('D'|replied, &reply{shape: shape})
			o.push('B')
			o.pushReplied('E'|replied, &reply{shape: shape})
			o.mu.Unlock()
			p.feed(all[:at])
			p.feed(all[at:])
			want := "1\nT c0:2278:4:-1:1 n:1009:-1:-1:1\n2\nD \"\" \"1\"\n"
			if portal {
				want += "s"
			} else {
				want += "C SELECT 1"
			}
			if got := p.transcript(); got != want {
				t.Fatalf("cut at %d:\n%s\nwant\n%s", at, got, want)
			}
			if p.table()["k"] != "v" {
				t.Fatalf("cut at %d: nothing was set", at)
			}
		}
	}
}

// TestHarvestFollowsSettings runs calls of rows under the settings of their time.
func TestHarvestFollowsSettings(t *testing.T) {
	answer := harvestAnswers(description(sqlrewrite.HarvestName(0), "n"), row("{k,v}", "1"))
	p := newScripted(t, func(msgs []byte) (out []byte) {
		switch {
		case bytes.Contains(msgs, []byte("current_setting")):
			out = append(append(out, newMessage('3', nil)...), newMessage('3', nil)...)
			out = append(append(out, newMessage('1', nil)...), newMessage('2', nil)...)
			out = append(append(out, newMessage('D', row(nil))...), newMessage('D', row("1ms"))...)
			out = append(append(out, newMessage('C', []byte("SELECT 2\x00"))...), newMessage('3', nil)...)
			out = append(out, newMessage('3', nil)...)
			if bytes.HasSuffix(msgs, syncMessage) {
				out = append(out, newMessage('Z', []byte("I"))...)
			}
			return out
		case msgs[0] == 'Q':
			return append(newMessage('C', []byte("SET\x00")), newMessage('Z', []byte("I"))...)
		}
		return answer(msgs)
	})
	p.s.srv.cfg.Table.(*mapTable).block = func(ctx context.Context) error {
		<-ctx.Done() // ends after the time limit of the session, or that of the test
		return &mapError{code: "55000", message: "no leader"}
	}
	feedAll(t, p.s, query("SET raftable.timeout = '1ms'"))
	p.said.Reset()
	done := make(chan struct{})
	go func() { defer close(done); feedAll(t, p.s, query(textHarvest)) }()
	<-done
	if p.s.callTimeout().Milliseconds() != 1 {
		t.Errorf("the set had %v", p.s.callTimeout())
	}
	if got := p.transcript(); !strings.Contains(got, `C="55000"`) {
		t.Errorf("the client is told\n%s", got)
	}
}

// TestFetchOfHarvest reads a portal by SQL whose rows set keys, which is refused.
func TestFetchOfHarvest(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	w := dialWire(t, addr)
	for _, text := range []string{"FETCH p", "SELECT 1; MOVE ALL IN p", "DO $$DECLARE c refcursor := 'p'; BEGIN MOVE c; END$$"} {
		for _, way := range []string{"> query " + quote(text), `> parse "" ` + quote(text)} {
			got := strings.Join(w.run(&script{lines: []string{`> query "BEGIN"`, `> parse "" "SELECT raftable(k, 'v') FROM (VALUES ('a')) t(k)"`,
				`> bind "p" ""`, way, "> sync", `> query "ROLLBACK"`, "> wait"}}), "\n")
			if !strings.Contains(got, `E S="ERROR" C="0A000" M="FETCH and MOVE cannot read a portal whose rows set keys"`) {
				t.Errorf("%s: %s", way, got)
			}
		}
	}
	if table.rows["a"] != "" {
		t.Error("a key was set")
	}
}
