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
		for _, check := range checks {
			before, after := "function "+check.open, ") does not exist"
			if strings.HasPrefix(message, before) && strings.HasSuffix(message, after) {
				return c.doesNotExist(0, splitTypes(message[len(before):len(message)-len(after)])...)
			}
		}
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

// splitTypes takes a list of types apart. A name in quotes may have a comma.
func splitTypes(list string) (types []string) {
	start, quoted := 0, false
	for i := range len(list) {
		switch {
		case list[i] == '"':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			types = append(types, list[start:i])
			start = i + len(", ")
		}
	}
	return append(types, list[start:])
}

// doesNotExist is PostgreSQL's message for a call with types that do not fit, given those of the arguments from number slot on. The
// types of the others are known only as far as the text has them.
func (c *Replaced) doesNotExist(slot int, types ...string) string {
	d := Replaced{Name: c.Name, args: slices.Clone(c.args)}
	for i := range d.args {
		if n := d.args[i].slot - slot; n >= 0 && n < len(types) {
			d.args[i].typ = types[n]
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

// For gives what to run when a Parse message declares these types of the client's parameters: r itself, or a copy that knows the types
// for messages, or another text if a parameter that is a key has a type whose bytes are not the key's.
func (r *Rewrite) For(declared []uint32) *Rewrite { return r.textFor(declared).withTypes(declared) }

func (r *Rewrite) textFor(declared []uint32) *Rewrite {
	if r.evaluated == nil {
		return r
	}
	for _, v := range r.Values {
		if n := v.Key.Param; v.Kind == ValueGet && n > 0 {
			switch declaredType(declared, n) {
			case oidUnresolved, oidUnknown, oidText, oidVarchar:
			default:
				return r.evaluated
			}
		}
	}
	return r
}

// withTypes has the types that are declared in the arguments that are parameters.
func (r *Rewrite) withTypes(declared []uint32) *Rewrite {
	if len(declared) == 0 {
		return r
	}
	c := *r
	c.Calls = slices.Clone(r.Calls)
	for i := range c.Calls {
		args := c.Calls[i].args
		for j := range args {
			if name, ok := typeName(declaredType(declared, args[j].param)); ok && name != args[j].typ && args[j].param > 0 {
				args = slices.Clone(args)
				args[j].typ = name
			}
		}
		c.Calls[i].args = args
	}
	return &c
}

func declaredType(declared []uint32, param int) uint32 {
	if param < 1 || param > len(declared) {
		return oidUnresolved
	}
	return declared[param-1]
}
