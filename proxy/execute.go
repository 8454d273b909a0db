package proxy

import (
	"slices"
	"strings"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// mayExecute says whether a text may run a prepared statement by EXECUTE that needs values from the table.
func (f *frontend) mayExecute(text []byte) bool {
	if f.ext == nil || !f.ext.executable() {
		return false
	}
	return containsFold(text, "execute")
}

// containsFold says whether a text has a lower-case ASCII word in it, in any case.
func containsFold(text []byte, word string) bool {
	if word == "" {
		return true
	}
	for i := 0; i+len(word) <= len(text); i++ {
		if c := text[i]; (c == word[0] || c|0x20 == word[0]) && strings.EqualFold(string(text[i:i+len(word)]), word) {
			return true
		}
	}
	return false
}

// executable says whether there are rewritten statements with a name.
func (x *extended) executable() bool {
	for name, p := range x.stmts {
		if name != "" && p.remote != nil {
			return true
		}
	}
	return false
}

// executes says whether a text executes statements with calls. The parts that do so get what they need when it is their turn,
// see executed.
func (f *frontend) executes(prog *program) bool {
	if f.ext == nil {
		return false
	}
	for _, e := range prog.executions {
		if p := f.ext.stmts[e.Name]; p != nil && p.remote != nil {
			return true
		}
	}
	return false
}

func (f *frontend) readOptions() sqlrewrite.Options {
	return sqlrewrite.Options{StandardConformingStrings: f.settings.standardConformingStrings}
}

var (
	errSetByExecute = &pgError{
		code: codeFeatureNotSupported, message: "raftable(key, value) cannot be used here",
		detail: "Nothing was set.", hint: "Run the prepared statement by itself, as in EXECUTE name.",
	}
	errKeyOfExecute = &pgError{
		code:    codeFeatureNotSupported,
		message: "EXECUTE cannot run this statement, since its key is a parameter and it was prepared by the protocol",
		detail:  "Nothing was read or set.",
		hint:    "Run it by Bind, or prepare it with PREPARE.",
	}
)

// executed gives a part, or if it executes a statement with calls, one that gives it what it needs. The server owes nothing.
func (f *frontend) executed(prog *program, t *part) (*part, error) {
	if t.local != nil || t.refusal != nil || f.ext == nil {
		return t, nil
	}
	for _, e := range prog.executions {
		if e.Start != t.start {
			continue
		}
		p := f.ext.stmts[e.Name]
		if p == nil || p.remote == nil {
			return t, nil
		}
		if who, err := f.known(e.Name, p); who != ownerUs || err != nil {
			return t, err
		}
		c := *t
		switch rw := p.remote.rw; {
		case len(rw.Harvest) > 0 && (e.Into || e.Analyze):
			c.refusal = errSetByExecute
		case slices.ContainsFunc(rw.Values, func(v sqlrewrite.Value) bool { return v.Key.Param > 0 }):
			c.refusal = errKeyOfExecute
		default:
			c.rewrite = e.WithArguments(t.rewrite, rw, p.remote.params == 0)
			c.arguments = len(rw.Values)
		}
		return &c, nil
	}
	return t, nil
}
