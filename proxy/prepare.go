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
	if ok && f.fetchesHarvest(text) {
		f.begin()
		return true, f.fail(errFetchHarvest)
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
			f.ext.unnamedOfServer()
		}
		if ok && f.ext.stmts[nameOf(name)] != nil {
			return true, f.replaceNamed(nameOf(name), msg)
		}
	}
	return false, nil
}

// replaceNamed forwards a Parse under the name of a statement of ours. It succeeds where DEALLOCATE or DISCARD took that
// away, and then the name is another's.
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
		t, err := f.executed(prog, t)
		if err != nil {
			return f.failWith(err)
		}
		if t.refusal != nil {
			return f.fail(t.refusal)
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
	p := &prepared{st: st, text: prog.text, types: types, drops: f.drops()}
	if name != "" {
		return f.prepareNamed(name, prog, p)
	}
	f.ext.stmts[""] = p
	f.buffer()
	f.out = append(f.out, '1', 0, 0, 0, 4)
	return nil
}

// prepareNamed has the server prepare what it is to run in place of a local statement. Its ParseComplete, or its error, is
// the client's answer.
func (f *frontend) prepareNamed(name string, prog *program, p *prepared) error {
	p.remote = f.onServer(prog.text, p)
	if err := f.sendParse(name, p, 0); err != nil {
		return err
	}
	return f.nameStatement(name, p)
}

// nameStatement remembers a statement with a name whose Parse is queued. It is ours only once the server has confirmed it, but
// nobody waits for that before the name is used: most clients send nothing but a Sync behind a Parse, and then wait themselves.
func (f *frontend) nameStatement(name string, p *prepared) error {
	name = nameOf([]byte(name))
	if f.ext.stmts[name] == nil && !p.remote.harvests() {
		p.name = name
		f.ext.stmts[name] = p
		f.ext.pending = append(f.ext.pending, p)
		f.watchTags()
		return nil
	}
	state, err := f.settle()
	if err == nil && state == settledIdle && p.confirmed {
		f.ext.stmts[name] = p
		f.watchTags()
	}
	return err
}

// settlePending lets go of the pending statements that the server has refused. It owes nothing, so that it has confirmed all
// others. The caller holds owed.mu.
func (x *extended) settlePending() {
	if x == nil || x.pending == nil {
		return
	}
	for _, p := range x.pending {
		if p.confirmed {
			continue
		}
		p.lost, x.lost = true, true
		if x.stmts[p.name] == p {
			delete(x.stmts, p.name)
		}
	}
	x.pending = nil
}

// standIn is what the server has of a local statement that it cannot run. EXECUTE in SQL reaches it, and fails with a message
// that says why.
const standIn = "SELECT ('this statement calls raftable() in a way that only Bind and Execute can run, EXECUTE cannot' || '')::int"

// onServer makes what the server is to run in place of a local statement.
func (f *frontend) onServer(text string, p *prepared) *remote {
	ours := func(sql string) *remote {
		p.alone = true
		rw := &sqlrewrite.Rewrite{Pieces: []sqlrewrite.Piece{{Kind: sqlrewrite.PieceText, Text: sql, Call: -1}}}
		return newRemote(text, &part{rewrite: rw, params: len(p.types)}, p.types)
	}
	switch c := p.st.command; {
	case c == nil:
	case c.Op == sqlrewrite.CommandShow:
		return ours(f.s.srv.showQuery(c.Setting)) // SHOW would be an error where the setting has not been set
	default:
		return ours(text)
	}
	o := f.readOptions()
	o.OnServer = true
	plan := sqlrewrite.Parse(text, o)
	if len(plan.Statements) != 1 || plan.Statements[0].Rewrite == nil {
		return ours(standIn)
	}
	st := &plan.Statements[0]
	return newRemote(text, &part{rewrite: st.Rewrite, params: len(p.types), fills: st.Fills}, p.types)
}

// giveToServer has the server prepare an unnamed local statement, so that a portal with a name can be made of it.
func (f *frontend) giveToServer(name string, p *prepared) error {
	if p.remote != nil {
		return nil
	}
	p.remote = f.onServer(p.text, p)
	f.ext.staleStmt = false
	return f.sendParse(name, p, quietAnswer)
}

// sendParse queues the Parse of what the server has of a statement, and if rows of it are harvested, a question for its
// columns: they must be known before there are rows. hidden says which answers to the Parse the client must not see.
func (f *frontend) sendParse(name string, p *prepared, hidden entry) error {
	msg, e := p.remote.parseMessage(name, &f.settings)
	if e != nil {
		return f.fail(e)
	}
	reply := p.remote.reply(nil)
	reply.prepared = p
	f.queue(msg, 'P'|hidden|replied, reply)
	if p.remote.harvests() {
		f.queue(describeMessage('S', name), 'D'|quietAnswer|replied, p.remote.reply(nil))
	}
	return nil
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
	ownerServer       // the name was dropped, and perhaps given to another statement
)

// known asks the server whose the name of a statement of ours is, where that is in doubt: it lists the texts that it has.
func (f *frontend) known(name string, p *prepared) (owner, error) {
	if name == "" || p.drops == f.drops() {
		return ownerUs, nil
	}
	if f.transaction().status == 'E' {
		return ownerUs, nil // nothing can be asked now, and nothing can run
	}
	drops := f.drops()
	texts, err := f.question("SELECT statement FROM pg_catalog.pg_prepared_statements WHERE name = " + sqlrewrite.Quote(&name))
	if err != nil {
		return ownerUs, err
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
