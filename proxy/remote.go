package proxy

import (
	"bytes"
	"encoding/binary"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// remote is a prepared statement of which postgres has another text than the client's: values from the table are its last
// parameters, and are given anew in every Bind.
type remote struct {
	rw     *sqlrewrite.Rewrite
	text   string   // the client's
	params int      // how many parameters the client has
	first  int      // the number of the first value
	types  []uint32 // of the client's parameters, as far as it has declared them
	// prepares: it is a PREPARE, so that parameters and values are those of the statement that it makes.
	prepares  bool
	arguments int  // how many of an EXECUTE's arguments are not the client's
	fills     bool // the server runs it to its end before it answers
	shape     *shape
	// literals are the values in the text that postgres has, if they cannot be parameters.
	literals []*string
	// plain is the reply to all messages of a statement whose columns stay as they are and that has no values in its text.
	plain *reply
}

// newRemote makes a remote statement of a part for a client that has declared the types of some parameters.
func newRemote(text string, t *part, declared []uint32) *remote {
	r := &remote{rw: t.rewrite.For(declared), text: text, params: max(t.params, len(declared)), types: declared, arguments: t.arguments, fills: t.fills}
	r.first = r.params + 1
	if r.prepares = r.rw.Prepares != ""; r.prepares {
		r.params, r.first = len(declared), t.params+1
	}
	if len(r.rw.Harvest) > 0 {
		r.shape = &shape{rw: r.rw}
	} else if !r.rw.Literals {
		r.plain = r.reply(nil)
	}
	return r
}

func (r *remote) harvests() bool { return r.shape != nil && r.shape.harvests() }

// bound says whether values are given in Bind.
func (r *remote) bound() bool { return !r.rw.Literals && !r.prepares }

func (r *remote) sent() *sentText {
	return &sentText{rw: r.rw, text: r.text, first: r.first, literals: r.literals, arguments: r.arguments}
}

// rememberPrepared remembers the statement that a PREPARE has made.
func (f *frontend) rememberPrepared(r *remote) {
	made := *r
	made.prepares, made.types = false, nil
	made.params, made.plain = r.first-1, nil
	f.extended().stmts[r.rw.Prepares] = &prepared{remote: &made, drops: f.drops()}
	f.watchTags()
}

// sql is the text that postgres gets.
func (r *remote) sql() string {
	if r.rw.Literals {
		return r.rw.Literal(r.text, r.literals)
	}
	return r.rw.Text(r.text, r.first)
}

// parseMessage is the Parse message for the statement under a name.
func (r *remote) parseMessage(name string, g *settings) ([]byte, *pgError) {
	sql, e := g.fromUTF8([]byte(r.sql()))
	if e != nil {
		return nil, e
	}
	b := append([]byte{'P', 0, 0, 0, 0}, name...)
	b = append(append(append(b, 0), sql...), 0)
	types := r.types
	if r.bound() && len(r.rw.Values) > 0 {
		types = append(append([]uint32{}, types...), make([]uint32, r.params-len(types))...)
		for i := range r.rw.Values {
			types = append(types, valueType(r.rw.Values[i].Kind))
		}
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(types)))
	for _, oid := range types {
		b = binary.BigEndian.AppendUint32(b, oid)
	}
	return finishMessage(b, 0), nil
}

// reply is what becomes of the answers to a message about the statement.
func (r *remote) reply(formats []int16) *reply {
	return &reply{sent: r.sent(), shape: r.shape, formats: formats, params: r.params, fills: r.fills}
}

// about is the reply to a message about a portal, or one that makes it.
func (r *remote) about(formats []int16) *reply {
	if r.plain != nil {
		return r.plain
	}
	return r.reply(formats)
}

// maxValues bounds the parameters of a statement: the protocol counts them in 16 bits.
const maxValues = 65535

// prepareRemote has postgres prepare a rewritten statement. The server owes nothing.
func (f *frontend) prepareRemote(name string, text string, t *part, declared []uint32) error {
	r := newRemote(text, t, declared)
	if r.params+len(r.rw.Values) > maxValues {
		return f.fail(&pgError{code: "54000", message: "too many calls of raftable() and parameters in one statement"})
	}
	if conflict := r.rw.Conflict(declared); conflict != nil {
		return f.fail(refusal(conflict))
	}
	p := &prepared{remote: r, drops: f.drops()}
	if r.rw.Literals {
		if err := f.renewLiterals(r); err != nil {
			return f.failWith(err)
		}
	}
	if err := f.sendParse(name, p, 0); err != nil {
		return err
	}
	if name == "" {
		f.ext.staleStmt = false
		f.ext.stmts[""] = p
		return nil
	}
	return f.nameStatement(name, p)
}

func describeMessage(kind byte, name string) []byte {
	b := append([]byte{'D', 0, 0, 0, 0, kind}, name...)
	return finishMessage(append(b, 0), 0)
}

func closeOf(kind byte, name string) []byte {
	b := append([]byte{'C', 0, 0, 0, 0, kind}, name...)
	return finishMessage(append(b, 0), 0)
}

// renewLiterals reads the values that stand in a statement's text.
func (f *frontend) renewLiterals(r *remote) error {
	if err := f.ready(); err != nil {
		return err
	}
	values, err := f.evaluate(r.rw.Values, nil, nil)
	if err != nil {
		return err
	}
	for i, v := range values {
		// They become part of a text in UTF-8.
		utf, e := f.settings.toUTF8(v)
		if e != nil {
			return e
		}
		values[i] = utf
	}
	r.literals = literalsOf(values)
	return nil
}

// failWith answers with an error that is one for the client, and gives back any other.
func (f *frontend) failWith(err error) error {
	e, fatal := asPgError(err)
	if fatal != nil {
		return fatal
	}
	return f.fail(e)
}

// remoteTarget finds the rewritten statement that a message is about. name is as the message has it.
func (f *frontend) remoteTarget(typ byte, body []byte) (name []byte, p *prepared, o *portal) {
	switch typ {
	case 'B':
		if _, rest, ok := bytes.Cut(body, []byte{0}); ok {
			if raw, _, ok := bytes.Cut(rest, []byte{0}); ok {
				name, p = raw, f.ext.stmt(raw)
			}
		}
	case 'D':
		if kind, raw, ok := target(body); ok && kind == 'S' {
			name, p = raw, f.ext.stmt(raw)
		} else if ok {
			name, o = raw, f.ext.portal(raw)
		}
	case 'E':
		if raw, rest, ok := bytes.Cut(body, []byte{0}); ok && len(rest) == 4 {
			name, o = raw, f.ext.portal(raw)
		}
	}
	if p != nil && p.st != nil {
		p = nil
	}
	if o != nil && o.remote == nil {
		o = nil
	}
	return name, p, o
}

// remoteMessage deals with a message about a rewritten statement.
func (f *frontend) remoteMessage(typ byte, msg, name []byte, p *prepared, o *portal) (ours bool, err error) {
	if o != nil && o == f.ext.queued && o.remote.plain != nil && !o.remote.prepares {
		f.queue(msg, entry(typ)|replied, o.remote.plain) // nothing can have happened since it was bound
		return true, nil
	}
	// Only a named statement may have been dropped behind our back, and only rows that are harvested have an effect that
	// what follows must see. Otherwise the message can go along with those in front of it.
	if !f.onlyReplied() || p != nil && len(name) > 0 && p.drops != f.seenDrops || o != nil && typ == 'E' && o.remote.harvests() {
		state, err := f.settle()
		if err != nil || state == settledSkipping {
			return true, err
		}
		if state == settledCopying {
			return false, nil
		}
	}
	if p != nil && p.lost {
		return false, nil
	}
	if o != nil && !f.alive(o) {
		f.ext.dropPortal(nameOf(name))
		return false, nil // the server has lost it, too
	}
	if p != nil && len(name) > 0 && p.drops != f.seenDrops {
		if who, err := f.known(nameOf(name), p); err != nil {
			return true, f.failWith(err)
		} else if who != ownerUs {
			return false, nil
		}
	}
	switch typ {
	case 'B':
		return f.bindRemote(msg[headerSize:], p.remote)
	case 'D':
		var r *reply
		if p != nil {
			r = p.remote.reply(nil)
			r.prepared = p
		} else {
			r = o.remote.about(o.formats)
		}
		f.queue(msg, 'D'|replied, r)
		return true, nil
	}
	if o.remote.harvests() {
		if err := f.refreshSettings(); err != nil {
			return true, f.failWith(err)
		}
	}
	if o.remote.harvests() && !o.remote.prepares {
		f.s.beginHarvest()
	}
	f.queue(msg, 'E'|replied, o.remote.about(o.formats))
	switch {
	case o.remote.prepares:
		state, err := f.settle()
		if err == nil && state == settledIdle {
			f.rememberPrepared(o.remote)
		}
		return true, err
	case o.remote.harvests():
		return true, f.awaitHarvest()
	}
	return true, nil
}

// onlyReplied says whether nothing is owed and nothing stands in front but messages about rewritten statements, so that
// what is known of the session is up to date.
func (f *frontend) onlyReplied() bool {
	if len(f.unsettled) > 0 && f.ext.pending != nil {
		return false
	}
	for _, e := range f.unsettled {
		if e&replied == 0 {
			return false
		}
	}
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.empty() || o.delivering || !o.started || o.skipping || o.copyIn || o.closed {
		return false
	}
	f.upToDate()
	return true
}

// awaitHarvest waits until the rows of a harvested statement have been run, and fails if one has.
func (f *frontend) awaitHarvest() error {
	state, err := f.settle()
	e, err := f.harvestEnded(err)
	if err != nil {
		return err
	}
	switch {
	case e == nil:
		return nil
	case state == settledSkipping: // the server has failed on its own, and waits for Sync
		f.skipping = true
		f.buffer()
		f.out = e.append(f.out, "ERROR")
		return f.flushOut()
	}
	return f.fail(e)
}

func (f *frontend) takeHarvestError() *pgError {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.harvestError
	o.harvestError = nil
	return e
}

// bindRemote makes a portal of a rewritten statement, with the values of now.
func (f *frontend) bindRemote(body []byte, r *remote) (bool, error) {
	m := &f.bound
	if !m.decode(body) {
		return true, f.failSettled(errMalformed())
	}
	if e := m.fits(r.params); e != nil {
		return true, f.failSettled(e)
	}
	name := nameOf(m.portal)
	values, err := f.valuesFor(r, m)
	if err != nil {
		e, fatal := asPgError(err)
		if fatal != nil {
			return true, fatal
		}
		return true, f.failSettled(e)
	}
	f.queueBind(m.portal, m.statement, m, values, 'B'|replied, r.about(nil))
	if len(f.queued) >= bufferSize {
		if err := f.forward(nil); err != nil {
			return true, err
		}
	}
	o := f.ext.newPortal(name, nil)
	o.remote, o.tx, o.formats = r, f.seen, m.resultFormats
	f.ext.portals[name] = o
	if len(f.queued) > 0 {
		f.ext.queued = o
	}
	if name == "" {
		f.ext.stalePortal = false
	} else {
		f.watchTags()
	}
	return true, nil
}

// failSettled is fail for where messages may stand in front that the server has not answered.
func (f *frontend) failSettled(e *pgError) error {
	state, err := f.settle()
	if err != nil || state == settledSkipping {
		return err
	}
	return f.fail(e)
}

// valuesFor gives the values that a Bind must have beyond the client's. Where they stand in the text of the statement, the
// server is given the statement anew.
func (f *frontend) valuesFor(r *remote, m *bindMessage) ([][]byte, error) {
	if r.prepares || len(r.rw.Values) == 0 {
		return nil, nil
	}
	if !r.rw.Literals {
		if err := f.ready(); err != nil {
			return nil, err
		}
		return f.evaluate(r.rw.Values, m.values, r.types)
	}
	return nil, f.reparse(r, string(m.statement))
}

// reparse gives the server a statement anew that has values in its text, if they have changed.
func (f *frontend) reparse(r *remote, statement string) error {
	state, err := f.settle()
	switch {
	case err != nil || state != settledIdle:
		return err
	case f.transaction().status == 'E':
		return errFailedTransaction
	}
	old := r.literals
	if err := f.renewLiterals(r); err != nil {
		r.literals = old
		return err
	}
	if sameLiterals(old, r.literals) {
		return nil
	}
	msg, e := r.parseMessage(statement, &f.settings)
	if e != nil {
		r.literals = old
		return e
	}
	again := prepared{}
	reply := r.reply(nil)
	reply.prepared = &again
	f.queue(closeOf('S', statement), 'C'|quiet, nil)
	f.queue(msg, 'P'|quietAnswer|replied, reply)
	if _, err := f.settle(); err != nil {
		return err
	}
	if !again.confirmed {
		delete(f.ext.stmts, nameOf([]byte(statement))) // the server has lost it, and the client the transaction
	}
	return nil
}

func sameLiterals(a, b []*string) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) || a[i] != nil && *a[i] != *b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

// fits checks the numbers in a Bind for a statement with so many parameters.
func (m *bindMessage) fits(params int) *pgError {
	if n := len(m.formats); n > 1 && n != len(m.values) {
		return &pgError{code: codeProtocolViolation, message: "bind message has " + itoa(n) +
			" parameter formats but " + itoa(len(m.values)) + " parameters"}
	}
	if len(m.values) != params {
		return &pgError{code: codeProtocolViolation, message: "bind message supplies " + itoa(len(m.values)) +
			` parameters, but prepared statement "` + string(m.statement) + `" requires ` + itoa(params)}
	}
	return nil
}
