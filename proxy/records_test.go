package proxy

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// recordsOf is a statement with records in the given columns.
func recordsOf(columns ...int) *sqlrewrite.Rewrite { return &sqlrewrite.Rewrite{Records: columns} }

// record makes a record of two texts in binary format.
func record(oid uint32, key, value string) []byte {
	b := binary.BigEndian.AppendUint32(nil, 2)
	b = appendValue(binary.BigEndian.AppendUint32(b, oid), []byte(key))
	return appendValue(binary.BigEndian.AppendUint32(b, oidText), []byte(value))
}

func TestPatchRecords(t *testing.T) {
	text, varchar := record(oidText, "k", "v"), record(oidVarchar, "k", "v")
	for _, c := range []struct {
		what    string
		records []int
		formats []int16
		in      []byte
		want    []byte
	}{
		{"the first column", []int{0}, []int16{1}, row(text, text), row(varchar, text)},
		{"the last column", []int{-1}, []int16{1}, row(text, text), row(text, varchar)},
		{"in text format", []int{0}, nil, row(text), row(text)},
		{"each with its own format", []int{0, 1}, []int16{0, 1}, row(text, text), row(text, varchar)},
		{"NULL in front", []int{1}, []int16{1}, row(nil, text), row(nil, varchar)},
		{"no record", []int{0}, []int16{1}, row("1234567"), row("1234567")},
		{"another type", []int{0}, []int16{1}, row(record(oidJSON, "k", "v")), row(record(oidJSON, "k", "v"))},
		{"fewer formats than columns", []int{2}, []int16{1, 1}, row(text, text, text), row(text, text, text)},
		{"a column that is not there", []int{5, -5}, []int16{1}, row(text), row(text)},
	} {
		s := &shape{rw: recordsOf(c.records...)}
		got := bytes.Clone(c.in)
		s.patchRecords(got, c.formats)
		if !bytes.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		for n := range len(c.in) {
			s.patchRecords(bytes.Clone(c.in[:n]), c.formats) // must not reach beyond the end
		}
	}
}
