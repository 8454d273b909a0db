package proxy

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

func itoa(n int) string { return strconv.Itoa(n) }

func mentionsCall(text []byte) bool { return sqlrewrite.Mentions(text) }

// mayCall is the gate in front of the parser.
func (f *frontend) mayCall(text []byte) bool {
	return !f.noSQL && (mentionsCall(text) || f.mayExecute(text))
}

// extended is the state of the extended protocol that is ours: prepared statements and portals of local statements, and what
// is to be known of rewritten ones. Names are the server's: whatever has one, the server has as well, so that it keeps the
// one name space, which is also that of PREPARE, EXECUTE, DEALLOCATE, DECLARE, FETCH and CLOSE. Only the unnamed statement
// and the unnamed portal can be the proxy's alone.
type extended struct {
	stmts   map[string]*prepared
	portals map[string]*portal
	spare   *portal // the last unnamed one, for its memory
	// pending are statements with a name that the server has not yet confirmed. They are in stmts already.
	pending []*prepared
	lost    bool // one of them is not, since the server has refused it; see settlePending
	// queued is the portal of a rewritten statement whose Bind is queued, and has not gone out.
	queued *portal
	// answered: a message since the last Sync was answered here.
	answered bool
	// A statement of ours took the place of the unnamed statement or portal, and the server may still have one.
	staleStmt, stalePortal bool
}

// prepared is a prepared statement with calls.
type prepared struct {
	st    *statement // if it is a local one
	text  string     // and then its text
	types []uint32   // of its parameters
	// remote is what the server has. Of a local statement it is run under the names of portals and by EXECUTE; one without a
	// name has none until it is needed.
	remote    *remote
	alone     bool   // the server cannot run it, so that portals with a name are ours as well
	drops     uint64 // owed.drops when the server was last known to have the name
	confirmed bool   // the server has said that it has it
	name      string // while it is pending
	lost      bool   // the server has refused it
}

// local says whether the proxy runs the statement for a portal of this name.
func (p *prepared) local(portal string) bool { return p.st != nil && (portal == "" || p.alone) }

// nameLimit is how many bytes of a name the server looks at.
const nameLimit = 63

// nameOf is a name as the server has it.
func nameOf(raw []byte) string { return string(cutName(raw)) }

// cutName is nameOf for where no string is needed.
func cutName(raw []byte) []byte { return raw[:min(len(raw), nameLimit)] }

// stmt finds a statement by a name as a message has it.
func (x *extended) stmt(raw []byte) *prepared { return x.stmts[string(cutName(raw))] }

// portal finds a portal by a name as a message has it.
func (x *extended) portal(raw []byte) *portal { return x.portals[string(cutName(raw))] }

// portal is a bound statement of ours, or one of a rewritten statement, which the server has.
type portal struct {
	cursor
	remote *remote
	tx     transaction // in which it was made
}

// live says whether messages of the extended protocol may be ours.
func (x *extended) live() bool {
	return x != nil && (x.answered || len(x.stmts) > 0 || len(x.portals) > 0 || x.staleStmt || x.stalePortal)
}

// named says whether there are statements or portals of ours with a name.
func (x *extended) named() bool {
	if x == nil {
		return false
	}
	unnamed := 0
	if x.stmts[""] != nil {
		unnamed++
	}
	if x.portals[""] != nil {
		unnamed++
	}
	return len(x.stmts)+len(x.portals) > unnamed
}

func (x *extended) clear() {
	if x == nil {
		return
	}
	for name := range x.portals {
		x.dropPortal(name)
	}
}

func (x *extended) dropPortal(name string) {
	if p := x.portals[name]; p != nil {
		p.close()
		delete(x.portals, name)
		if name == "" {
			x.spare = p
		}
		if p == x.queued {
			x.queued = nil
		}
	}
}

// dropUnnamed does what a simple query does to the unnamed statement and portal.
func (x *extended) dropUnnamed() {
	x.dropPortal("")
	delete(x.stmts, "")
}

// begin makes ready for an answer of our own in the extended protocol.
func (f *frontend) begin() {
	f.extended().answered = true
}

// extended is the session's state of the extended protocol, made when it is first needed.
func (f *frontend) extended() *extended {
	if f.ext == nil {
		f.ext = &extended{stmts: map[string]*prepared{}, portals: map[string]*portal{}}
	}
	return f.ext
}

// fail answers with an error and discards what follows up to Sync. If the server has a transaction open, it fails.
func (f *frontend) fail(e *pgError) error {
	if f.transaction().status == 'T' || f.openAtServer() {
		f.forwarded = true
		if err := f.ask(failMessage, 'E'|quiet); err != nil {
			return err
		}
	}
	f.skipping = true
	f.buffer()
	f.out = e.append(f.out, "ERROR")
	return nil
}

// extendedMessage deals with the other messages of the extended protocol in a session that has statements of ours.
func (f *frontend) extendedMessage(typ byte, msg []byte) (ours bool, err error) {
	body := msg[headerSize:]
	f.extended()
	if typ == 'S' {
		return f.sync()
	}
	if typ == 'H' {
		if err := f.forwardBefore(); err != nil {
			return true, err
		}
		return !f.forwarded, f.flushOut()
	}
	if name, p, o := f.remoteTarget(typ, body); p != nil || o != nil {
		return f.remoteMessage(typ, msg, name, p, o)
	}
	ours = f.isOurs(typ, body)
	_, replaces := f.replaces(typ, body)
	if !ours && !replaces && !f.ext.staleStmt && !f.ext.stalePortal {
		return false, nil
	}
	f.ext.lost = false
	state, err := f.settle()
	if err != nil || state == settledSkipping {
		return true, err
	}
	if state == settledCopying {
		return false, nil
	}
	if f.ext.lost {
		ours = f.isOurs(typ, body)
	}
	if !ours {
		return false, f.messageOfServer(typ, body)
	}
	f.begin()
	switch typ {
	case 'B':
		return f.bind(body)
	case 'D':
		return f.describe(body)
	case 'E':
		return true, f.execute(body)
	}
	return f.closeMessage(body)
}

// isOurs says whether a message names one of our statements or portals. What is not well formed is none of ours: the
// server may judge.
func (f *frontend) isOurs(typ byte, body []byte) bool {
	switch typ {
	case 'B':
		if _, rest, ok := bytes.Cut(body, []byte{0}); ok {
			name, _, ok := bytes.Cut(rest, []byte{0})
			return ok && f.ext.stmt(name) != nil
		}
	case 'D', 'C':
		kind, name, ok := target(body)
		if kind == 'S' {
			return ok && f.ext.stmt(name) != nil
		}
		return ok && f.ext.portal(name) != nil
	case 'E':
		name, rest, ok := bytes.Cut(body, []byte{0})
		return ok && len(rest) == 4 && f.ext.portal(name) != nil
	}
	return false
}

// target takes the body of a Describe or Close apart: S or P, and a name.
func target(body []byte) (kind byte, name []byte, ok bool) {
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' || bytes.IndexByte(body[1:], 0) != len(body)-2 {
		return 0, nil, false
	}
	return body[0], body[1 : len(body)-1], true
}

// sync ends a pipeline. If the server was sent nothing of it, the answer is ours.
func (f *frontend) sync() (ours bool, err error) {
	f.ext.answered = false
	if f.forwarded {
		f.skipping = false
		return false, nil
	}
	state, err := f.settle()
	if err != nil {
		return true, err
	}
	f.skipping = false
	if state != settledIdle || f.openAtServer() {
		return false, nil
	}
	status := f.transaction().status
	if status == 'I' {
		f.ext.clear()
	}
	f.buffer()
	f.out = appendReady(f.out, status)
	return true, f.flushOut()
}

// bind makes a portal of a local statement: the unnamed one, since the server has all others.
func (f *frontend) bind(body []byte) (bool, error) {
	m := &f.bound
	if !m.decode(body) {
		return true, f.fail(errMalformed())
	}
	name := nameOf(m.statement)
	p := f.ext.stmts[name]
	if who, err := f.known(name, p); err != nil {
		return true, f.failWith(err)
	} else if who != ownerUs {
		return false, nil
	}
	portal := nameOf(m.portal)
	if portal != "" {
		if err := f.giveToServer(name, p); err != nil {
			return true, err
		}
	}
	if !p.local(portal) {
		return f.bindRemote(body, p.remote)
	}
	tx := f.transaction()
	if tx.status == 'E' {
		return true, f.fail(errFailedTransaction)
	}
	if e := f.convertParameters(p, m); e != nil {
		return true, f.fail(e)
	}
	if n := len(m.resultFormats); n > 1 && n != len(p.st.Columns) {
		return true, f.fail(&pgError{code: codeProtocolViolation, message: "bind message has " + itoa(n) +
			" result formats but query has " + itoa(len(p.st.Columns)) + " columns"})
	}
	if e := f.ext.makePortal(portal, p, m, tx); e != nil {
		return true, f.fail(e)
	}
	if portal == "" {
		f.ext.stalePortal = f.serverUnnamed
	}
	f.buffer()
	f.out = append(f.out, '2', 0, 0, 0, 4)
	return true, nil
}

// describe answers Describe for a statement or a portal of ours.
func (f *frontend) describe(body []byte) (bool, error) {
	kind, raw, _ := target(body)
	name := nameOf(raw)
	f.buffer()
	if kind == 'P' {
		p, e := f.portal(name)
		if e != nil {
			return true, f.fail(e)
		}
		f.out = p.st.appendRowDesc(f.out, p.formats)
		return true, nil
	}
	p := f.ext.stmts[name]
	if who, err := f.known(name, p); err != nil {
		return true, f.failWith(err)
	} else if who != ownerUs {
		return false, nil
	}
	if f.transaction().status == 'E' {
		return true, f.fail(errFailedTransaction)
	}
	f.buffer()
	at := len(f.out)
	f.out = append(f.out, 't', 0, 0, 0, 0)
	f.out = binary.BigEndian.AppendUint16(f.out, uint16(len(p.types)))
	for _, oid := range p.types {
		f.out = binary.BigEndian.AppendUint32(f.out, oid)
	}
	f.out = finishMessage(f.out, at)
	f.out = append(f.out, p.st.rowDesc...)
	return true, nil
}

// execute runs a portal of ours.
func (f *frontend) execute(body []byte) error {
	raw, rest, _ := bytes.Cut(body, []byte{0})
	limit := int(int32(binary.BigEndian.Uint32(rest)))
	if limit < 0 {
		limit = 0
	}
	p, e := f.portal(nameOf(raw))
	if e != nil {
		return f.fail(e)
	}
	// Like the server, which looks at the result formats no earlier.
	if e := checkFormats(p.formats); e != nil {
		return f.fail(e)
	}
	f.buffer()
	rows, suspended, err := f.run(&p.cursor, limit)
	if err != nil {
		e, fatal := asPgError(err)
		if fatal != nil {
			return fatal
		}
		return f.fail(e)
	}
	f.buffer()
	if suspended {
		f.out = append(f.out, 's', 0, 0, 0, 4)
	} else {
		f.out = p.st.appendComplete(f.out, rows)
	}
	return f.flushLong()
}

// closeMessage closes a statement or portal of ours. What the server has as well, it closes, and answers.
func (f *frontend) closeMessage(body []byte) (ours bool, err error) {
	kind, raw, _ := target(body)
	name := nameOf(raw)
	if kind == 'P' {
		o := f.ext.portals[name]
		f.ext.dropPortal(name)
		if o != nil && o.remote != nil {
			return false, nil
		}
	} else {
		p := f.ext.stmts[name]
		delete(f.ext.stmts, name)
		if name != "" || p != nil && p.remote != nil {
			return false, nil
		}
	}
	f.buffer()
	f.out = append(f.out, '3', 0, 0, 0, 4)
	return true, nil
}
