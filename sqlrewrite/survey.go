package sqlrewrite

// survey is what a pass over the tokens tells about a text before the parser sees it.
type survey struct {
	// names are the places where a call of the function may stand: the word, with or without names
	// before it, followed by a parenthesis. The offset is that of the first name.
	names []int
	// long are the places of identifiers that postgres may cut short, with a notice.
	long []int
	// escapes are the places of the plain constants with a backslash escape.
	escapes []int
	// params are the uses of parameters.
	params []paramUse
	// commands says that there may be a statement about a setting of the function or its extension.
	commands bool
	// executes says that the word "execute" is there.
	executes bool
	// text is what the parser should see: every byte in its place, but comments are blanks, and
	// constants that the parser would read in another way than the session does are replaced.
	text string
	// tokens is the number of tokens, at least what the parser counts.
	tokens int
	// depth bounds how deep the parse tree can be, see depthMeter.
	depth int
	// ok is false for a text that is not SQL or that the parser must not see for its size or shape.
	ok bool
}

// paramUse is a use of a parameter.
type paramUse struct{ at, number int }

// paramNumber is that of $number; one that is far too large is cut.
func paramNumber(s string) int {
	n := 0
	for i := 1; i < len(s) && n <= maxParams; i++ {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// maxIdent is the number of bytes that postgres keeps of an identifier.
const maxIdent = 63

// look surveys a text. It takes time in proportion to the text.
func look(text string, o Options) survey {
	var (
		s     survey
		lex   = lexer{text: text, backslashes: !o.StandardConformingStrings}
		meter depthMeter
		name  qualifiedName
		last  kind
		about aboutWatch
	)
	meter.reset()
	for {
		t := lex.next()
		if t.kind == kEnd {
			break
		}
		s.tokens += max(t.count, 1)
		if t.kind == kBad || s.tokens > maxTokens || len(meter.levels) > maxDepth {
			return survey{}
		}
		if at, ok := name.add(text, t); ok {
			s.names = append(s.names, at)
		}
		if t.kind == kParam {
			s.params = append(s.params, paramUse{t.start, paramNumber(text[t.start:t.end])})
		}
		if isIdent(t.kind) {
			s.commands = about.add(text, t) || s.commands
			s.executes = s.executes || t.kind == kIdent && foldsTo(text[t.start:t.end], "execute")
		}
		if isIdent(t.kind) && t.end-t.start > maxIdent {
			s.long = append(s.long, t.start)
		}
		if t.kind == kString && last == kString {
			// Without its comment, 'a' /* */ 'b' would be one constant if there is a line end in it.
			return survey{}
		}
		last = t.kind
		meter.add(text, t)
	}
	s.depth = meter.finish()
	s.escapes, s.text = lex.escapes, text
	if lex.clean != nil {
		s.text = string(lex.clean)
	}
	s.ok = s.depth <= depthLimit && int64(s.depth)*int64(len(text)) <= maxWork
	return s
}

func isIdent(k kind) bool { return k == kIdent || k == kQuoted || k == kEscaped }

// qualifiedName watches for the function's name before a parenthesis.
type qualifiedName struct {
	start   int  // of the first name
	open    bool // a name, or a name and a dot, has been read
	dotted  bool // the last token was a dot after a name
	matches bool // the last name is the function's
	escaped bool // some name is written with Unicode escapes
}

// add takes the next token. It gives the start of a name when the token is the parenthesis behind it.
func (n *qualifiedName) add(text string, t token) (start int, ok bool) {
	switch {
	case isIdent(t.kind):
		if !n.dotted {
			*n = qualifiedName{start: t.start}
		}
		n.open, n.dotted = true, false
		n.escaped = n.escaped || t.kind == kEscaped
		n.matches = spells(text, t)
	case t.kind == kDot && n.open && !n.dotted:
		n.dotted = true
	default:
		start, ok = n.start, n.open && !n.dotted && n.matches && !n.escaped && t.kind == kOpen && text[t.start] == '('
		*n = qualifiedName{}
	}
	return start, ok
}

// spells reports whether an identifier is the function's name. One with Unicode escapes never is: the
// function is recognised where its name can be read.
func spells(text string, t token) bool {
	switch t.kind {
	case kIdent:
		return foldsTo(text[t.start:t.end], word)
	case kQuoted:
		return text[t.start+1:t.end-1] == word
	}
	return false
}

// foldsTo reports whether s is the lower-case ASCII word w but for case.
func foldsTo(s, w string) bool {
	if len(s) != len(w) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != w[i] {
			return false
		}
	}
	return true
}
