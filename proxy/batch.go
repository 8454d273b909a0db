package proxy

import (
	"slices"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// batch runs a simple query of which at least one statement needs the server. The server gets the statements one by one
// in the extended protocol, without a Sync between them, so that they are one implicit transaction as in a simple query,
// and calls run between them in their turn.
type batch struct {
	f    *frontend
	prog *program
	// block: a transaction block of ours stands for the implicit one, since one of the statements runs in a block only.
	block bool
	// inBlock: a block of the client's is open.
	inBlock bool
	// localLast: the last statement was answered here, with so many rows.
	localLast bool
	rows      int
}

// runBatch answers a simple query. The server owes nothing.
func (f *frontend) runBatch(prog *program) error {
	b := &batch{f: f, prog: prog, inBlock: f.transaction().status != 'I'}
	f.staleUnnamed()
	if len(prog.parts) == 1 {
		if done, err := b.runWhole(&prog.parts[0]); done || err != nil {
			return err
		}
	}
	sent := false
	if len(prog.parts) > 1 && b.has(sqlrewrite.ControlAlone) {
		// The server takes the first statement for one that stands alone.
		b.statement("SELECT", quiet)
		sent = true
	}
	for i := range prog.parts {
		if !sent && i > 0 && b.copiesFrom(i) {
			// Data can be copied in behind a simple query only. Nothing holds the rest together with what was before.
			rw := sqlrewrite.Whole(prog.parts[i].start, len(prog.text))
			m := newRemote(prog.text, &part{rewrite: rw}, nil)
			msg, r, err := b.queryMessage(m, m.sql())
			if err != nil {
				return f.finishFailed(err)
			}
			f.queue(msg, 'Q'|replied, r)
			return nil
		}
		sent = sent || prog.parts[i].local == nil && prog.parts[i].refusal == nil
		if done, err := b.part(&prog.parts[i], i == len(prog.parts)-1); done || err != nil {
			return err
		}
	}
	return b.end()
}

// runWhole runs the only statement of a query as a simple query with values in its text, if it can be one.
func (b *batch) runWhole(t *part) (done bool, err error) {
	f := b.f
	if t, err = f.executed(b.prog, t); err != nil {
		return true, b.failWith(err)
	}
	if t.refusal != nil {
		return false, nil // part says so
	}
	msg, r, err := b.whole(t)
	switch {
	case err != nil:
		return true, f.finishFailed(err)
	case msg == nil:
		return false, nil
	}
	f.queue(msg, 'Q'|replied, r)
	return true, nil
}

// whole is the message for a statement that the server gets as a simple query with values in its text.
func (b *batch) whole(t *part) (msg []byte, r *reply, err error) {
	if t.rewrite == nil || t.local != nil || !t.rewrite.Literals && t.params == 0 || len(t.rewrite.Harvest) > 0 {
		return nil, nil, nil
	}
	m := newRemote(b.prog.text, t, nil)
	if t.params > 0 && t.rewrite.Prepares == "" {
		// The server will say that there are no parameters in a simple query, whatever the values.
		m.literals = make([]*string, len(t.rewrite.Values))
		return b.queryMessage(m, t.rewrite.Literal(b.prog.text, m.literals))
	}
	if !t.rewrite.Literals {
		return nil, nil, nil
	}
	if err := b.f.renewLiterals(m); err != nil {
		return nil, nil, err
	}
	return b.queryMessage(m, m.sql())
}

func (b *batch) queryMessage(m *remote, sql string) ([]byte, *reply, error) {
	text, e := b.f.settings.fromUTF8([]byte(sql))
	if e != nil {
		return nil, nil, e
	}
	return newMessage('Q', append(text, 0)), m.reply(nil), nil
}

// copiesFrom says whether all statements from number i on are the server's, and one of them copies data in.
func (b *batch) copiesFrom(i int) bool {
	copies := false
	for _, t := range b.prog.parts[i:] {
		if t.local != nil || t.rewrite != nil || t.refusal != nil {
			return false
		}
		copies = copies || t.control == sqlrewrite.ControlCopyIn
	}
	return copies
}

// has says whether one of the statements is of a kind.
func (b *batch) has(c sqlrewrite.Control) bool {
	return slices.ContainsFunc(b.prog.parts, func(t part) bool { return t.control == c })
}

// part runs one statement. done says that the query has been answered to its end.
func (b *batch) part(t *part, last bool) (done bool, err error) {
	f := b.f
	local := t.local
	if local != nil && local.command != nil && local.command.Op != sqlrewrite.CommandShow {
		offered, err := f.extensionOffered()
		if err != nil {
			return true, b.failWith(err)
		}
		if offered {
			local = nil
		}
	}
	if local == nil && t.refusal == nil {
		return b.remotePart(t, last)
	}
	if done, err := b.settle(); done || err != nil {
		return done, err
	}
	if f.transaction().status == 'E' {
		return true, b.fail(errFailedTransaction)
	}
	if t.refusal != nil {
		return true, b.fail(t.refusal)
	}
	if r := local.RefuseParams(); r != nil {
		return true, b.fail(refusal(r))
	}
	f.buffer()
	f.out = local.appendQueryDesc(f.out)
	f.simple.reset(local)
	rows, _, err := f.run(&f.simple, 0)
	if err != nil {
		return true, b.failWith(err)
	}
	if b.localLast, b.rows = last, rows; !last {
		f.buffer()
		f.out = local.appendComplete(f.out, rows)
	}
	return false, f.flushLong()
}

// settle waits for the server. done says that a statement of its own has failed there, and the query is over.
func (b *batch) settle() (done bool, err error) {
	state, err := b.f.settle()
	if err != nil {
		return true, err
	}
	if state == settledSkipping {
		return true, b.endFailed()
	}
	if err := b.askEncoding(); err != nil {
		return true, b.failWith(err)
	}
	return false, nil
}

// askEncoding asks for client_encoding where the query may have changed it: the server tells of such changes at the end of a
// query only.
func (b *batch) askEncoding() error {
	f := b.f
	if !b.prog.encodes || f.transaction().status == 'E' || !f.openAtServer() {
		return nil
	}
	rows, err := f.question("SELECT pg_catalog.current_setting('client_encoding')")
	if err == nil && len(rows) == 1 {
		o := &f.s.owed
		o.mu.Lock()
		f.s.back.settings.set([]byte("client_encoding"), rows[0])
		f.upToDate()
		o.mu.Unlock()
	}
	return err
}

// remotePart has the server run one statement.
func (b *batch) remotePart(t *part, last bool) (done bool, err error) {
	f := b.f
	if len(b.prog.executions) > 0 {
		if done, err := b.settle(); done || err != nil {
			return done, err
		}
		if t, err = f.executed(b.prog, t); err != nil {
			return true, b.failWith(err)
		}
		if t.refusal != nil {
			return true, b.fail(t.refusal)
		}
	}
	rw := t.rewrite
	if rw == nil {
		rw = sqlrewrite.Whole(t.start, t.end)
	}
	if t.firstParam > 0 {
		return true, b.withParameters(t, rw)
	}
	if t.control == sqlrewrite.ControlCopyIn {
		if done, err := b.settle(); done || err != nil {
			return done, err
		}
		return true, b.fail(errCopyInBatch)
	}
	q, values, bind, done, err := b.messagesFor(t, rw)
	if done || err != nil {
		return true, err
	}
	b.leaveBlock(t)
	b.openBlock(t)
	if b.block && t.control == sqlrewrite.ControlBegin {
		run := *q.run
		run.dropNotice, run.holdComplete = true, last
		q = &queryMessages{m: q.m, parse: q.parse, reply: q.reply, describe: q.describe, run: &run, last: &run}
	}
	f.queue(q.parse, 'P'|quietAnswer|replied, q.reply)
	f.queueBind(nil, nil, &bind, values, 'B'|quietAnswer|replied, q.reply)
	f.queue(describeUnnamed, 'D'|replied, q.describe)
	run := q.run
	if last {
		run = q.last
	}
	if q.m.harvests() && rw.Prepares == "" {
		f.s.beginHarvest()
	}
	f.queue(executeUnnamed, 'E'|replied, run)
	b.followBlock(t)
	if rw.Prepares != "" {
		return b.prepared(q.m)
	}
	if q.m.harvests() {
		return b.harvested()
	}
	return false, nil
}

// messagesFor makes what is sent for a part, and what its parameters are. done says that the batch has ended instead.
func (b *batch) messagesFor(t *part, rw *sqlrewrite.Rewrite) (q *queryMessages, values [][]byte, bind bindMessage, done bool, err error) {
	f := b.f
	q = t.query
	if q == nil || f.settings.foreignEncoding != "" || t.rewrite != rw {
		q = &queryMessages{m: newRemote(b.prog.text, &part{rewrite: rw, params: t.params, arguments: t.arguments, fills: t.fills}, nil)}
	}
	if values, done, err = b.valuesFor(q.m); done || err != nil {
		return nil, nil, bind, true, err
	}
	if bind.resultFormats, err = b.cursorFormats(t); err != nil {
		return nil, nil, bind, true, b.failWith(err)
	}
	if q.parse == nil {
		if e := q.make(&f.settings); e != nil {
			return nil, nil, bind, true, b.fail(e)
		}
	}
	return q, values, bind, false, nil
}

var (
	executeUnnamed  = executeMessage("")
	describeUnnamed = describeMessage('P', "")
)

// valuesFor gives the values for a statement, and brings the settings up to date that its calls depend on. done says that the
// query is over.
func (b *batch) valuesFor(m *remote) (values [][]byte, done bool, err error) {
	f := b.f
	if m.prepares || len(m.rw.Values) == 0 && !m.harvests() {
		return nil, false, nil
	}
	// What the values must show has been done, and if it has failed they are not needed.
	if done, err := b.settle(); done || err != nil {
		return nil, true, err
	}
	switch {
	case len(m.rw.Values) == 0:
		err = f.refreshSettings()
	case m.rw.Literals:
		err = f.renewLiterals(m)
	default:
		if err = f.ready(); err == nil {
			values, err = f.evaluate(m.rw.Values, nil, nil)
		}
	}
	if err != nil {
		return nil, true, b.failWith(err)
	}
	return values, false, nil
}

// harvested waits for the rows of a harvested statement.
func (b *batch) harvested() (done bool, err error) {
	state, err := b.f.settle()
	e, err := b.f.harvestEnded(err)
	if err != nil {
		return true, err
	}
	switch {
	case e != nil && state == settledSkipping:
		b.f.buffer()
		b.f.out = e.append(b.f.out, "ERROR")
		return true, b.endFailed()
	case e != nil:
		return true, b.fail(e)
	case state == settledSkipping:
		return true, b.endFailed()
	}
	return false, nil
}

// prepared remembers the name that a PREPARE has made, if it has.
func (b *batch) prepared(m *remote) (done bool, err error) {
	if done, err := b.settle(); done || err != nil {
		return done, err
	}
	b.f.rememberPrepared(m)
	return false, nil
}

// fail answers with an error of ours, and undoes what the server has open. An error of the server's that came before
// counts instead.
func (b *batch) fail(e *pgError) error {
	f := b.f
	if done, err := b.settle(); done || err != nil {
		return err
	}
	f.staleUnnamed()
	if err := f.failTransaction(); err != nil {
		return err
	}
	if b.block {
		if err := f.ask(rollbackMessages(), 'P'|quiet, 'B'|quiet, 'E'|quiet, 'S'|quiet); err != nil {
			return err
		}
	}
	f.buffer()
	f.out = e.append(f.out, "ERROR")
	return f.finishQuery()
}

// failWith is fail for an error of ours, or of a question to the server that the client did not see. It gives back any other.
func (b *batch) failWith(err error) error {
	e, fatal := asPgError(err)
	if fatal != nil {
		return fatal
	}
	o := &b.f.s.owed
	o.mu.Lock()
	skipping := o.skipping
	o.mu.Unlock()
	if !skipping {
		return b.fail(e)
	}
	b.f.buffer()
	b.f.out = e.append(b.f.out, "ERROR")
	return b.endFailed()
}

// end ends the query after its last statement, and with it the implicit transaction.
func (b *batch) end() error {
	f := b.f
	if b.block {
		if done, err := b.settle(); done || err != nil {
			return err
		}
		b.statement("COMMIT", quietAnswer)
	}
	if last := &b.prog.parts[len(b.prog.parts)-1]; b.localLast {
		if done, err := b.settle(); done || err != nil {
			return err
		}
		if f.openAtServer() {
			f.staleUnnamed()
		}
		if err := f.endImplicit(last.local, b.rows); err != nil {
			return err
		}
		return f.finishQuery()
	}
	f.endQuery()
	return nil
}

// endFailed ends the query after an error of the server's.
func (b *batch) endFailed() error {
	b.f.staleUnnamed()
	if b.block {
		if err := b.f.ask(syncMessage, 'S'|quiet); err != nil {
			return err
		}
		b.statement("ROLLBACK", quiet)
	}
	b.f.endQuery()
	return nil
}

// statement queues a statement of our own; hidden says which of the answers to its Execute the client must not see.
func (b *batch) statement(sql string, hidden entry) {
	b.f.queue(nil, 'P'|quiet, nil)
	b.f.queue(simpleStatement(sql), 'B'|quiet, nil)
	b.f.queue(executeUnnamed, 'E'|hidden, nil)
}

// staleUnnamed has the server forget the unnamed statement and portal, as it does behind a simple query: when they are asked for.
func (f *frontend) staleUnnamed() {
	if f.serverUnnamed {
		x := f.extended()
		x.staleStmt, x.stalePortal = true, true
	}
}

// endQuery queues a Sync, whose answer is the client's ReadyForQuery.
func (f *frontend) endQuery() {
	f.queue(syncMessage, 'S', nil)
	f.staleUnnamed()
}

// simpleStatement is Parse and Bind of an unnamed statement without parameters.
func simpleStatement(sql string) []byte {
	b := append([]byte{'P', 0, 0, 0, 0, 0}, sql...)
	b = finishMessage(append(b, 0, 0, 0), 0)
	return append(b, 'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0)
}

// finishFailed answers a simple query with an error.
func (f *frontend) finishFailed(err error) error {
	e, fatal := asPgError(err)
	if fatal != nil {
		return fatal
	}
	if err := f.failTransaction(); err != nil {
		return err
	}
	f.buffer()
	f.out = e.append(f.out, "ERROR")
	return f.finishQuery()
}

// finishQuery ends the answer to a simple query with ReadyForQuery.
func (f *frontend) finishQuery() error {
	tx := f.transaction()
	if tx.status == 'I' {
		f.ext.clear()
	}
	f.buffer()
	f.out = appendReady(f.out, tx.status)
	return f.flushOut()
}

var errCopyInBatch = &pgError{
	code:    codeFeatureNotSupported,
	message: "COPY FROM STDIN cannot stand in one query string with calls of raftable()",
	detail:  "It was not executed.",
	hint:    "Send the statements one by one.",
}
