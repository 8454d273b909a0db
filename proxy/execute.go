package proxy

import (
	"bytes"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// mayExecute says whether a text may run a prepared statement by EXECUTE that needs values from the table.
func (f *frontend) mayExecute(text []byte) bool {
	if f.ext == nil || !f.ext.executable() {
		return false
	}
	return bytes.Contains(bytes.ToLower(text), []byte("execute"))
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

// withExecutions gives the program of a text in which EXECUTE of a rewritten statement gets the values that it needs;
// prog is the text's own program, nil if it has none, and then the result is nil if it executes none.
func (f *frontend) withExecutions(text string, prog *program) (*program, error) {
	o := sqlrewrite.Options{StandardConformingStrings: f.settings.standardConformingStrings}
	var changed *program
	for _, e := range sqlrewrite.Executions(text, o) {
		p := f.ext.stmts[e.Name]
		if p == nil || p.remote == nil {
			continue
		}
		who, err := f.known(e.Name, p)
		if err != nil {
			return nil, err
		}
		if who != ownerUs {
			continue
		}
		if changed == nil {
			changed = f.ownProgram(text, prog, o)
		}
		if e.Statement < len(changed.parts) {
			t := &changed.parts[e.Statement]
			t.rewrite = e.WithArguments(t.rewrite, p.remote.rw)
		}
	}
	if changed == nil {
		return prog, nil
	}
	changed.local, changed.forward = false, false
	return changed, nil
}

// ownProgram is a copy of a text's program that may be changed.
func (f *frontend) ownProgram(text string, prog *program, o sqlrewrite.Options) *program {
	if prog != nil {
		c := *prog
		c.parts = append([]part(nil), prog.parts...)
		return &c
	}
	c := &program{text: text}
	for _, r := range sqlrewrite.Statements(text, o) {
		c.parts = append(c.parts, part{start: r.Start, end: r.End, control: r.Control, params: r.MaxParam})
	}
	return c
}
