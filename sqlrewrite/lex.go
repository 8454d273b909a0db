package sqlrewrite

import "strings"

// kind is what a token is to the survey; it is coarser than the parser's own kinds.
type kind uint8

const (
	kEnd     kind = iota
	kIdent        // plain identifier or keyword
	kQuoted       // "identifier"
	kEscaped      // U&"identifier"
	kString       // any quoted constant, with all its continuations
	kNumber       // a number, or what begins like one
	kParam        // $1
	kOp           // a run of operator characters; token.count says how many operators it is
	kOpen         // ( [
	kClose        // ) ]
	kComma        // ,
	kSemi         // ;
	kDot          // .
	kOther        // any other character
	kBad          // a constant, comment or quoted identifier that does not end
)

// token is a piece of text [start, end).
type token struct {
	kind       kind
	start, end int
	count      int // for kOp: how many operators the parser's lexer makes of it
}

// lexer cuts text into tokens at the places where PostgreSQL's lexer does. Where the text is not SQL
// it may cut elsewhere: such a text is not parsed into a tree. Its time is linear in the text, also
// where PostgreSQL's is not, as in nested comments.
type lexer struct {
	text string
	at   int
	// backslashes says that plain quoted constants have backslash escapes.
	backslashes bool
	// escapes are the places of plain quoted constants that hold a backslash escape.
	escapes []int
	// clean is the text as the parser should see it, byte for byte in place: comments are blanks and
	// the insides of escapes are nothing. Nil while that is the text itself.
	clean []byte
}

// quoting says what can stand between the quotes of a constant.
type quoting uint8

const (
	qPlain   quoting = iota // '...': \ as the session has it, a doubled quote is a quote
	qEscape                 // E'...': \ escapes
	qUnicode                // U&'...': \ escapes, but never a quote
	qBits                   // B'...', X'...': nothing special
)

const (
	cOther uint8 = iota
	cSpace
	cIdent // can begin an identifier
	cDigit
	cOp
)

var classes = func() (c [256]uint8) {
	for i := range c {
		switch b := byte(i); {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '_', b >= 0x80:
			c[i] = cIdent
		case b >= '0' && b <= '9':
			c[i] = cDigit
		case strings.IndexByte(" \t\n\r\f\v", b) >= 0:
			c[i] = cSpace
		case strings.IndexByte("~!@#^&|`?+-*/%<>=", b) >= 0:
			c[i] = cOp
		}
	}
	return c
}()

// next gives the next token; after the last one it gives kEnd for ever.
func (l *lexer) next() token {
	if !l.skipBlanks() {
		return token{kind: kBad, start: l.at, end: len(l.text)}
	}
	start := l.at
	if start >= len(l.text) {
		return token{kind: kEnd, start: start, end: start}
	}
	var k kind
	count := 0
	switch c := l.text[start]; classes[c] {
	case cIdent:
		k = l.word()
	case cDigit:
		l.number()
		k = kNumber
	case cOp:
		count = l.operators()
		k = kOp
	default:
		k = l.special(c)
	}
	if k == kBad {
		l.at = len(l.text)
	}
	return token{kind: k, start: start, end: l.at, count: count}
}

// skipBlanks moves over white space and comments; false means a comment that does not end.
func (l *lexer) skipBlanks() bool {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case classes[c] == cSpace:
			l.at++
		case c == '-' && strings.HasPrefix(l.text[l.at:], "--"):
			l.lineComment()
		case c == '/' && strings.HasPrefix(l.text[l.at:], "/*"):
			if !l.blockComment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// lineComment moves to the end of the line, which is not part of the comment.
func (l *lexer) lineComment() {
	start := l.at
	l.at = lineEnd(l.text, l.at)
	l.replace(start, l.at, ' ')
}

func lineEnd(text string, i int) int {
	for i < len(text) && text[i] != '\n' && text[i] != '\r' {
		i++
	}
	return i
}

// blockComment moves behind a comment in /* */; these nest.
func (l *lexer) blockComment() bool {
	depth := 0
	for i := l.at; i+1 < len(l.text); {
		switch c, d := l.text[i], l.text[i+1]; {
		case c == '/' && d == '*':
			depth++
			i += 2
		case c == '*' && d == '/':
			depth--
			i += 2
			if depth == 0 {
				l.replace(l.at, i, ' ')
				l.at = i
				return true
			}
		default:
			i++
		}
	}
	return false
}

// replace hides a part of the text from the parser.
func (l *lexer) replace(start, end int, by byte) {
	if l.clean == nil {
		l.clean = []byte(l.text)
	}
	for i := start; i < end; i++ {
		l.clean[i] = by
	}
}

// word reads what begins with a letter: an identifier, or a constant with a prefix.
func (l *lexer) word() kind {
	c, rest := l.text[l.at], l.text[l.at+1:]
	switch {
	case strings.HasPrefix(rest, "'"):
		switch c {
		case 'e', 'E':
			l.at++
			return l.quotedString(qEscape)
		case 'b', 'B', 'x', 'X':
			l.at++
			return l.quotedString(qBits)
		}
	case c != 'u' && c != 'U':
	case strings.HasPrefix(rest, "&'"):
		if l.backslashes {
			return kBad // postgres does not read a text with such a constant then
		}
		l.at += 2
		return l.quotedString(qUnicode)
	case strings.HasPrefix(rest, `&"`):
		l.at += 2
		if l.quotedIdent() == kBad {
			return kBad
		}
		return kEscaped
	}
	l.at = identEnd(l.text, l.at)
	return kIdent
}

func identEnd(text string, at int) int {
	for at < len(text) && (classes[text[at]] == cIdent || classes[text[at]] == cDigit || text[at] == '$') {
		at++
	}
	return at
}

// number takes more than a number where one runs into letters; PostgreSQL calls that an error.
func (l *lexer) number() {
	point := l.text[l.at] == '.'
	for l.at++; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '.' && !point && !strings.HasPrefix(l.text[l.at:], ".."):
			point = true
		case classes[c] != cDigit && classes[c] != cIdent:
			return
		}
	}
}

// operators reads a run of operator characters. The rules are PostgreSQL's: a comment ends the run, and
// without one of the characters that SQL itself does not use a trailing + or - is not part of the
// operator but one of its own.
func (l *lexer) operators() (count int) {
	end := l.at
	for end < len(l.text) && classes[l.text[end]] == cOp && !startsComment(l.text[end:]) {
		end++
	}
	run := l.text[l.at:end]
	l.at = end
	core := strings.TrimRight(run[1:], "+-")
	if trimmed := len(run) - 1 - len(core); trimmed > 0 && !strings.ContainsAny(run[:len(run)-1], "~!@#^&|`?%") {
		return 1 + trimmed
	}
	return 1
}

func startsComment(s string) bool {
	return len(s) > 1 && (s[0] == '-' && s[1] == '-' || s[0] == '/' && s[1] == '*')
}

// special reads a token that begins with a character of its own meaning.
func (l *lexer) special(c byte) kind {
	switch c {
	case '\'':
		return l.quotedString(qPlain)
	case '"':
		return l.quotedIdent()
	case '$':
		return l.dollar()
	}
	l.at++
	switch c {
	case '(', '[':
		return kOpen
	case ')', ']':
		return kClose
	case ',':
		return kComma
	case ';':
		return kSemi
	case '.':
		if l.at < len(l.text) && classes[l.text[l.at]] == cDigit {
			l.at--
			l.number()
			return kNumber
		}
		if !strings.HasPrefix(l.text[l.at:], ".") {
			return kDot
		}
		l.at++
	case ':':
		if strings.HasPrefix(l.text[l.at:], ":") {
			l.at++
		}
	}
	return kOther
}

// quotedIdent reads from a double quote to the one that ends the identifier.
func (l *lexer) quotedIdent() kind {
	l.at++
	for {
		n := strings.IndexByte(l.text[l.at:], '"')
		if n < 0 {
			return kBad
		}
		l.at += n + 1
		if !strings.HasPrefix(l.text[l.at:], `"`) {
			return kQuoted
		}
		l.at++
	}
}

// quotedString reads from a single quote to the one that ends the constant, and on if the next line
// continues it.
func (l *lexer) quotedString(q quoting) kind {
	for {
		l.at++
		inside := l.at
		escaped, ok := l.toQuote(q)
		if !ok {
			return kBad
		}
		if escaped && q == qPlain {
			l.escapes = append(l.escapes, inside)
			l.replace(inside, l.at-1, 'x')
		}
		next, ok := continuation(l.text, l.at)
		if !ok {
			return kString
		}
		l.hideComments(next)
	}
}

// toQuote moves behind the quote that ends the constant; escaped says that a backslash escape stood
// before it.
func (l *lexer) toQuote(q quoting) (escaped, ok bool) {
	backslashes := q == qEscape || q == qPlain && l.backslashes
	for l.at < len(l.text) {
		c := l.text[l.at]
		l.at++
		switch {
		case c == '\\' && backslashes:
			escaped = true
			l.at++
		case c != '\'':
		case q != qBits && strings.HasPrefix(l.text[l.at:], "'"):
			l.at++
		default:
			return escaped, true
		}
	}
	return escaped, false
}

// continuation finds the quote that continues a constant which ended at i: there must be a line end
// between them, and nothing but blanks and line comments.
func continuation(text string, i int) (quote int, ok bool) {
	newline := false
	for i < len(text) {
		switch c := text[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case classes[c] == cSpace:
			i++
		case c == '-' && strings.HasPrefix(text[i:], "--"):
			i = lineEnd(text, i)
		default:
			return i, newline && c == '\''
		}
	}
	return 0, false
}

// hideComments moves to the quote that continues a constant.
func (l *lexer) hideComments(quote int) {
	for l.at < quote {
		if startsComment(l.text[l.at:]) {
			l.lineComment()
		} else {
			l.at++
		}
	}
}

// dollar reads a parameter, a dollar-quoted constant or a lone dollar sign.
func (l *lexer) dollar() kind {
	start := l.at
	l.at++
	if l.at < len(l.text) && classes[l.text[l.at]] == cDigit {
		for l.at < len(l.text) && classes[l.text[l.at]] == cDigit {
			l.at++
		}
		return kParam
	}
	for l.at < len(l.text) && (classes[l.text[l.at]] == cIdent || classes[l.text[l.at]] == cDigit) {
		l.at++
	}
	if !strings.HasPrefix(l.text[l.at:], "$") {
		l.at = start + 1
		return kOther
	}
	l.at++
	tag := l.text[start:l.at]
	n := strings.Index(l.text[l.at:], tag)
	if n < 0 {
		return kBad
	}
	l.at += n + len(tag)
	return kString
}
