package proxy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A wire script is a conversation in the protocol, from testdata/wire. A file holds several:
//
//	== name of the script
//	> query "SELECT 1"                      lines of the client, see message
//	> wait                                  sends what was gathered and reads up to the ReadyForQuery of each query and sync
//	> wait 3                                sends what was gathered and reads three messages
//	> conn b                                goes on with another connection, see player
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
	t   testing.TB
	c   net.Conn
	r   *bufio.Reader
	cut func([]byte) [][]byte // how a write is cut into pieces; nil for one piece
	key []byte                // of BackendKeyData

	out   []byte // gathered by a script and not yet sent
	ready int    // ReadyForQuery messages that the script has yet to see
}

// wireTimeout bounds every wait for an answer.
var wireTimeout time.Duration

func init() {
	flag.DurationVar(&wireTimeout, "wiretimeout", 20*time.Second, "how long to wait for an answer")
}

// startWire is a startup packet. Without parameters the user is postgres.
func startWire(version uint32, params ...string) []byte {
	msg := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, version)
	for _, p := range append([]string{"user", "postgres", "database", "postgres"}, params...) {
		msg = append(append(msg, p...), 0)
	}
	msg = append(msg, 0)
	binary.BigEndian.PutUint32(msg, uint32(len(msg)))
	return msg
}

// begin reads up to the first ReadyForQuery, or the end.
func (w *wireConn) begin() (said []string) {
	for {
		typ, body, err := w.read()
		if err != nil {
			return append(said, "end: "+errorKind(err))
		}
		if typ == 'K' {
			w.key = body
			said = append(said, fmt.Sprintf("K %d bytes", len(body)))
			continue
		}
		said = append(said, transcribe(typ, body))
		if typ == 'Z' {
			return said
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
			// The other side may end the conversation before it has seen all; what it said is there to be read.
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
				return
			}
			w.t.Fatalf("write: %v", err)
		}
	}
}

func (w *wireConn) read() (typ byte, body []byte, err error) {
	var hdr [5]byte
	if _, err := io.ReadFull(w.r, hdr[:]); err != nil {
		return 0, nil, err
	}
	// What looks like a length may be text of an older protocol: no memory is taken for what does not come.
	size := int64(binary.BigEndian.Uint32(hdr[1:])) - 4
	body, err = io.ReadAll(io.LimitReader(w.r, size))
	if err == nil && int64(len(body)) < size {
		err = io.ErrUnexpectedEOF
	}
	return hdr[0], body, err
}

func errorKind(err error) string {
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return "nothing came in time"
	}
	return "connection closed"
}

// times is a text that is to be written many times: {text*1000}.
var times = regexp.MustCompile(`\{([^{}*]+)\*(\d+)\}`)

// splitWords splits at blanks outside of Go-quoted strings, and writes out what is to be repeated in those.
func splitWords(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if q, err := strconv.QuotedPrefix(line); err == nil {
			s, _ := strconv.Unquote(q)
			words = append(words, times.ReplaceAllStringFunc(s, func(m string) string {
				p := times.FindStringSubmatch(m)
				n, _ := strconv.Atoi(p[2])
				return strings.Repeat(p[1], n)
			}))
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
//	function OID [p=FORMATS] [r=FORMAT] [VALUE… | -null] | bytes TEXT (which need not be a message)
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
	case "function":
		typ = 'F'
		functionBody(u16, u32, &b, w)
	case "bytes":
		return []byte(arg(1))
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
	str(w[1])
	str(w[2])
	p, r, values := formatWords(w[3:])
	formatCodes(u16, p)
	valueWords(u16, u32, b, values)
	formatCodes(u16, r)
}

func functionBody(u16, u32 func(int), b *[]byte, w []string) {
	oid, _ := strconv.Atoi(w[1])
	u32(oid)
	p, r, values := formatWords(w[2:])
	formatCodes(u16, p)
	valueWords(u16, u32, b, values)
	n, _ := strconv.Atoi(r)
	u16(n)
}

// formatWords takes the formats off the words of a message.
func formatWords(w []string) (p, r string, values []string) {
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
	return p, r, w
}

func formatCodes(u16 func(int), spec string) {
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

func valueWords(u16, u32 func(int), b *[]byte, values []string) {
	u16(len(values))
	for _, v := range values {
		if v == "-null" {
			u32(-1)
			continue
		}
		u32(len(v))
		*b = append(*b, v...)
	}
}

// transcribe writes a message of the server as a line. What is very long is cut and summed up.
func transcribe(typ byte, body []byte) string {
	line := transcript(typ, body)
	if len(line) > 2000 && len(body) < len(line)+1000 {
		return fmt.Sprintf("%s... %d bytes with checksum %08x", line[:200], len(body), crc32.ChecksumIEEE(body))
	}
	return line
}

// quoted quotes a value, or says what it is like if it is long.
func quoted(b []byte) string {
	if len(b) > 200 {
		return fmt.Sprintf("%q...(%d bytes with checksum %08x)", b[:20], len(b), crc32.ChecksumIEEE(b))
	}
	return strconv.Quote(string(b))
}

func transcript(typ byte, body []byte) string {
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
		return "d " + quoted(body)
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
		line.WriteString(" " + quoted(b[:size]))
		b = b[size:]
	}
	return line.String()
}

// tempSchema has a number that says which server process it is of.
var tempSchema = regexp.MustCompile(`pg_temp_\d+`)

// errorFields writes the fields that a user sees. Where in the server's source it was raised is nobody's business.
func errorFields(b []byte) string {
	var line strings.Builder
	for _, f := range strings.Split(string(b), "\x00") {
		if f == "" || strings.ContainsRune("FLRWV", rune(f[0])) {
			continue
		}
		line.WriteString(" " + string(f[0]) + "=" + quoted(tempSchema.ReplaceAll([]byte(f[1:]), []byte("pg_temp"))))
	}
	return line.String()
}
