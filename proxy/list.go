package proxy

import (
	"encoding/binary"
	"iter"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// list is a list that is read row by row.
type list struct {
	next       func() (key, value []byte, ok bool)
	stop       func()
	key, value []byte // the current row
	ok         bool   // there is one
}

// openList begins a list. The picture of the table that it shows is taken here.
func (c *cursor) openList(t Table) {
	var l list
	l.next, l.stop = iter.Pull2(t.List)
	l.advance()
	c.lists = append(c.lists, l)
}

func (l *list) advance() { l.key, l.value, l.ok = l.next() }

// listAll appends all rows of the list in FROM.
func (f *frontend) listAll(c *cursor) (rows int, err error) {
	f.s.srv.cfg.Table.List(func(key, value []byte) bool {
		rows++
		one := [1]list{{key: key, value: value, ok: true}}
		err = f.listRow(c, one[:])
		return err == nil
	})
	return rows, err
}

// listSome appends up to limit rows (0 for all) of the lists, which run in step: one that has ended gives NULL until the
// longest has.
func (f *frontend) listSome(c *cursor, limit int) (rows int, suspended bool, err error) {
	for limit == 0 || rows < limit {
		more := false
		for i := range c.lists {
			more = more || c.lists[i].ok
		}
		if !more {
			return rows, false, nil
		}
		if err := f.listRow(c, c.lists); err != nil {
			return rows, false, err
		}
		rows++
		for i := range c.lists {
			if c.lists[i].ok {
				c.lists[i].advance()
			}
		}
	}
	return rows, true, nil
}

// listRow appends one row.
func (f *frontend) listRow(c *cursor, lists []list) error {
	f.buffer()
	at := len(f.out)
	f.out = appendRowStart(f.out, len(c.st.Columns))
	record := 0
	raw := lists
	if f.settings.foreignEncoding != "" {
		converted, err := f.convertRows(lists)
		if err != nil {
			f.out = f.out[:at]
			return err
		}
		lists = converted
	}
	for i, col := range c.st.Columns {
		l := &lists[record]
		switch {
		case col.Op == sqlrewrite.OpKey:
			f.out = appendValue(f.out, l.key)
		case col.Op == sqlrewrite.OpValue:
			f.out = appendValue(f.out, l.value)
		case col.Op == sqlrewrite.OpListRecord && f.settings.foreignEncoding != "" && l.ok && formatOf(c.formats, i) != 1:
			// Quotes are put around characters, not around the bytes of another encoding.
			text, e := f.settings.fromUTF8(appendRecordText(nil, raw[record].key, raw[record].value)[4:])
			if e != nil {
				f.out = f.out[:at]
				return e
			}
			f.out = appendValue(f.out, text)
			record = min(record+1, len(lists)-1)
		case col.Op == sqlrewrite.OpListRecord:
			f.out = appendRecord(f.out, l, formatOf(c.formats, i))
			record = min(record+1, len(lists)-1)
		case c.cells[i].null:
			f.out = appendNull(f.out)
		default:
			f.out = appendValue(f.out, c.cells[i].value)
		}
	}
	f.out = finishMessage(f.out, at)
	if len(f.out) >= flushAt {
		return f.flushOut()
	}
	return nil
}

// convertRows gives the current rows of lists in the client's encoding.
func (f *frontend) convertRows(lists []list) ([]list, error) {
	out := append([]list(nil), lists...)
	for i := range out {
		var e *pgError
		if out[i].key, e = f.settings.fromUTF8(out[i].key); e != nil {
			return nil, e
		}
		if out[i].value, e = f.settings.fromUTF8(out[i].value); e != nil {
			return nil, e
		}
	}
	return out, nil
}

func appendNull(dst []byte) []byte { return append(dst, 0xff, 0xff, 0xff, 0xff) }

// appendRecord appends the current row of a list as one value.
func appendRecord(dst []byte, l *list, format int16) []byte {
	switch {
	case !l.ok:
		return appendNull(dst)
	case format == 1:
		return appendRecordBinary(dst, l.key, l.value)
	}
	return appendRecordText(dst, l.key, l.value)
}

// appendRecordText appends (key,value) as record_out writes it.
func appendRecordText(dst, key, value []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, '(')
	dst = appendRecordField(dst, key)
	dst = append(dst, ',')
	dst = appendRecordField(dst, value)
	dst = append(dst, ')')
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

func appendRecordField(dst, v []byte) []byte {
	if !needsQuotes(v) {
		return append(dst, v...)
	}
	dst = append(dst, '"')
	for _, c := range v {
		if c == '"' || c == '\\' {
			dst = append(dst, c)
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func needsQuotes(v []byte) bool {
	for _, c := range v {
		switch {
		case c == '"', c == '\\', c == '(', c == ')', c == ',', isSpace(c):
			return true
		}
	}
	return len(v) == 0
}

// appendRecordBinary appends the record as record_send writes it.
func appendRecordBinary(dst, key, value []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+4+4+len(key)+4+4+len(value)))
	dst = binary.BigEndian.AppendUint32(dst, 2)
	dst = binary.BigEndian.AppendUint32(dst, oidVarchar)
	dst = appendValue(dst, key)
	dst = binary.BigEndian.AppendUint32(dst, oidText)
	return appendValue(dst, value)
}
