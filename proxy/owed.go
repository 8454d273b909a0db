package proxy

import (
	"bytes"
	"sync"
)

// entry is one message that was sent to the server and that it owes an answer to: the message's type, or entryStartup,
// together with flags that say which of its answers the client must not see.
type entry uint16

const (
	// entryStartup stands for the startup packet; the server pays with its first ReadyForQuery.
	entryStartup entry = 0
	// quietAnswer hides what the server answers when all is well.
	quietAnswer entry = 1 << 8
	// quietError hides an ErrorResponse.
	quietError entry = 1 << 9
	// quiet marks messages of the proxy's own, of which the client must see nothing.
	quiet = quietAnswer | quietError
	// replied marks messages whose answer the client must get in another form; see reply.
	replied entry = 1 << 10
	// private marks a Sync of the proxy's own in front of which the client has nothing open: it ends no transaction of the
	// client's, nor what lives in one.
	private entry = 1 << 11
)

func (e entry) kind() byte { return byte(e) }

// endsInReady says whether the server answers the message with a ReadyForQuery.
func (e entry) endsInReady() bool {
	switch e.kind() {
	case 'Q', 'S', 'F', byte(entryStartup):
		return true
	}
	return false
}

// owed is the account of what the server still has to answer. The client's side of a session pushes what it forwards,
// before it writes it; the server's side settles entries as the answers pass. Its one purpose is that an answer of our own
// waits for all that is in front of it, so it follows the server's rules for skipping messages: after an error in an
// extended query everything up to Sync is discarded, and in COPY mode a Sync before CopyDone or CopyFail is.
//
// The zero value is not ready; see init. mu is a leaf lock: nothing else is locked while it is held.
type owed struct {
	mu   sync.Mutex
	cond sync.Cond // signalled when the account becomes empty or a wait must be given up

	entries []entry
	head    int      // entries[head:] are open
	replies []*reply // replies[replied:] are those of the open entries that are marked replied, in order
	replied int

	skipping   bool // the server discards everything until Sync
	copyIn     bool // the server reads CopyData
	delivering bool // answers were taken off the account but are not yet written to the client
	closed     bool
	waits      bool // the frontend waits for cond
	extended   int  // how many entries belong to extended queries
	open       bool // the server got messages of an extended query and no Sync that counts after them
	started    bool // the first ReadyForQuery was seen
	fatal      bool // the server has said, to a statement of ours, that it ends the session, and is about to
	failures   uint64
	drops      uint64 // commands that may have dropped names of prepared statements
	watchTags  bool   // the session has statements with names, or portals, of ours
	// settingChanges counts the commands that may have changed a setting.
	settingChanges uint64
	// changed: one of them ran in the transaction that is open, whose end may take it back.
	changed bool
	// harvestError is the error of a call in a row of the statement that runs now.
	harvestError *pgError
	tx           transaction
}

// transaction is what is known of the server's transaction.
type transaction struct {
	status byte // of the last ReadyForQuery, or what a command tag has told since
	// ends counts the ends of transactions.
	ends uint64
	// rollbacks counts the tags that say ROLLBACK, which may be one to a savepoint. While inDoubt is set, no
	// ReadyForQuery has told yet which it was.
	rollbacks uint64
	inDoubt   bool
}

func (o *owed) init() {
	o.cond.L = &o.mu
	o.tx.status = 'I'
	o.entries = append(make([]entry, 0, 8), entryStartup)
}

// push adds what is about to be sent. The caller holds mu.
func (o *owed) push(e entry) { o.pushReplied(e, nil) }

// pushReplied adds what is about to be sent; r is set if e is marked replied. The caller holds mu.
func (o *owed) pushReplied(e entry, r *reply) {
	k := e.kind()
	o.open = o.open || isExtended(k)
	switch {
	case o.skipping:
		if k != 'S' {
			return
		}
		o.skipping = false
	case o.copyIn:
		if k == 'c' || k == 'f' {
			o.copyIn = false
			return
		}
		if k == 'S' {
			return // the server ignores it while it copies
		}
	}
	if (k == 'c' || k == 'f') && o.empty() {
		return
	}
	if o.head >= 32 && o.head > len(o.entries)/2 { // a pipeline that is never empty
		o.entries = o.entries[:copy(o.entries, o.entries[o.head:])]
		o.head = 0
	}
	if isExtended(k) {
		o.extended++
	}
	if r != nil {
		if o.replied >= 32 && o.replied > len(o.replies)/2 {
			o.replies = o.replies[:copy(o.replies, o.replies[o.replied:])]
			o.replied = 0
		}
		o.replies = append(o.replies, r)
	}
	o.entries = append(o.entries, e)
}

// isExtended says whether a message belongs to an extended query, which a Sync must end.
func isExtended(kind byte) bool {
	switch kind {
	case 'P', 'B', 'D', 'E', 'C':
		return true
	}
	return false
}

func (o *owed) empty() bool { return o.head == len(o.entries) }

// front is the entry that the server answers now; ok is false when it owes nothing.
func (o *owed) front() (e entry, ok bool) {
	if o.empty() {
		return 0, false
	}
	return o.entries[o.head], true
}

// pop takes the first entry off, and the end-of-copy marks behind it, which have no answer of their own.
func (o *owed) pop() {
	o.take()
	for !o.empty() {
		if k := o.entries[o.head].kind(); k != 'c' && k != 'f' {
			return
		}
		o.take()
	}
	o.entries, o.head = o.entries[:0], 0
}

// take takes the first entry off.
func (o *owed) take() {
	e := o.entries[o.head]
	if isExtended(e.kind()) {
		o.extended--
	}
	if e&replied != 0 {
		o.replies[o.replied] = nil
		if o.replied++; o.replied == len(o.replies) {
			o.replies, o.replied = o.replies[:0], 0
		}
	}
	o.head++
}

// reply is how the answer that comes now is to be changed; nil for not at all. The caller holds mu.
func (o *owed) reply() *reply {
	if o.replied == len(o.replies) {
		return nil
	}
	if e, ok := o.front(); !ok || e&replied == 0 {
		return nil
	}
	return o.replies[o.replied]
}

func (o *owed) popIf(kind byte) {
	if e, ok := o.front(); ok && e.kind() == kind {
		o.pop()
	}
}

// hides says whether a message of this type, arriving now, must not reach the client. The caller holds mu.
func (o *owed) hides(typ byte) bool {
	e, ok := o.front()
	if !ok || e&quiet == 0 {
		return false
	}
	switch typ {
	case 'N', 'A', 'S': // sent at any time, no answers
		return false
	case 'E':
		return e&quietError != 0
	}
	return e&quietAnswer != 0
}

// answered settles the account with a message of the server; status is the body of a ReadyForQuery. The caller holds mu.
func (o *owed) answered(typ, status byte) {
	switch typ {
	case '1':
		o.popIf('P')
	case '2':
		o.popIf('B')
	case '3':
		o.popIf('C')
	case 'T', 'n':
		o.popIf('D')
	case 'C', 's', 'I':
		o.popIf('E')
	case 'E':
		o.failed()
	case 'G', 'W':
		o.copyStarted()
	case 'Z':
		o.ready(status)
	}
}

// tellsEnd says whether the tag of a CommandComplete that comes now may tell something: that a transaction has ended, which a
// ReadyForQuery would tell later or, of COMMIT AND CHAIN, not at all, or that names were dropped.
func (o *owed) tellsEnd() bool { return o.watchTags || o.tx.status != 'I' }

// completed takes the tag of such a CommandComplete.
func (o *owed) completed(tag []byte) {
	for _, t := range settingTags {
		if bytes.HasPrefix(tag, t) {
			o.settingChanges++
			o.changed = true
		}
	}
	switch {
	case bytes.HasPrefix(tag, []byte("COMMIT")), bytes.HasPrefix(tag, []byte("PREPARE TRANSACTION")):
		o.tx.ends++
	case bytes.HasPrefix(tag, []byte("ROLLBACK")):
		if o.tx.status == 'E' {
			o.tx.status = 'T' // at most
		}
		o.tx.rollbacks++
		o.tx.inDoubt = true
	case bytes.HasPrefix(tag, []byte("DEALLOCATE")), bytes.HasPrefix(tag, []byte("DISCARD")),
		bytes.HasPrefix(tag, []byte("DO\x00")), bytes.HasPrefix(tag, []byte("CALL\x00")):
		o.drops++
	}
}

// settingTags begin the tags of commands that may change a setting, or take a change back.
var settingTags = [][]byte{
	[]byte("SET"), []byte("RESET"), []byte("DISCARD"), []byte("ROLLBACK"), []byte("COMMIT"), []byte("DO\x00"), []byte("CALL\x00"),
	[]byte("PREPARE TRANSACTION"),
}

// failed follows the server after an ErrorResponse: in an extended query it discards all messages up to Sync.
func (o *owed) failed() {
	o.copyIn = false
	o.failures++
	e, ok := o.front()
	if !ok || e.endsInReady() {
		return
	}
	for ; !o.empty(); o.take() {
		if o.entries[o.head].kind() == 'S' {
			return
		}
	}
	o.entries, o.head = o.entries[:0], 0
	o.skipping = true
}

// copyStarted drops the Syncs that the client sent ahead of its CopyDone: the server ignores them.
func (o *owed) copyStarted() {
	if o.empty() {
		return
	}
	kept := o.entries[:o.head+1]
	rest := o.entries[o.head+1:]
	o.copyIn = true
	for i, e := range rest {
		switch k := e.kind(); k {
		case 'S':
			continue
		case 'c', 'f':
			o.copyIn = false
			o.entries = append(kept, rest[i+1:]...)
			return
		}
		kept = append(kept, e)
	}
	o.entries = kept
}

func (o *owed) ready(status byte) {
	var e entry
	for !o.empty() {
		e, _ = o.front()
		o.pop()
		if e.endsInReady() {
			break
		}
	}
	o.copyIn, o.skipping = false, false
	o.open = o.extended > 0
	o.started = true
	o.tx.status, o.tx.inDoubt = status, false
	if status == 'I' && e&private == 0 {
		o.tx.ends++
		if o.changed {
			o.changed = false
			o.settingChanges++
		}
	}
}

// idle says whether the server owes nothing and has no transaction open.
func (o *owed) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.empty() && !o.delivering && o.started && o.tx.status == 'I' && !o.skipping && !o.open && !o.closed
}

// close gives up all waits.
func (o *owed) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.cond.Broadcast()
}
