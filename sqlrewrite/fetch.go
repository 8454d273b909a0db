package sqlrewrite

import (
	"strings"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// ReadsPortal reports whether a text has a FETCH or MOVE from the portal of this name, or a DO block that names it and may have one.
// It is false for a text that Parse would call unreadable.
func ReadsPortal(text, name string, o Options) bool {
	if len(text) > maxText || !mentionsFetch(text) || !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return false
	}
	s := look(text, o)
	if !s.ok {
		return false
	}
	tree, err := parseTree(s.text, s.tokens)
	if err != nil {
		return false
	}
	for _, raw := range tree.Stmts {
		switch n := raw.Stmt.GetNode().(type) {
		case *pg_query.Node_FetchStmt:
			if n.FetchStmt.Portalname == name {
				return true
			}
		case *pg_query.Node_DoStmt:
			if body := bodyOf(n.DoStmt); mentionsFetch(body) && strings.Contains(strings.ToLower(body), strings.ToLower(name)) {
				return true
			}
		}
	}
	return false
}

// bodyOf is the text of a DO block.
func bodyOf(n *pg_query.DoStmt) string {
	for _, arg := range n.Args {
		if e := arg.GetDefElem(); e.GetDefname() == "as" {
			return e.Arg.GetString_().GetSval()
		}
	}
	return ""
}

// mentionsFetch reports whether a text has one of the words that read a portal in it, in any case.
func mentionsFetch(text string) bool {
	for i := range len(text) {
		switch text[i] | 0x20 {
		case 'f':
			if len(text)-i >= len("fetch") && foldsTo(text[i:i+len("fetch")], "fetch") {
				return true
			}
		case 'm':
			if len(text)-i >= len("move") && foldsTo(text[i:i+len("move")], "move") {
				return true
			}
		}
	}
	return false
}
