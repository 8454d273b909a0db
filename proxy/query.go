package proxy

import "bytes"

// lastPlan remembers the last text of a session, so that a client that repeats itself does not meet the cache's lock.
type lastPlan struct {
	cache *planCache
	prog  *program
}

// program finds what to do with a text; nil means that it is none of ours. text is not kept.
func (f *frontend) program(text []byte) *program {
	cache := f.s.srv.plans
	if !f.s.back.settings.standardConformingStrings {
		cache = f.s.srv.escapePlans
	}
	if f.last.prog != nil && f.last.cache == cache && f.last.prog.text == string(text) {
		return f.last.prog
	}
	p := cache.get(text)
	if f.s.back.settings.foreignEncoding != "" && !isASCII(text) {
		p = f.foreignProgram(text, cache)
	}
	if p.forward {
		return nil
	}
	f.last = lastPlan{cache, p}
	return p
}

// foreignProgram looks at a text in another encoding than UTF-8: one with a call is refused, since its constants would
// have to be converted.
func (f *frontend) foreignProgram(text []byte, cache *planCache) *program {
	masked := bytes.Clone(text)
	for i, c := range masked {
		if c >= 0x80 {
			masked[i] = 'x'
		}
	}
	if p := cache.get(masked); p.forward {
		return p
	}
	return &program{refusal: &pgError{
		code:    codeFeatureNotSupported,
		message: "raftable() cannot read characters beyond ASCII under client_encoding " + f.s.back.settings.foreignEncoding,
		hint:    "SET client_encoding TO 'UTF8'.",
	}}
}

// query deals with a simple query.
func (f *frontend) query(msg []byte) (ours bool, err error) {
	text, ok := queryText(msg)
	call := ok && mentionsCall(text)
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
		f.ext.noteText(text)
	}
	if !call {
		return false, nil
	}
	prog := f.program(text)
	if prog == nil {
		return false, nil
	}
	if f.serverUnnamed {
		x := f.extended()
		x.staleStmt, x.stalePortal = true, true
	}
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

// runQuery answers a simple query. The server owes nothing.
func (f *frontend) runQuery(prog *program) error {
	f.buffer()
	err := f.runStatements(prog)
	if e := (*pgError)(nil); err != nil {
		var fatal error
		if e, fatal = asPgError(err); fatal != nil {
			return fatal
		}
		if err := f.failTransaction(); err != nil {
			return err
		}
		f.buffer()
		f.out = e.append(f.out, "ERROR")
	} else if f.openAtServer() {
		// The query ends the implicit transaction that the messages before it opened.
		f.forwarded = false
		if err := f.ask(syncMessage, 'S'|quiet); err != nil {
			return err
		}
		f.buffer()
	}
	status, _ := f.transaction()
	if status == 'I' {
		f.ext.clear()
	}
	f.out = appendReady(f.out, status)
	return f.flushOut()
}

func (f *frontend) runStatements(prog *program) error {
	status, _ := f.transaction()
	if status == 'E' {
		return errFailedTransaction
	}
	if prog.refusal != nil {
		return prog.refusal
	}
	for _, st := range prog.stmts {
		if r := st.RefuseParams(); r != nil {
			return refusal(r)
		}
	}
	for _, st := range prog.stmts {
		f.buffer()
		f.out = append(f.out, st.rowDesc...)
		f.simple.reset(st)
		rows, _, err := f.run(&f.simple, 0)
		if err != nil {
			return err
		}
		f.buffer()
		f.out = appendComplete(f.out, rows)
	}
	return nil
}

// transaction is the state after the last ReadyForQuery.
func (f *frontend) transaction() (status byte, ends uint64) {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status, o.txEnds
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
	status, _ := f.transaction()
	if status != 'T' && !f.openAtServer() {
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
