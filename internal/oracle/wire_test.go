package oracle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// conn is a client's connection past its login.
type conn struct {
	c      net.Conn
	r      *bufio.Reader
	out    []byte // gathered, not yet sent
	status byte   // of the last ReadyForQuery
	synced bool   // a Sync was sent before its answer was waited for
	names  *names
	err    error // the connection's end; nothing more is said after it
}

// names turns OIDs of what users make, which differ between databases, into names.
type names struct {
	known map[uint32]string // of the setup
	seen  map[uint32]string // by order of appearance
}

func (n *names) of(oid uint32) string {
	if oid < 16384 {
		return strconv.Itoa(int(oid))
	}
	if name := n.known[oid]; name != "" {
		return name
	}
	if n.seen[oid] == "" {
		n.seen[oid] = fmt.Sprintf("new%d", len(n.seen)+1)
	}
	return n.seen[oid]
}

func dial(network, addr, database string, n *names) (*conn, error) {
	c, err := net.DialTimeout(network, addr, *timeout)
	if err != nil {
		return nil, err
	}
	w := &conn{c: c, r: bufio.NewReader(c), names: n}
	var b []byte
	for _, p := range []string{"user", "postgres", "database", database, "application_name", "oracle", ""} {
		b = append(append(b, p...), 0)
	}
	w.out = binary.BigEndian.AppendUint32(w.out, uint32(len(b)+8))
	w.out = append(binary.BigEndian.AppendUint32(w.out, 3<<16), b...)
	said := w.until('Z')
	if w.err != nil || w.status != 'I' {
		_ = c.Close()
		return nil, fmt.Errorf("login at %s: %v %v", addr, said, w.err)
	}
	return w, nil
}

// message gathers a message made of strings (ended by a zero byte), bytes, and 2- and 4-byte numbers.
func (w *conn) message(typ byte, parts ...any) {
	start := len(w.out)
	w.synced = w.synced || typ == 'S'
	w.out = append(w.out, typ, 0, 0, 0, 0)
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			w.out = append(append(w.out, p...), 0)
		case []byte:
			w.out = append(w.out, p...)
		case byte:
			w.out = append(w.out, p)
		case int16:
			w.out = binary.BigEndian.AppendUint16(w.out, uint16(p))
		case int32:
			w.out = binary.BigEndian.AppendUint32(w.out, uint32(p))
		}
	}
	binary.BigEndian.PutUint32(w.out[start+1:], uint32(len(w.out)-start-1))
}

// until sends what was gathered and tells what is answered, up to a message of one of these types. A COPY from the client
// is ended at once.
func (w *conn) until(types ...byte) (said []string) {
	if w.err != nil {
		return nil
	}
	_ = w.c.SetDeadline(time.Now().Add(*timeout))
	if _, w.err = w.c.Write(w.out); w.err != nil {
		return []string{"end: " + w.err.Error()}
	}
	w.out = nil
	defer func() { w.synced = false }()
	for {
		typ, body, err := w.read()
		if err != nil {
			if w.err = err; err != io.EOF {
				return append(said, "end: nothing came in time")
			}
			return append(said, "end: connection closed")
		}
		if typ == 'Z' {
			w.status = body[0]
		}
		if typ != 'K' && typ != 'R' {
			said = append(said, w.names.transcribe(typ, body))
		}
		if typ == 'G' {
			w.message('f', "no data")
			if w.synced {
				w.message('S') // the server has taken the first for a part of the COPY
			}
			if _, w.err = w.c.Write(w.out); w.err != nil {
				return said
			}
			w.out = nil
		}
		if bytes.IndexByte(types, typ) >= 0 {
			return said
		}
	}
}

func (w *conn) read() (typ byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err = io.ReadFull(w.r, body)
	return head[0], body, err
}

// query runs a text in the simple protocol.
func (w *conn) query(text string) []string {
	w.message('Q', text)
	return w.until('Z')
}

// transcribe writes a message of the server as a line.
func (n *names) transcribe(typ byte, body []byte) string {
	switch typ {
	case 'T':
		return "T" + n.rowDescription(body)
	case 'D':
		return "D" + dataRow(body)
	case 'E', 'N':
		return string(typ) + errorFields(body)
	case 't':
		line := "t"
		for b := body[2:]; len(b) >= 4; b = b[4:] {
			line += " " + n.of(binary.BigEndian.Uint32(b))
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
	}
	if len(body) == 0 {
		return string(typ)
	}
	return string(typ) + " " + strconv.Quote(string(body))
}

// rowDescription writes each column as name:type:size:typmod:format, and the column of a table that it comes from.
func (n *names) rowDescription(b []byte) string {
	var line strings.Builder
	count := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range count {
		i := bytes.IndexByte(b, 0)
		name, f := string(b[:i]), b[i+1:]
		if strings.ContainsAny(name, " :\"\n") || !isASCII(name) {
			name = strconv.Quote(name)
		}
		fmt.Fprintf(&line, " %s:%s:%d:%d:%d", name, n.of(binary.BigEndian.Uint32(f[6:])),
			int16(binary.BigEndian.Uint16(f[10:])), int32(binary.BigEndian.Uint32(f[12:])), binary.BigEndian.Uint16(f[16:]))
		if table := binary.BigEndian.Uint32(f); table != 0 {
			fmt.Fprintf(&line, ":%s.%d", n.of(table), binary.BigEndian.Uint16(f[4:]))
		}
		b = f[18:]
	}
	return line.String()
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 126 })
}

func dataRow(b []byte) string {
	var line strings.Builder
	count := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for range count {
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

var (
	// tempSchema has a number that says which server process it is of.
	tempSchema = regexp.MustCompile(`pg_temp_\d+`)
	// ownContext is a line of a context that says where in the oracle's functions an error was raised.
	ownContext = regexp.MustCompile(`(?m)^(PL/pgSQL function (public\.)?raftable\(.*|SQL function "raftable".*|SQL statement "(SELECT|INSERT INTO|DELETE FROM) [^"]*harness\.rows[^"]*"|SQL statement "SELECT public\.raftable[^"]*")\n?`)
)

// errorFields writes all fields but those that say where in the server's source it was raised. V is written if it is not S.
func errorFields(b []byte) string {
	var line strings.Builder
	severity := ""
	for _, f := range strings.Split(string(b), "\x00") {
		if f == "" || strings.ContainsRune("FLR", rune(f[0])) {
			continue
		}
		value := tempSchema.ReplaceAllString(f[1:], "pg_temp")
		switch f[0] {
		case 'S':
			severity = value
		case 'V':
			if value == severity {
				continue
			}
		case 'W':
			if value = strings.TrimRight(ownContext.ReplaceAllString(value, ""), "\n"); value == "" {
				continue
			}
		}
		line.WriteString(" " + f[:1] + "=" + strconv.Quote(value))
	}
	return line.String()
}
