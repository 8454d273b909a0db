package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// reply says how the server's answer to a message of ours, or to one that we changed, differs from what the client must
// get. It belongs to one entry of the account; shapes are shared by those of one statement.
type reply struct {
	// sent is the text that positions and wordings of errors are about; nil for none of ours.
	sent *sentText
	// params is how many parameters of a described statement are the client's.
	params int
	// shape is what becomes of the columns; nil for nothing.
	shape *shape
	// formats are the formats of the columns as in Bind.
	formats []int16
	// fills: the server runs the statement to its end before it answers, so that an error comes before everything else.
	fills bool
	// query: the message stands for a simple query.
	query bool
	// dropNotice: what the server says of a transaction that is open already is about one of ours.
	dropNotice bool
	// dropNoData: the client asked for no description, so none is to be denied.
	dropNoData bool
	// holdComplete: the CommandComplete goes out only with the ReadyForQuery, as that of the last statement of a query.
	holdComplete bool
	// prepared is told when the server has the statement.
	prepared *prepared
	// rows, if not nil, takes the rows, which the client does not get.
	rows *answerRows
}

// answerRows are the rows of a question of our own: the first column of each, nil for NULL.
type answerRows struct {
	values [][]byte
	failed *pgError // the server's error, if there was one
}

// isFatal says whether an ErrorResponse's body is that of an error that ends the session.
func isFatal(body []byte) bool {
	return bytes.Contains(body, []byte("\x00VFATAL\x00")) || bytes.Contains(body, []byte("\x00VPANIC\x00"))
}

// fail keeps the error of an ErrorResponse's body.
func (a *answerRows) fail(body []byte) {
	a.failed = &pgError{code: codeInternal}
	for _, f := range splitFields(body) {
		switch f[0] {
		case 'C':
			a.failed.code = f[1:]
		case 'M':
			a.failed.message = f[1:]
		case 'D':
			a.failed.detail = f[1:]
		case 'H':
			a.failed.hint = f[1:]
		}
	}
}

// sentText is a text that the server has instead of the client's.
type sentText struct {
	rw    *sqlrewrite.Rewrite
	text  string // the client's
	first int    // number of the first value, if they are parameters
	// literals are the values where they stand in the text.
	literals []*string
	// arguments is how many of an EXECUTE's arguments are not the client's.
	arguments int
}

// captures says whether a message of this type is to be read whole and changed.
func (r *reply) captures(typ byte) bool {
	switch typ {
	case 'E':
		return r.sent != nil || r.rows != nil
	case 'N':
		return r.sent != nil
	case 't':
		return r.prepared != nil
	case 'T':
		return r.shape != nil || r.query && r.fills
	case 'D':
		return r.rows != nil || r.shape != nil && r.shape.harvests()
	case 'n':
		return r.dropNoData
	case 'C':
		return r.holdComplete || r.rows != nil || r.shape != nil && r.shape.harvests()
	case 's':
		return r.shape != nil && r.shape.harvests()
	}
	return false
}

// shape is what becomes of the columns of a rewritten statement.
type shape struct {
	rw *sqlrewrite.Rewrite
	// harvest says for each column which of rw.Harvest it is, -1 for the others. Known from the description on.
	harvest []int
}

func (s *shape) harvests() bool { return len(s.rw.Harvest) > 0 }

// describe reads a RowDescription's body, learns which columns are harvested, and returns it as the client is to see it. What
// is not well formed is returned as it is.
func (s *shape) describe(body []byte) []byte {
	s.harvest = nil
	if !s.harvests() || len(body) < 2 {
		return body
	}
	n := int(binary.BigEndian.Uint16(body))
	harvest := make([]int, 0, n)
	out := append(make([]byte, 0, len(body)), body[:2]...)
	rest := body[2:]
	for range n {
		name, more, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(more) < fieldSize {
			return body
		}
		field := more[:fieldSize]
		rest = more[fieldSize:]
		i := s.named(string(name))
		harvest = append(harvest, i)
		if i < 0 {
			out = append(append(append(out, name...), 0), field...)
			continue
		}
		h := &s.rw.Harvest[i]
		out = append(append(out, h.Name...), 0)
		out = append(out, field[:6]...)
		oid, size := uint32(oidVoid), uint16(4)
		if h.Op == sqlrewrite.OpGet {
			oid, size = oidText, 0xffff
		}
		out = binary.BigEndian.AppendUint32(out, oid)
		out = binary.BigEndian.AppendUint16(out, size)
		out = append(out, field[12:]...)
	}
	s.harvest = harvest
	return append(out, rest...)
}

// fieldSize is what follows a column's name in a RowDescription: table, attribute, type, size, modifier, format.
const fieldSize = 4 + 2 + 4 + 2 + 4 + 2

func (s *shape) named(column string) int {
	for i := range s.rw.Harvest {
		if column == sqlrewrite.HarvestName(i) {
			return i
		}
	}
	return -1
}

// columnFormat is formatOf for formats that the server may not have checked.
func columnFormat(formats []int16, i int) int16 {
	if len(formats) > 1 && i >= len(formats) {
		return 0
	}
	return formatOf(formats, i)
}

// trimParameters takes the values off a ParameterDescription's body.
func trimParameters(body []byte, params int) []byte {
	if len(body) < 2+4*params {
		return body
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(params))
	return append(out, body[2:2+4*params]...)
}

// mapError gives an ErrorResponse's body the position and the words that it would have about the client's text.
func (t *sentText) mapError(body []byte, query bool) []byte {
	var code, message, detail string
	position, hasPosition := 0, false
	fields := splitFields(body)
	for _, f := range fields {
		switch f[0] {
		case 'C':
			code = f[1:]
		case 'M':
			message = f[1:]
		case 'D':
			detail = f[1:]
		case 'P':
			if n, err := strconv.Atoi(f[1:]); err == nil {
				position, hasPosition = n, true
			}
		}
	}
	detail = t.countArguments(code, detail)
	if query && code == codeActiveTransaction {
		// In a query of several statements this is what makes it one transaction.
		message = strings.Replace(message, "cannot be executed within a pipeline", "cannot run inside a transaction block", 1)
	}
	if !hasPosition {
	} else if t.literals != nil {
		message, position = t.rw.MapErrorLiteral(t.text, t.literals, code, message, position)
	} else {
		message, position = t.rw.MapError(t.text, t.first, code, message, position)
	}
	out := make([]byte, 0, len(body))
	for _, f := range fields {
		switch f[0] {
		case 'M':
			f = "M" + message
		case 'D':
			f = "D" + detail
		case 'P':
			if position <= 0 {
				continue
			}
			f = "P" + strconv.Itoa(position)
		}
		out = append(append(out, f...), 0)
	}
	return append(out, 0)
}

// countArguments takes the arguments that are not the client's out of what is said of an EXECUTE with too many or too few.
func (t *sentText) countArguments(code, detail string) string {
	var want, got int
	if t.arguments == 0 || code != "42601" {
		return detail
	}
	if n, _ := fmt.Sscanf(detail, "Expected %d parameters but got %d.", &want, &got); n != 2 {
		return detail
	}
	return fmt.Sprintf("Expected %d parameters but got %d.", want-t.arguments, got-t.arguments)
}

// splitFields takes the fields of an ErrorResponse apart; each begins with its type.
func splitFields(body []byte) []string {
	var fields []string
	for _, f := range strings.Split(string(body), "\x00") {
		if f == "" {
			break
		}
		fields = append(fields, f)
	}
	return fields
}
