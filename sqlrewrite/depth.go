package sqlrewrite

// The parser builds its tree without recursion, but the tree is written out by recursive functions on
// a C stack that nobody checks. depthMeter bounds the depth of the tree from the tokens alone.
//
// Every level of a tree costs at least a token: an operator, a prefix, a keyword, a parenthesis. So a
// tree is never deeper than the number of tokens plus what is nested in parentheses. Counting all of
// them would refuse long lists, which are flat, so the count starts anew where the grammar cannot
// continue an expression and only adds a sibling:
//
//   - at a comma, and at a semicolon;
//   - at AND and OR, whose chains the parser flattens, unless the AND belongs to a BETWEEN;
//   - at UNION, INTERSECT and EXCEPT; but their own chain is deep, so it is counted on the side, and
//     only a semicolon ends it;
//   - at WHEN, THEN and ELSE inside CASE. CASE nests as a parenthesis does: it stands before what
//     AND and OR would otherwise separate.
//
// Where such a word is really a name ("AS union", "x.and") it either follows a dot, which is checked,
// or is a label that ends an expression as a comma would. A false CASE or END changes nothing for the
// chains that are counted on the side, because these belong to the enclosing parenthesis.
//
// The stack that a level takes is measured in TestDepth.
type depthMeter struct {
	levels []level
	parens int // index of the innermost level that is no CASE
	dot    bool
	deep   int // of finished statements
}

// level is what is known of an open parenthesis, an open CASE or the statement itself.
type level struct {
	isCase   bool
	outer    int // index of the next enclosing level that is no CASE
	segment  int // tokens since the last separator
	nested   int // the deepest nesting closed in this segment
	deepest  int // of the finished segments
	chain    int // set operations and joins
	betweens int // BETWEEN that still waits for its AND
}

const (
	parenCost = 2 // a sub-select or a row is more than one level of the tree
	caseCost  = 4 // so is an arm of CASE
)

func (m *depthMeter) reset() {
	m.levels = append(m.levels[:0], level{})
	m.parens = 0
}

func (l *level) separate() {
	l.deepest = max(l.deepest, l.segment+l.nested)
	l.segment, l.nested, l.betweens = 0, 0, 0
}

func (m *depthMeter) top() *level { return &m.levels[len(m.levels)-1] }

// add takes the next token.
func (m *depthMeter) add(text string, t token) {
	wasDot := m.dot
	m.dot = t.kind == kDot
	m.top().segment += max(t.count, 1)
	switch t.kind {
	case kOpen:
		m.push(false)
	case kClose:
		m.closeParen()
	case kComma:
		m.top().separate()
	case kSemi:
		m.semicolon()
	case kIdent:
		if !wasDot {
			m.keyword(text[t.start:t.end])
		}
	}
}

func (m *depthMeter) push(isCase bool) {
	m.levels = append(m.levels, level{isCase: isCase, outer: m.parens})
	if !isCase {
		m.parens = len(m.levels) - 1
	}
}

// pop closes the innermost level, which is not the statement's.
func (m *depthMeter) pop() {
	l := m.top()
	l.separate()
	cost, depth := parenCost, l.chain+l.deepest
	if l.isCase {
		cost = caseCost
	}
	if !l.isCase {
		m.parens = l.outer
	}
	m.levels = m.levels[:len(m.levels)-1]
	m.top().nested = max(m.top().nested, depth+cost)
}

func (m *depthMeter) closeParen() {
	for m.top().isCase {
		m.pop()
	}
	if len(m.levels) > 1 {
		m.pop()
	}
}

// semicolon ends a statement, or one of those in the parentheses of a rule.
func (m *depthMeter) semicolon() {
	for m.top().isCase {
		m.pop()
	}
	if len(m.levels) > 1 {
		m.top().separate()
		return
	}
	m.deep = m.finish()
	m.reset()
}

// finish gives the depth of the deepest statement so far.
func (m *depthMeter) finish() int {
	for len(m.levels) > 1 {
		m.pop()
	}
	l := m.top()
	l.separate()
	return max(m.deep, l.chain+l.deepest)
}

func (m *depthMeter) keyword(s string) {
	if len(s) < 2 || len(s) > 9 {
		return
	}
	switch s[0] | 0x20 {
	case 'a', 'o':
		if foldsTo(s, "and") || foldsTo(s, "or") {
			m.andOr(len(s) == 3)
		}
	case 'b':
		if foldsTo(s, "between") {
			m.top().betweens++
		}
	case 'c':
		if foldsTo(s, "case") {
			m.push(true)
		}
	case 'e':
		switch {
		case foldsTo(s, "end"):
			if m.top().isCase {
				m.pop()
			}
		case foldsTo(s, "else"):
			m.arm()
		case foldsTo(s, "except"):
			m.setOperation()
		}
	case 'i':
		if foldsTo(s, "intersect") {
			m.setOperation()
		}
	case 'j':
		if foldsTo(s, "join") {
			m.levels[m.parens].chain++
		}
	case 't', 'w':
		if foldsTo(s, "then") || foldsTo(s, "when") {
			m.arm()
		}
	case 'u':
		if foldsTo(s, "union") {
			m.setOperation()
		}
	}
}

func (m *depthMeter) andOr(and bool) {
	l := m.top()
	if and && l.betweens > 0 {
		l.betweens--
		return
	}
	l.separate()
}

func (m *depthMeter) arm() {
	if m.top().isCase {
		m.top().separate()
	}
}

func (m *depthMeter) setOperation() {
	m.levels[m.parens].chain++
	m.top().separate()
}
