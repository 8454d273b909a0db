package proxy

import (
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
	for i := 0; i+len(word) <= len(text); i++ {
		if text[i]|0x20 == word[0] && strings.EqualFold(string(text[i:i+len(word)]), word) {
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

// executing gives the program of a text that executes rewritten statements; prog is the text's own program, nil if it has
// none. The parts that do so get what they need when it is their turn, see executed.
func (f *frontend) executing(text string, prog *program) *program {
	o := f.readOptions()
	for _, e := range sqlrewrite.Executions(text, o) {
		if p := f.ext.stmts[e.Name]; p == nil || p.remote == nil {
			continue
		}
		if prog == nil {
			prog = &program{text: text}
			for _, r := range sqlrewrite.Statements(text, o) {
				prog.parts = append(prog.parts, part{start: r.Start, end: r.End, control: r.Control, params: r.MaxParam, fills: r.Fills})
			}
			return prog
		}
		c := *prog
		c.local = false
		return &c
	}
	return prog
}

func (f *frontend) readOptions() sqlrewrite.Options {
	return sqlrewrite.Options{StandardConformingStrings: f.settings.standardConformingStrings}
}

// executed gives a part, or if it executes a rewritten statement, one that gives it what it needs. The server owes nothing.
func (f *frontend) executed(text string, t *part) (*part, error) {
	if t.local != nil || t.refusal != nil || !f.mayExecute([]byte(text[t.start:t.end])) {
		return t, nil
	}
	for _, e := range sqlrewrite.Executions(text, f.readOptions()) {
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
		c.rewrite = e.WithArguments(t.rewrite, p.remote.rw, p.remote.params == 0)
		c.arguments = len(p.remote.rw.Values)
		return &c, nil
	}
	return t, nil
}
