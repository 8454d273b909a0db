package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"unicode/utf8"
)

// bindMessage is a Bind message taken apart. Its slices lie in the message, but for resultFormats.
type bindMessage struct {
	portal, statement []byte
	formats           []int16
	values            [][]byte // nil for NULL
	resultFormats     []int16
}

// decode reads the body of a Bind message and says whether it was well formed.
func (m *bindMessage) decode(b []byte) (ok bool) {
	if m.portal, b, ok = bytes.Cut(b, []byte{0}); !ok {
		return false
	}
	if m.statement, b, ok = bytes.Cut(b, []byte{0}); !ok {
		return false
	}
	if m.formats, b, ok = cutFormats(b); !ok || len(b) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n > len(b)/4 {
		return false // each takes four bytes at least
	}
	m.values = append(m.values[:0], make([][]byte, n)...)
	for i := range m.values {
		if len(b) < 4 {
			return false
		}
		size := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if size == -1 {
			continue
		}
		if size < 0 || size > len(b) {
			return false
		}
		m.values[i] = b[:size:size]
		b = b[size:]
	}
	m.resultFormats, b, ok = cutFormats(b)
	return ok && len(b) == 0
}

// oneFormat are what nearly all clients say: one format for all. They are not changed.
var oneFormat = [2][]int16{{0}, {1}}

func cutFormats(b []byte) (formats []int16, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if len(b) < 2*n {
		return nil, nil, false
	}
	switch {
	case n == 1 && b[0] == 0 && b[1] <= 1:
		formats = oneFormat[b[1]]
	case n > 0:
		formats = make([]int16, n)
		for i := range formats {
			formats[i] = int16(binary.BigEndian.Uint16(b[2*i:]))
		}
	}
	return formats, b[2*n:], true
}

// parameters checks the values against the statement and copies them into the cursor, in text form.
func (m *bindMessage) parameters(p *prepared, c *cursor) *pgError {
	if n := len(m.formats); n > 1 && n != len(m.values) {
		return &pgError{code: codeProtocolViolation, message: "bind message has " + itoa(n) +
			" parameter formats but " + itoa(len(m.values)) + " parameters"}
	}
	if len(m.values) != len(p.types) {
		return &pgError{code: codeProtocolViolation, message: "bind message supplies " + itoa(len(m.values)) +
			` parameters, but prepared statement "` + string(m.statement) + `" requires ` + itoa(len(p.types))}
	}
	if e := checkFormats(m.formats); e != nil {
		return e
	}
	size := 0
	for _, v := range m.values {
		size += max(len(v), maxInteger)
	}
	c.store = slices.Grow(c.store, size)
	for i, v := range m.values {
		if v == nil {
			c.params = append(c.params, nil)
			continue
		}
		from := len(c.store)
		switch {
		case isInteger(p.types[i]):
			n, e := integer(v, p.types[i], formatOf(m.formats, i), i+1)
			if e != nil {
				return e
			}
			c.store = strconv.AppendInt(c.store, n, 10)
		case !utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0:
			return errEncoding(v)
		default:
			c.store = append(c.store, v...)
		}
		c.params = append(c.params, c.store[from:len(c.store):len(c.store)])
	}
	return nil
}

// maxInteger is the most characters of an integer.
const maxInteger = 11

// checkFormats refuses what is neither text nor binary.
func checkFormats(formats []int16) *pgError {
	for _, c := range formats {
		if c != 0 && c != 1 {
			return &pgError{code: codeInvalidParameter, message: "unsupported format code: " + itoa(int(c))}
		}
	}
	return nil
}

func isInteger(oid uint32) bool { return oid == oidInt4 || oid == oidInt2 }

const oidInt2 = 21

// integer reads a timeout parameter, checked as the type's input function does.
func integer(v []byte, oid uint32, format int16, number int) (int64, *pgError) {
	switch {
	case format == 0:
		n, e := parseInt4(v)
		return int64(n), e
	case oid == oidInt4 && len(v) == 4:
		return int64(int32(binary.BigEndian.Uint32(v))), nil
	case oid == oidInt2 && len(v) == 2:
		return int64(int16(binary.BigEndian.Uint16(v))), nil
	case len(v) < 4 && oid == oidInt4 || len(v) < 2:
		return 0, &pgError{code: codeProtocolViolation, message: "insufficient data left in message"}
	}
	return 0, &pgError{code: "22P03", message: "incorrect binary data format in bind parameter " + itoa(number)}
}

// errEncoding names the first bytes that are no UTF-8, as PostgreSQL does.
func errEncoding(v []byte) *pgError {
	for len(v) > 0 {
		r, n := utf8.DecodeRune(v)
		if v[0] == 0 || r == utf8.RuneError && n == 1 {
			break
		}
		v = v[n:]
	}
	bad := v[:min(len(v), sequenceLength(v[0]))]
	msg := `invalid byte sequence for encoding "UTF8":`
	for _, c := range bad {
		msg += " 0x" + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
	}
	return &pgError{code: codeBadEncoding, message: msg}
}

// sequenceLength is how long a UTF-8 sequence is by its first byte.
func sequenceLength(c byte) int {
	switch {
	case c&0xe0 == 0xc0:
		return 2
	case c&0xf0 == 0xe0:
		return 3
	case c&0xf8 == 0xf0:
		return 4
	}
	return 1
}
