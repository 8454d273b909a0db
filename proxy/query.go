package proxy

import "bytes"

// lastPlan remembers the last text of a session, so that a client that repeats itself does not meet the cache's lock.
type lastPlan struct {
	cache *planCache
	prog  *program
}

// program finds what to do with a text. text is not kept.
func (f *frontend) program(text []byte) *program {
	cache := f.s.srv.plans
	if !f.settings.standardConformingStrings {
		cache = f.s.srv.escapePlans
	}
	foreign := f.settings.foreignEncoding != "" && !isASCII(text)
	if f.last.prog != nil && f.last.cache == cache && !foreign && f.last.prog.text == string(text) {
		return f.last.prog
	}
	var p *program
	if !foreign {
		p = cache.find(text)
	}
	if p == nil {
		f.side.leave() // a text is read for the first time
		if foreign {
			p = f.foreignProgram(text, cache)
		} else {
			p = cache.get(text)
		}
	}
	if p.setting && mentionsCall(text) {
		f.useSettings()
	}
	if !foreign && !p.setting {
		f.last = lastPlan{cache, p}
	}
	return p
}

// programOf is what to do with a text that may have calls, or execute a prepared statement that has; nil means that it is
// none of ours.
func (f *frontend) programOf(text []byte) *program {
	p := f.program(text)
	switch {
	case f.executes(p):
		c := *p
		c.local = false
		return &c
	case p.forward:
		return nil
	}
	return p
}

// foreignProgram looks at a text in another encoding than UTF-8.
func (f *frontend) foreignProgram(text []byte, cache *planCache) *program {
	utf, e := f.settings.toUTF8(text)
	if e == nil {
		return cache.get(utf)
	}
	if p := cache.get(maskForeign(text)); p.forward {
		return p
	}
	return &program{local: true, parts: []part{{refusal: e}}}
}

// maskForeign makes a text readable that cannot be converted: what is not ASCII may be any letter.
func maskForeign(text []byte) []byte {
	masked := bytes.Clone(text)
	for i, c := range masked {
		if c >= 0x80 {
			masked[i] = 'x'
		}
	}
	return masked
}

// query deals with a simple query.
func (f *frontend) query(msg []byte) (ours bool, err error) {
	text, ok := queryText(msg)
	call := ok && f.mayCall(text)
	if !call && !f.ext.live() {
		return false, nil
	}
	// The settings that the text is read under, and the statements that it drops, are those after all that is in front.
	state, err := f.settle()
	if err != nil || state == settledSkipping {
		return true, err
	}
	if state == settledCopying {
		return false, nil
	}
	if f.ext != nil {
		f.ext.dropUnnamed()
	}
	if ok && f.fetchesHarvest(text) {
		return true, f.finishFailed(errFetchHarvest)
	}
	var prog *program
	if call {
		prog = f.programOf(text)
	}
	if prog == nil {
		f.queryOfServer()
		return false, nil
	}
	if !prog.local {
		return true, f.runBatch(prog)
	}
	f.staleUnnamed()
	return true, f.runQuery(prog)
}

// queryText is the text of a Query message; ok is false when there is not exactly one NUL, at its end.
func queryText(msg []byte) (text []byte, ok bool) {
	body := msg[headerSize:]
	end := bytes.IndexByte(body, 0)
	if end < 0 || end != len(body)-1 {
		return nil, false
	}
	return body[:end], true
}

// runQuery answers a simple query of statements that are all ours. The server owes nothing.
func (f *frontend) runQuery(prog *program) error {
	if len(prog.parts) == 1 && prog.parts[0].local.installs() {
		return f.runBatch(prog)
	}
	f.buffer()
	last, rows, err := f.runStatements(prog)
	if err != nil {
		return f.finishFailed(err)
	}
	if err := f.endImplicit(last, rows); err != nil {
		return err
	}
	return f.finishQuery()
}

// endImplicit ends the implicit transaction that messages before may have opened, as the end of a query does, and
// appends the last statement's CommandComplete unless that fails.
func (f *frontend) endImplicit(last *statement, rows int) error {
	if f.openAtServer() {
		f.forwarded = false
		before := f.failures()
		if err := f.ask(syncMessage, 'S'|quietAnswer); err != nil {
			return err
		}
		if f.failures() != before {
			return nil // the client has the server's error
		}
	}
	f.buffer()
	f.out = last.appendComplete(f.out, rows)
	return nil
}

// failures counts the server's errors.
func (f *frontend) failures() uint64 {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failures
}

// runStatements runs all statements of a query. It leaves the CommandComplete of the last one to the caller, and says
// which that was and how many rows it had.
func (f *frontend) runStatements(prog *program) (last *statement, rows int, err error) {
	if f.transaction().status == 'E' {
		return nil, 0, errFailedTransaction
	}
	for i := range prog.parts {
		t := &prog.parts[i]
		if last != nil {
			f.buffer()
			f.out = last.appendComplete(f.out, rows)
		}
		if t.refusal != nil {
			return nil, 0, t.refusal
		}
		if r := t.local.RefuseParams(); r != nil {
			return nil, 0, refusal(r)
		}
		f.out = t.local.appendQueryDesc(f.out)
		f.simple.reset(t.local)
		if rows, _, err = f.run(&f.simple, 0); err != nil {
			return nil, 0, err
		}
		if err := f.flushLong(); err != nil {
			return nil, 0, err
		}
		last = t.local
	}
	return last, rows, nil
}

// transaction is what is known of the server's transaction.
func (f *frontend) transaction() transaction {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tx
}

// openAtServer says whether the server waits for the Sync of an extended query. It is true to the point after settle.
func (f *frontend) openAtServer() bool {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open
}

// noPortal is the name of a portal that no client has: executing it fails, which is how the server is told that one of our
// statements failed.
const noPortal = "raftproxy: a raftable() statement of this transaction failed"

var (
	syncMessage     = []byte{'S', 0, 0, 0, 4}
	failMessage     = executeMessage(noPortal)
	failSyncMessage = append(executeMessage(noPortal), syncMessage...)
)

func executeMessage(portal string) []byte {
	b := append([]byte{'E', 0, 0, 0, 0}, portal...)
	return finishMessage(append(b, 0, 0, 0, 0, 0), 0)
}

// failTransaction makes the server's open transaction, explicit or implicit, a failed one, as an error in one of its own
// statements would have. The messages of the simple query that failed are over.
func (f *frontend) failTransaction() error {
	if f.transaction().status != 'T' && !f.openAtServer() {
		return nil
	}
	f.forwarded = false
	return f.ask(failSyncMessage, 'E'|quiet, 'S'|quiet)
}

// ask sends messages of our own and waits for their answers.
func (f *frontend) ask(msg []byte, entries ...entry) error {
	if err := f.send(msg, entries...); err != nil {
		return err
	}
	_, err := f.settle()
	return err
}
