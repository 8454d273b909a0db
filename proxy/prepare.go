package proxy

import (
	"bytes"

	"github.com/jackc/pgproto3/v2"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// parse deals with a Parse message.
func (f *frontend) parse(msg []byte) (ours bool, err error) {
	name, text, ok := parseFields(msg)
	call := ok && f.mayCall(text)
	if !call && !f.ext.live() {
		return false, nil
	}
	state, err := f.settle()
	if err != nil || state == settledSkipping {
		return true, err
	}
	if state == settledCopying {
		return false, nil
	}
	if call {
		if prog := f.programOf(text); prog != nil && len(prog.parts) == 1 {
			offered := false
			if prog.parts[0].local.installs() {
				if offered, err = f.extensionOffered(); err != nil {
					return true, f.failWith(err)
				}
			}
			if !offered {
				return true, f.prepare(string(name), prog, msg)
			}
		}
	}
	if f.ext != nil {
		if ok && len(name) == 0 {
			delete(f.ext.stmts, "")
			f.ext.staleStmt = false
		}
		if ok && f.ext.stmts[string(name)] != nil {
			return true, f.replaceNamed(string(name), msg)
		}
	}
	return false, nil
}

// replaceNamed forwards a Parse under the name of a statement of ours. It succeeds where DEALLOCATE or DISCARD took our
// stand-in away, and then the name is the server's.
func (f *frontend) replaceNamed(name string, msg []byte) error {
	f.forwarded = true
	if err := f.send(msg, 'P'); err != nil {
		return err
	}
	state, err := f.settle()
	if err == nil && state == settledIdle {
		delete(f.ext.stmts, name)
	}
	return err
}

// parseFields takes name and text out of a Parse message.
func parseFields(msg []byte) (name, text []byte, ok bool) {
	name, rest, ok := bytes.Cut(msg[headerSize:], []byte{0})
	if !ok {
		return nil, nil, false
	}
	text, _, ok = bytes.Cut(rest, []byte{0})
	return name, text, ok
}

// prepare makes a prepared statement of a program. The server owes nothing.
func (f *frontend) prepare(name string, prog *program, msg []byte) error {
	f.begin()
	var m pgproto3.Parse
	if err := m.Decode(msg[headerSize:]); err != nil {
		return f.fail(errMalformed())
	}
	if name == "" { // gone, whatever comes of the new one
		delete(f.ext.stmts, "")
		f.ext.staleStmt = f.serverUnnamed
	}
	if f.transaction().status == 'E' {
		return f.fail(errFailedTransaction)
	}
	t := &prog.parts[0]
	if t.refusal != nil {
		return f.fail(t.refusal)
	}
	if t.local == nil {
		t, err := f.executed(prog.text, t)
		if err != nil {
			return err
		}
		if t.rewrite == nil { // the name has become the server's
			t = &part{rewrite: sqlrewrite.Whole(0, len(prog.text)), params: t.params}
		}
		return f.prepareRemote(name, prog.text, t, m.ParameterOIDs)
	}
	st := t.local
	types, ref := st.ResolveParams(m.ParameterOIDs)
	if ref != nil {
		if ref.Code == codeFeatureNotSupported && t.rewrite != nil {
			return f.prepareRemote(name, prog.text, t, m.ParameterOIDs)
		}
		return f.fail(refusal(ref))
	}
	for i, oid := range types {
		if oid == 0 {
			return f.fail(&pgError{code: codeIndeterminateType, message: "could not determine data type of parameter $" + itoa(i+1)})
		}
	}
	p := &prepared{st: st, types: types, drops: f.drops()}
	if name != "" {
		return f.prepareNamed(name, p)
	}
	f.ext.stmts[""] = p
	f.buffer()
	f.out = append(f.out, '1', 0, 0, 0, 4)
	return nil
}

// standIn is what the server keeps under the name of a statement of ours. EXECUTE in SQL reaches it, and fails with a
// message that says why.
const standIn = "SELECT ('this statement calls raftable(): the proxy runs it through Bind and Execute, EXECUTE cannot' || '')::int AS \"" +
	standInColumn + "\""

// standInColumn is how a stand-in is told from other statements.
const standInColumn = "raftable, see proxy"

// prepareNamed has the server keep the name. Its ParseComplete, or its error, is the client's answer.
func (f *frontend) prepareNamed(name string, p *prepared) error {
	m := pgproto3.Parse{Name: name, Query: standIn, ParameterOIDs: p.types}
	b, err := m.Encode(nil)
	if err != nil {
		return f.fail(errMalformed())
	}
	f.forwarded = true
	if err := f.send(b, 'P'); err != nil {
		return err
	}
	state, err := f.settle()
	if err == nil && state == settledIdle {
		f.ext.stmts[name] = p
		f.watchTags()
	}
	return err
}

// watchTags has the server's side look at the tags of commands, since the session has names that they may take away.
func (f *frontend) watchTags() {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watchTags = true
}

// drops counts the commands that may have dropped names.
func (f *frontend) drops() uint64 {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.drops
}

// owner says whose a name of ours is, as the server has it.
type owner uint8

const (
	ownerUs     owner = iota
	ownerServer       // the name was dropped and given to a statement of the server's
	ownerNobody       // the server refuses the name, and the client has its error
)

// known asks the server whose the name of a statement of ours is, where that is in doubt.
func (f *frontend) known(name string, p *prepared) (owner, error) {
	if name == "" || p.drops == f.drops() {
		return ownerUs, nil
	}
	if p.remote != nil {
		return f.knownRemote(name, p)
	}
	b := append([]byte{'D', 0, 0, 0, 0, 'S'}, name...)
	b = finishMessage(append(b, 0), 0)
	f.forwarded = true
	failed := f.transaction().status == 'E'
	if err := f.send(b, 'D'|quietAnswer); err != nil {
		return ownerNobody, err
	}
	state, err := f.settle()
	if err != nil {
		return ownerNobody, err
	}
	if state != settledIdle {
		// In a failed transaction the server refuses to describe what it has, too: the doubt stays.
		if !failed {
			delete(f.ext.stmts, name)
		}
		return ownerNobody, nil
	}
	if !f.sawStandIn() {
		delete(f.ext.stmts, name)
		return ownerServer, nil
	}
	p.drops = f.drops()
	return ownerUs, nil
}

// sawStandIn says whether the last hidden description was a stand-in's.
func (f *frontend) sawStandIn() bool {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.standIn
}

// knownRemote is known for a rewritten statement: the server lists the texts that it has.
func (f *frontend) knownRemote(name string, p *prepared) (owner, error) {
	if f.transaction().status == 'E' {
		return ownerUs, nil // nothing can be asked now, and nothing can run
	}
	drops := f.drops()
	texts, err := f.question("SELECT statement FROM pg_catalog.pg_prepared_statements WHERE name = " + sqlrewrite.Quote(&name))
	if err != nil {
		return ownerNobody, err
	}
	if len(texts) == 1 {
		if text, e := f.settings.toUTF8(texts[0]); e == nil && string(text) == p.remote.sql() {
			p.drops = drops
			return ownerUs, nil
		}
	}
	delete(f.ext.stmts, name)
	return ownerServer, nil
}
