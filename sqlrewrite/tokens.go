package sqlrewrite

import "sort"

// tokenTable is the tokens of one statement, with the parentheses matched. Offsets are those of the whole text.
type tokenTable []tableToken

type tableToken struct {
	kind       kind
	start, end int32
	// match is the index of the other parenthesis, for kOpen and kClose.
	match int32
	// up is the index of the innermost parenthesis around the token, -1 if there is none.
	up int32
}

// tokenize reads the tokens of the statement in [start, end).
func (p *planner) tokenize(start, end int) tokenTable {
	// The survey has made blanks of the comments in its own copy.
	lex := lexer{text: p.survey.text[:end], at: start}
	table := make(tokenTable, 0, (end-start)/4+8)
	up := int32(-1)
	for {
		t := lex.next()
		if t.kind == kEnd || t.kind == kBad {
			return table
		}
		i := int32(len(table))
		if t.kind == kClose && up >= 0 {
			open := up
			up = table[open].up
			table[open].match = i
			table = append(table, tableToken{kind: t.kind, start: int32(t.start), end: int32(t.end), match: open, up: up})
			continue
		}
		table = append(table, tableToken{kind: t.kind, start: int32(t.start), end: int32(t.end), match: i, up: up})
		if t.kind == kOpen {
			up = i
		}
	}
}

// at gives the index of the first token that starts at offset or behind it.
func (t tokenTable) at(offset int) int {
	return sort.Search(len(t), func(i int) bool { return int(t[i].start) >= offset })
}

// is reports whether token i is the keyword w, not a name that follows a dot.
func (p *planner) is(i int, w string) bool {
	if i < 0 || i >= len(p.tokens) {
		return false
	}
	t := p.tokens[i]
	return t.kind == kIdent && foldsTo(p.text[t.start:t.end], w) && (i == 0 || p.tokens[i-1].kind != kDot)
}

// span is a range of the text, in bytes.
type span struct{ start, end int }

// shape is where the parts of a call stand.
type shape struct {
	open, close int    // tokens
	args        []span // the arguments' own text, without names
}

// shapeOf finds the parts of a call with n arguments whose name starts at offset; ordered says that there is an ORDER BY behind
// the arguments, named says which are in named notation.
func (p *planner) shapeOf(offset, n int, ordered bool, named func(int) bool) (s shape, ok bool) {
	i := p.tokens.at(offset)
	for i < len(p.tokens) && p.tokens[i].kind != kOpen {
		i++
	}
	if i == len(p.tokens) || int(p.tokens[i].match) <= i {
		return s, false
	}
	s.open, s.close = i, int(p.tokens[i].match)
	first := i + 1
	if p.is(first, "all") || p.is(first, "distinct") || p.is(first, "variadic") {
		first++
	}
	for k := first; k <= s.close && len(s.args) < n; k++ {
		switch t := p.tokens[k]; {
		case t.kind == kOpen:
			k = int(t.match)
		case t.kind == kComma, k == s.close, ordered && len(s.args) == n-1 && p.is(k, "order"):
			if k == first {
				return s, false
			}
			s.args = append(s.args, p.argument(first, k, named(len(s.args))))
			first = k + 1
		}
	}
	return s, len(s.args) == n
}

// argument is the text of the tokens [i, j), without the name and the arrow of named notation.
func (p *planner) argument(i, j int, named bool) span {
	s := span{int(p.tokens[i].start), int(p.tokens[j-1].end)}
	if !named {
		return s
	}
	i++
	arrow := 2
	if p.tokens[i].kind == kOther { // a colon; the equals sign is the next token
		i, arrow = i+1, 1
	}
	if t := p.tokens[i]; int(t.end-t.start) > arrow {
		s.start = int(t.start) + arrow // an operator follows without a blank
	} else {
		s.start = int(p.tokens[i+1].start)
	}
	return s
}

// endsTargets are the words that can stand behind a list of output columns.
var endsTargets = []string{
	"into", "from", "where", "group", "having", "window", "union", "intersect", "except", "order", "limit", "offset",
	"fetch", "for", "on", "returning", "with",
}

// targetEnd gives the end of the output column whose expression starts at offset.
func (p *planner) targetEnd(offset int) int {
	cases, end := 0, offset
	for k := p.tokens.at(offset); k < len(p.tokens); k++ {
		switch t := p.tokens[k]; {
		case t.kind == kOpen:
			k = int(t.match)
		case t.kind == kClose, t.kind == kSemi, t.kind == kComma && cases == 0:
			return end
		case p.is(k, "case"):
			cases++
		case cases > 0:
			if p.is(k, "end") {
				cases--
			}
		case t.kind == kIdent && !p.is(k-1, "as") && p.endsTarget(k):
			return end
		}
		end = int(p.tokens[k].end)
	}
	return end
}

func (p *planner) endsTarget(k int) bool {
	for _, w := range endsTargets {
		if p.is(k, w) {
			return w != "with" || !p.is(k+1, "time")
		}
	}
	return false
}
