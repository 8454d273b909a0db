package proxy

import (
	"encoding/binary"

	"github.com/jackc/pgproto3/v2"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// newCommand makes a statement of SHOW of one of the settings, or of CREATE or DROP EXTENSION raftable.
func newCommand(c *sqlrewrite.Command) *statement {
	st := &statement{Local: &sqlrewrite.Local{}, command: c}
	if c.Op != sqlrewrite.CommandShow {
		st.rowDesc = []byte{'n', 0, 0, 0, 4}
		return st
	}
	b := append([]byte{'T', 0, 0, 0, 0, 0, 1}, c.Setting...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0) // the name's end, no table, no attribute
	b = binary.BigEndian.AppendUint32(b, oidText)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // any size, no type modifier
	st.formats = []int{len(b)}
	st.rowDesc = finishMessage(append(b, 0, 0), 0)
	return st
}

// installs says whether the statement is one about the extension. st may be nil.
func (st *statement) installs() bool {
	return st != nil && st.command != nil && st.command.Op != sqlrewrite.CommandShow
}

// appendQueryDesc appends the RowDescription that a simple query gets, which is none where there are no rows.
func (st *statement) appendQueryDesc(dst []byte) []byte {
	if st.installs() {
		return dst
	}
	return append(dst, st.rowDesc...)
}

func commandTag(c *sqlrewrite.Command) string {
	switch c.Op {
	case sqlrewrite.CommandCreateExtension:
		return "CREATE EXTENSION"
	case sqlrewrite.CommandDropExtension:
		return "DROP EXTENSION"
	}
	return "SHOW"
}

// runCommand does what a command does, and appends the row of SHOW.
func (f *frontend) runCommand(c *cursor) error {
	f.buffer()
	if c.st.command.Op == sqlrewrite.CommandShow {
		at := len(f.out)
		f.out = appendRowStart(f.out, 1)
		f.out = appendValue(f.out, f.shown(c.st.command.Setting))
		f.out = finishMessage(f.out, at)
		return nil
	}
	m := pgproto3.NoticeResponse{
		Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000",
		Message: `extension "raftable" is not needed: raftproxy answers the calls of raftable()`,
	}
	f.out, _ = m.Encode(f.out) // fails only on messages over 1 GiB
	return nil
}

// extensionOffered asks whether the server itself has an extension of this name to offer, whose the statement is then.
func (f *frontend) extensionOffered() (bool, error) {
	if f.transaction().status == 'E' {
		return false, nil
	}
	rows, err := f.question("SELECT name FROM pg_catalog.pg_available_extensions WHERE name = 'raftable'")
	return len(rows) > 0, err
}

// characters counts the characters of a text.
func characters(s string) int {
	n := 0
	for range s {
		n++
	}
	return n
}
