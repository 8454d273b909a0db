package proxy

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// Types of the values that rewritten statements have, beside oidText.
const (
	oidJSON   = 114
	oidBpchar = 1042
	oidJSONB  = 3802
)

// maxWholeTable bounds the table's size, in bytes of JSON, where a statement needs all of it.
const maxWholeTable = 64 << 20

func errWholeTable() *pgError {
	return &pgError{
		code:    "54000",
		message: "the values that this statement needs are too large",
		detail:  "Together they are more than 64 MiB; a get of an expression and a list elsewhere than alone in FROM need the whole table.",
		hint:    "Use constants or parameters as keys: raftable('key') sends one value only. Or list the table with SELECT * FROM raftable().",
	}
}

func valueType(k sqlrewrite.ValueKind) uint32 {
	switch k {
	case sqlrewrite.ValueObject:
		return oidJSONB
	case sqlrewrite.ValueList, sqlrewrite.ValueRows:
		return oidJSON
	}
	return oidText
}

// quickValues is how many values may be read on the event loop.
const quickValues = 100

// evaluate gives the values that a rewritten statement needs now, in the client's encoding; nil for NULL. params are the
// client's, in the client's encoding. What is returned is valid until the next call.
func (f *frontend) evaluate(values []sqlrewrite.Value, params [][]byte, types []uint32) ([][]byte, error) {
	out, store, size := slices.Grow(f.values.values[:0], len(values)), f.values.store[:0], 0
	if len(values) > quickValues {
		f.side.leave()
	}
	for i := range values {
		var one []byte
		var err error
		switch v := &values[i]; v.Kind {
		case sqlrewrite.ValueGet:
			one, store, err = f.valueOf(store, &v.Key, params, types)
		default:
			f.side.leave()
			one, err = f.wholeTable(v.Kind)
		}
		if err != nil {
			return nil, err
		}
		if size += len(one); size > maxWholeTable {
			return nil, errWholeTable()
		}
		out = append(out, one)
	}
	if f.values = (valueMemory{out, store}); max(size, cap(store)) > storeKept || cap(out) > valuesKept {
		f.values = valueMemory{}
	}
	return out, nil
}

// valueMemory is memory for the values of one statement, kept for the next one unless it is much.
type valueMemory struct {
	values [][]byte
	store  []byte // what they lie in, and their keys
}

// valuesKept is how many values a session keeps room for.
const valuesKept = 16

// valueOf gets a key that is a constant or a parameter. It appends to store what it needs room for.
func (f *frontend) valueOf(store []byte, a *sqlrewrite.Arg, params [][]byte, types []uint32) (value, grown []byte, err error) {
	var key []byte
	switch {
	case a.Param == 0 && a.Null:
		return nil, store, nil
	case a.Param == 0:
		store = append(store, a.Value...)
		key = store[len(store)-len(a.Value):]
	case a.Param > len(params) || params[a.Param-1] == nil:
		return nil, store, nil // the server has something to say of what is missing
	default:
		key = params[a.Param-1]
		if a.Param <= len(types) && types[a.Param-1] == oidBpchar {
			for len(key) > 0 && key[len(key)-1] == ' ' {
				key = key[:len(key)-1]
			}
		}
		var e *pgError
		if key, e = f.settings.toUTF8(key); e != nil {
			return nil, store, e
		}
	}
	at := len(store)
	store, found := f.s.srv.cfg.Table.Get(store, key)
	if !found {
		return nil, store, nil
	}
	if value = store[at:len(store):len(store)]; value == nil {
		value = []byte{}
	}
	value, e := f.settings.fromUTF8(value)
	if e != nil {
		return nil, store, e
	}
	return value, store, nil
}

// wholeTable is the table at one applied index as JSON. Under another encoding than UTF-8 it is all ASCII.
func (f *frontend) wholeTable(kind sqlrewrite.ValueKind) ([]byte, error) {
	open, shut := byte('{'), byte('}')
	if kind == sqlrewrite.ValueRows {
		open, shut = '[', ']'
	}
	ascii := f.settings.foreignEncoding != ""
	out := []byte{open}
	tooLarge := false
	f.s.srv.cfg.Table.List(func(key, value []byte) bool {
		if len(out) > 1 {
			out = append(out, ',')
		}
		if kind == sqlrewrite.ValueRows {
			out = appendJSON(append(out, `{"key":`...), key, ascii)
			out = appendJSON(append(out, `,"value":`...), value, ascii)
			out = append(out, '}')
		} else {
			out = appendJSON(out, key, ascii)
			out = appendJSON(append(out, ':'), value, ascii)
		}
		tooLarge = len(out) > maxWholeTable
		return !tooLarge
	})
	if tooLarge {
		return nil, errWholeTable()
	}
	return append(out, shut), nil
}

// appendJSON appends a string of JSON.
func appendJSON(dst, s []byte, ascii bool) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(s) > 0 {
		c := s[0]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf || !ascii:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRune(s)
			if r >= 0x10000 {
				r -= 0x10000
				dst = appendUnit(dst, 0xd800+r>>10)
				r = 0xdc00 + r&0x3ff
			}
			dst = appendUnit(dst, r)
			s = s[n:]
			continue
		}
		s = s[1:]
	}
	return append(dst, '"')
}

func appendUnit(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// literalsOf makes values what sqlrewrite puts into a text.
func literalsOf(values [][]byte) []*string {
	out := make([]*string, len(values))
	for i, v := range values {
		if v != nil {
			s := string(v)
			out[i] = &s
		}
	}
	return out
}

// appendBind appends a Bind message that has, beyond the client's parameters, the given values in text format.
// resultFormats are passed on.
func appendBind(dst, portal, statement []byte, m *bindMessage, values [][]byte) []byte {
	at := len(dst)
	dst = append(dst, 'B', 0, 0, 0, 0)
	dst = append(append(dst, portal...), 0)
	dst = append(append(dst, statement...), 0)
	switch n := len(m.formats); {
	case n == 0:
		dst = append(dst, 0, 0)
	case n == 1 && len(m.values) > 0 && m.formats[0] == 0:
		dst = append(dst, 0, 0)
	default:
		dst = binary.BigEndian.AppendUint16(dst, uint16(clientFormats(m)+len(values)))
		for i := range clientFormats(m) {
			dst = binary.BigEndian.AppendUint16(dst, uint16(formatOf(m.formats, i)))
		}
		dst = append(dst, make([]byte, 2*len(values))...)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.values)+len(values)))
	for _, v := range m.values {
		dst = appendNullable(dst, v)
	}
	for _, v := range values {
		dst = appendNullable(dst, v)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.resultFormats)))
	for _, c := range m.resultFormats {
		dst = binary.BigEndian.AppendUint16(dst, uint16(c))
	}
	return finishMessage(dst, at)
}

// clientFormats is how many formats stand for the client's parameters once there must be one for each. A number of formats
// that does not fit stays one that does not.
func clientFormats(m *bindMessage) int {
	if len(m.formats) == 1 {
		return len(m.values)
	}
	return len(m.formats)
}

func appendNullable(dst, v []byte) []byte {
	if v == nil {
		return appendNull(dst)
	}
	return appendValue(dst, v)
}
