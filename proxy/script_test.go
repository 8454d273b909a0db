package proxy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A wire script is a conversation in the protocol, from testdata/wire. A file holds several:
//
//	== name of the script
//	> query "SELECT 1"                      lines of the client, see message
//	> wait                                  sends what was gathered and reads up to the ReadyForQuery of each query and sync
//	> wait 3                                sends what was gathered and reads three messages
//	< T ?column?:23:4:-1:0                  what the server says, written by `go test ./proxy -run Wire -rewrite`
//
// Every script is run against a plain PostgreSQL that has the functions in SQL (the oracle), and against the proxy.
type script struct {
	name  string
	lines []string // of the client, without "> ", and the comments
	want  []string // of the server, without "< "
}

func readScripts(t *testing.T, path string) []*script {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []*script
	for n, line := range strings.Split(string(b), "\n") {
		switch {
		case strings.HasPrefix(line, "== "):
			all = append(all, &script{name: strings.TrimPrefix(line, "== ")})
		case strings.TrimSpace(line) == "":
		case len(all) == 0 && strings.HasPrefix(line, "#"):
		case len(all) == 0:
			t.Fatalf("%s:%d: a line before the first script", path, n+1)
		case strings.HasPrefix(line, "> "), strings.HasPrefix(line, "#"):
			s := all[len(all)-1]
			s.lines = append(s.lines, line)
		case strings.HasPrefix(line, "< "):
			s := all[len(all)-1]
			s.want = append(s.want, strings.TrimPrefix(line, "< "))
		default:
			t.Fatalf("%s:%d: cannot read %q", path, n+1, line)
		}
	}
	return all
}

// writeScripts writes the file with what the oracle said.
func writeScripts(t *testing.T, path string, all []*script) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut("\n"+string(old), "\n== ")
	var b strings.Builder
	b.WriteString(strings.TrimLeft(head, "\n"))
	for _, s := range all {
		fmt.Fprintf(&b, "\n\n== %s\n%s\n", s.name, strings.Join(s.lines, "\n"))
		for _, w := range s.want {
			fmt.Fprintf(&b, "< %s\n", w)
		}
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(b.String(), "\n\n\n", "\n\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wireConn is a client connection past authentication (trust).
type wireConn struct {
	t   *testing.T
	c   net.Conn
	r   *bufio.Reader
	cut func([]byte) [][]byte // how a write is cut into pieces; nil for one piece
	key []byte                // of BackendKeyData
}

const wireTimeout = 20 * time.Second

func dialWire(t *testing.T, addr string, params ...string) *wireConn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := &wireConn{t: t, c: c, r: bufio.NewReader(c)}
	w.deadline()
	msg := []byte{0, 0, 0, 0, 0, 3, 0, 0}
	for _, p := range append([]string{"user", "postgres", "database", "postgres"}, params...) {
		msg = append(append(msg, p...), 0)
	}
	msg = append(msg, 0)
	binary.BigEndian.PutUint32(msg, uint32(len(msg)))
	w.send(msg)
	for {
		typ, body, err := w.read()
		if err != nil {
			t.Fatalf("startup: %v", err)
		}
		switch typ {
		case 'K':
			w.key = body
		case 'E':
			t.Fatalf("startup: %s", transcribe(typ, body))
		case 'Z':
			return w
		}
	}
}

func (w *wireConn) deadline() { _ = w.c.SetDeadline(time.Now().Add(wireTimeout)) }

func (w *wireConn) send(b []byte) {
	w.t.Helper()
	pieces := [][]byte{b}
	if w.cut != nil {
		pieces = w.cut(b)
	}
	for _, p := range pieces {
		if len(p) == 0 {
			continue
		}
		if _, err := w.c.Write(p); err != nil {
			w.t.Fatalf("write: %v", err)
		}
	}
}

func (w *wireConn) read() (typ byte, body []byte, err error) {
	var hdr [5]byte
	if _, err := io.ReadFull(w.r, hdr[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint32(hdr[1:])-4)
	_, err = io.ReadFull(w.r, body)
	return hdr[0], body, err
}

// run plays the script's client and returns what the server said.
func (w *wireConn) run(s *script) []string {
	w.t.Helper()
	var out []byte
	var said []string
	ready := 0
	for _, line := range s.lines {
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := splitWords(strings.TrimPrefix(line, "> "))
		if words[0] != "wait" {
			b := message(w.t, words)
			if words[0] == "query" || words[0] == "sync" {
				ready++
			}
			out = append(out, b...)
			continue
		}
		w.deadline()
		w.send(out)
		out = nil
		count := -1
		if len(words) > 1 {
			count, _ = strconv.Atoi(words[1])
		}
		for count != 0 && (count > 0 || ready > 0) {
			typ, body, err := w.read()
			if err != nil {
				return append(said, "end: "+errorKind(err))
			}
			if typ == 'Z' {
				ready--
			}
			if count > 0 {
				count--
			}
			said = append(said, transcribe(typ, body))
		}
	}
	return said
}

func errorKind(err error) string {
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return "nothing came in time"
	}
	return "connection closed"
}

// splitWords splits at blanks outside of Go-quoted strings.
func splitWords(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if q, err := strconv.QuotedPrefix(line); err == nil {
			s, _ := strconv.Unquote(q)
			words = append(words, s)
			line = line[len(q):]
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		words = append(words, word)
		line = rest
	}
	return words
}

// message makes a message of the words of a client line:
//
//	query TEXT | parse NAME TEXT [OID…] | bind PORTAL STATEMENT [p=FORMATS] [r=FORMATS] [VALUE… | -null]
//	describe S|P NAME | execute PORTAL [LIMIT] | close S|P NAME | sync | flush | terminate
//	copydata TEXT | copydone | copyfail TEXT | raw TYPE BODY (which no wait counts)
func message(t testing.TB, w []string) []byte {
	t.Helper()
	arg := func(i int) string {
		if i < len(w) {
			return w[i]
		}
		return ""
	}
	var b []byte
	str := func(s string) { b = append(append(b, s...), 0) }
	u16 := func(n int) { b = binary.BigEndian.AppendUint16(b, uint16(n)) }
	u32 := func(n int) { b = binary.BigEndian.AppendUint32(b, uint32(n)) }
	typ := byte(0)
	switch w[0] {
	case "query":
		typ = 'Q'
		str(arg(1))
	case "parse":
		typ = 'P'
		str(arg(1))
		str(arg(2))
		u16(max(0, len(w)-3))
		for _, o := range w[min(3, len(w)):] {
			n, err := strconv.Atoi(o)
			if err != nil {
				t.Fatal(err)
			}
			u32(n)
		}
	case "bind":
		typ = 'B'
		bindBody(str, u16, u32, &b, w)
	case "describe", "close":
		typ = map[string]byte{"describe": 'D', "close": 'C'}[w[0]]
		b = append(b, arg(1)[0])
		str(arg(2))
	case "execute":
		typ = 'E'
		str(arg(1))
		n, _ := strconv.Atoi(arg(2))
		u32(n)
	case "sync":
		typ = 'S'
	case "flush":
		typ = 'H'
	case "terminate":
		typ = 'X'
	case "copydata":
		typ = 'd'
		b = append(b, arg(1)...)
	case "copydone":
		typ = 'c'
	case "copyfail":
		typ = 'f'
		str(arg(1))
	case "raw":
		typ = arg(1)[0]
		b = append(b, arg(2)...)
	default:
		t.Fatalf("no such message: %q", w)
	}
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(b)+4)), b...)
}

func bindBody(str func(string), u16, u32 func(int), b *[]byte, w []string) {
	formats := func(spec string) {
		var codes []string
		if spec != "" {
			codes = strings.Split(spec, ",")
		}
		u16(len(codes))
		for _, c := range codes {
			n, _ := strconv.Atoi(c)
			u16(n)
		}
	}
	str(w[1])
	str(w[2])
	w = w[3:]
	var p, r string
	for len(w) > 0 {
		if v, ok := strings.CutPrefix(w[0], "p="); ok {
			p = v
		} else if v, ok := strings.CutPrefix(w[0], "r="); ok {
			r = v
		} else {
			break
		}
		w = w[1:]
	}
	formats(p)
	u16(len(w))
	for _, v := range w {
		if v == "-null" {
			u32(-1)
			continue
		}
		u32(len(v))
		*b = append(*b, v...)
	}
	formats(r)
}

// transcribe writes a message of the server as a line.
func transcribe(typ byte, body []byte) string {
	switch typ {
	case 'T':
		return "T" + rowDescription(body)
	case 'D':
		return "D" + dataRow(body)
	case 'E', 'N':
		return string(typ) + errorFields(body)
	case 't':
		line := "t"
		for b := body[2:]; len(b) >= 4; b = b[4:] {
			line += " " + strconv.Itoa(int(binary.BigEndian.Uint32(b)))
		}
		return line
	case 'C':
		return "C " + string(body[:len(body)-1])
	case 'Z':
		return "Z " + string(body)
	case 'S':
		return "S " + strings.ReplaceAll(strings.TrimSuffix(string(body), "\x00"), "\x00", "=")
	case 'A':
		return "A " + strconv.Quote(string(body[4:])) // without the sender's process number
	case 'd':
		return "d " + strconv.Quote(string(body))
	}
	if len(body) == 0 {
		return string(typ)
	}
	return string(typ) + " " + strconv.Quote(string(body))
}

func rowDescription(b []byte) string {
	var line strings.Builder
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range n {
		i := strings.IndexByte(string(b), 0)
		name, f := string(b[:i]), b[i+1:]
		fmt.Fprintf(&line, " %s:%d:%d:%d:%d", name, binary.BigEndian.Uint32(f[6:]),
			int16(binary.BigEndian.Uint16(f[10:])), int32(binary.BigEndian.Uint32(f[12:])), binary.BigEndian.Uint16(f[16:]))
		b = f[18:]
	}
	return line.String()
}

func dataRow(b []byte) string {
	var line strings.Builder
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range n {
		size := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if size < 0 {
			line.WriteString(" NULL")
			continue
		}
		line.WriteString(" " + strconv.Quote(string(b[:size])))
		b = b[size:]
	}
	return line.String()
}

// errorFields writes the fields that a user sees. Where in the server's source it was raised is nobody's business.
func errorFields(b []byte) string {
	var line strings.Builder
	for _, f := range strings.Split(string(b), "\x00") {
		if f == "" || strings.ContainsRune("FLRWV", rune(f[0])) {
			continue
		}
		line.WriteString(" " + string(f[0]) + "=" + strconv.Quote(f[1:]))
	}
	return line.String()
}
