package sqlrewrite

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// HarvestName is the name that output column number i of Rewrite.Harvest has in the text that is sent.
func HarvestName(i int) string { return "raftproxy: arguments of call " + strconv.Itoa(i) }

// Text gives the SQL to send, with the values as parameters $first, $first+1, and so on. All texts that these methods take are
// the client's whole text.
func (r *Rewrite) Text(text string, first int) string {
	return r.build(text, func(value int) string { return "$" + strconv.Itoa(first+value) })
}

// Literal gives the SQL to send, with the values as quoted constants; nil is NULL.
func (r *Rewrite) Literal(text string, values []*string) string {
	return r.build(text, func(value int) string { return Quote(values[value]) })
}

func (r *Rewrite) build(text string, show func(value int) string) string {
	size := 0
	for _, p := range r.Pieces {
		size += p.End - p.Start + len(p.Text) + 6
	}
	var b strings.Builder
	b.Grow(size)
	for _, p := range r.Pieces {
		switch p.Kind {
		case PieceClient:
			b.WriteString(text[p.Start:p.End])
		case PieceText:
			b.WriteString(p.Text)
		case PieceValue:
			b.WriteString(show(p.Value))
		}
	}
	return b.String()
}

// Quote gives a constant for SQL that means the same whatever standard_conforming_strings is. Nil is NULL.
func Quote(value *string) string {
	switch {
	case value == nil:
		return "NULL"
	case strings.Contains(*value, `\`):
		return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(*value) + "'"
	}
	return "'" + strings.ReplaceAll(*value, "'", "''") + "'"
}

// Origin says where character pos (from 1) of Text comes from in the client's text. In a piece of ours it is the place of the call
// that the piece belongs to, and call is the number of that call in Calls; otherwise call is -1.
func (r *Rewrite) Origin(text string, first, pos int) (origin, call int) {
	return r.origin(text, pos, func(value int) int { return 1 + len(strconv.Itoa(first+value)) })
}

// OriginLiteral is Origin for Literal.
func (r *Rewrite) OriginLiteral(text string, values []*string, pos int) (origin, call int) {
	return r.origin(text, pos, func(value int) int { return utf8.RuneCountInString(Quote(values[value])) })
}

func (r *Rewrite) origin(text string, pos int, width func(value int) int) (origin, call int) {
	left, end := pos-1, 0
	for _, p := range r.Pieces {
		n := 0
		switch p.Kind {
		case PieceClient:
			n = utf8.RuneCountInString(text[p.Start:p.End])
			if left < n {
				return utf8.RuneCountInString(text[:p.Start]) + 1 + max(left, 0), -1
			}
			end = p.End
		case PieceText:
			n = utf8.RuneCountInString(p.Text)
		case PieceValue:
			n = width(p.Value)
		}
		switch {
		case left >= n:
		case p.Call < 0:
			return utf8.RuneCountInString(text[:p.Start]) + 1, -1
		default:
			return r.Calls[p.Call].Position, p.Call
		}
		left -= n
	}
	return utf8.RuneCountInString(text[:end]) + 1, -1
}

// MapError gives the message and the position of an error of the server's as the client is to see them, given those of the
// error about Text. Position 0 is none and stays so.
func (r *Rewrite) MapError(text string, first int, code, message string, pos int) (string, int) {
	if pos <= 0 {
		return message, pos
	}
	origin, call := r.Origin(text, first, pos)
	return r.word(call, code, message), origin
}

// MapErrorLiteral is MapError for Literal.
func (r *Rewrite) MapErrorLiteral(text string, values []*string, code, message string, pos int) (string, int) {
	if pos <= 0 {
		return message, pos
	}
	origin, call := r.OriginLiteral(text, values, pos)
	return r.word(call, code, message), origin
}

// wrappers are the functions that stand for a call or take its arguments: in each the message about wrong types has the
// type of one argument between two fixed parts.
var wrappers = [...]struct{ before, after string }{
	{"function pg_catalog.varchar(", ", integer, boolean) does not exist"},
	{"function pg_catalog.textcat(", ", unknown) does not exist"},
	{"function pg_catalog.int4pl(", ", integer) does not exist"},
}

// word puts the function's own name into a message about what stands in its place.
func (r *Rewrite) word(call int, code, message string) string {
	if call < 0 {
		return message
	}
	c := &r.Calls[call]
	switch code {
	case "42883":
		for slot, w := range wrappers {
			if strings.HasPrefix(message, w.before) && strings.HasSuffix(message, w.after) && len(message) > len(w.before)+len(w.after) {
				return c.doesNotExist(slot, message[len(w.before):len(message)-len(w.after)])
			}
		}
	case "42809":
		for _, name := range []string{sqlLookup, sqlEach, sqlClause, sqlStar} {
			message = strings.ReplaceAll(message, strings.TrimSuffix(name, "("), c.Name)
		}
	}
	return message
}

// doesNotExist is PostgreSQL's message for a call whose argument number slot has a type that does not fit. The types of the others
// are known only as far as the text has them.
func (c *Replaced) doesNotExist(slot int, typ string) string {
	d := Replaced{Name: c.Name, args: slices.Clone(c.args)}
	for i := range d.args {
		if d.args[i].slot == slot {
			d.args[i].typ = typ
		}
	}
	return "function " + d.signature() + " does not exist"
}

// signature is the call as messages have it.
func (c *Replaced) signature() string {
	types := make([]string, len(c.args))
	for i, a := range c.args {
		if types[i] = a.typ; a.name != "" {
			types[i] = a.name + " => " + a.typ
		}
	}
	return c.Name + "(" + strings.Join(types, ", ") + ")"
}

// For gives what to run when a Parse message declares these types of the client's parameters: r itself, unless a parameter
// that is a key has a type whose bytes are not the key's.
func (r *Rewrite) For(declared []uint32) *Rewrite {
	if r.evaluated == nil {
		return r
	}
	for _, v := range r.Values {
		if n := v.Key.Param; v.Kind == ValueGet && n > 0 && n <= len(declared) {
			switch declared[n-1] {
			case oidUnresolved, oidUnknown, oidText, oidVarchar:
			default:
				return r.evaluated
			}
		}
	}
	return r
}

// Insert gives a copy of r with SQL put in at an offset of the client's text, which must lie outside of the calls.
func (r *Rewrite) Insert(at int, sql string) *Rewrite {
	c := *r
	c.evaluated = nil
	c.Pieces = make([]Piece, 0, len(r.Pieces)+2)
	done := false
	for i, p := range r.Pieces {
		// An offset between two pieces is the end of the first, unless that is of ours.
		if done || p.Kind != PieceClient || at < p.Start || at > p.End || at == p.End && i+1 < len(r.Pieces) && r.Pieces[i+1].Start == at && r.Pieces[i+1].Kind == PieceClient {
			c.Pieces = append(c.Pieces, p)
			continue
		}
		done = true
		head, tail := p, p
		head.End, tail.Start = at, at
		if head.Start < head.End {
			c.Pieces = append(c.Pieces, head)
		}
		c.Pieces = append(c.Pieces, Piece{Kind: PieceText, Text: sql, Start: at, End: at, Call: -1})
		if tail.Start < tail.End {
			c.Pieces = append(c.Pieces, tail)
		}
	}
	return &c
}
