package proxy

import (
	"encoding/binary"
	"fmt"
)

const headerSize = 5 // a message's type and length

// frontend is the client's side of a session. All of it belongs to the goroutine that runs the side.
type frontend struct {
	s    *session
	side side

	passing   int    // bytes of the current message that are still to be forwarded unread
	discard   int    // bytes of it that are still to be thrown away
	held      []byte // the beginning of a message that must be seen whole, or of a header
	started   bool   // the server was ready once
	blind     bool   // the stream made no sense: everything is forwarded and the server may judge
	unsettled []entry
	replies   []*reply // of those in unsettled that are marked replied
	queued    []byte   // messages for the server in place of the client's, which go out with the next ones

	// before is what was walked over in front of the message that is being looked at, and is not yet forwarded.
	before []byte

	// out is what we have for the client and have not yet written. Whole messages only.
	out    []byte
	outBuf *[bufferSize]byte

	// skipping: one of our own statements failed in an extended query; everything up to Sync is discarded.
	skipping bool
	// forwarded: the server was sent messages of an extended query since the last Sync.
	forwarded bool

	// serverUnnamed: the server may have an unnamed statement or portal.
	serverUnnamed bool

	settings  settings    // as of the last time that it was looked at when nothing was owed, as are the next two
	seen      transaction // of the server
	seenDrops uint64      // owed.drops
	noSQL     bool        // the connection is one for physical replication, which runs no SQL

	calls  callSettings
	last   lastPlan
	simple cursor      // of simple queries
	bound  bindMessage // scratch of bind
	values valueMemory // scratch of evaluate
	ext    *extended   // our own prepared statements and portals; nil in a session that never had one
}

// feed takes what one read of the client returned. It forwards as much as it can in one write.
func (f *frontend) feed(chunk []byte) error {
	if !f.s.mayWork() {
		return errTerminated
	}
	err := f.take(chunk)
	// Half a message or half a pipeline is no idle state: the session cannot be ended in the middle of it.
	f.s.busy.Store(f.passing > 0 || f.discard > 0 || len(f.held) > 0 || f.skipping || f.ext.live() && f.ext.answered)
	if err == nil && f.s.draining.Load() {
		f.s.endIfDraining()
	}
	return err
}

func (f *frontend) take(chunk []byte) error {
	if f.blind {
		return f.forward(chunk)
	}
	var err error
	f.lookReady()
	if len(f.held) > 0 {
		if chunk, err = f.resume(chunk); err != nil || chunk == nil {
			return err
		}
	}
	if err := f.walk(chunk); err != nil {
		return err
	}
	return f.flushOut()
}

// walk goes through the messages in chunk. chunk[from:pos] is what was seen and is to be forwarded.
func (f *frontend) walk(chunk []byte) error {
	from, pos := 0, 0
	for pos < len(chunk) {
		if f.passing > 0 {
			n := min(f.passing, len(chunk)-pos)
			f.passing -= n
			pos += n
			continue
		}
		if f.discard > 0 {
			n := min(f.discard, len(chunk)-pos)
			f.discard -= n
			pos += n
			from = pos
			continue
		}
		rest := chunk[pos:]
		if len(rest) < headerSize {
			f.held = append(f.held, rest...)
			return f.forward(chunk[from:pos])
		}
		typ, size := header(rest)
		if size < headerSize {
			f.goBlind(typ)
			return f.forward(chunk[from:])
		}
		if f.discards(typ) {
			if err := f.forward(chunk[from:pos]); err != nil {
				return err
			}
			f.discard = size
			continue
		}
		need := f.wants(typ, size, rest)
		if len(rest) < need {
			f.held = append(f.held, rest...)
			return f.forward(chunk[from:pos])
		}
		whole := need > 0
		f.before = chunk[from:pos]
		ours, err := f.offer(typ, size, rest, whole)
		if err != nil {
			return err
		}
		if len(f.before) == 0 {
			from = pos
		}
		switch {
		case whole && ours:
			pos += size
			from = pos
		case whole:
			pos += size
		case ours:
			f.discard = size
		default:
			f.passing = size
		}
	}
	return f.forward(chunk[from:pos])
}

// offer has a message looked at, which rest begins with, and says whether it is not the server's. If so, what is before it has been
// forwarded.
func (f *frontend) offer(typ byte, size int, rest []byte, whole bool) (ours bool, err error) {
	if whole {
		ours, err = f.inspect(typ, rest[:size])
	} else {
		ours, err = f.passUnread(typ, size, rest[headerSize:])
	}
	switch {
	case err != nil:
	case !ours:
		f.note(typ)
	case len(f.before) > 0:
		err = f.forwardBefore()
	}
	return ours, err
}

// resume goes on with a message of which the beginning is held. It returns what is left of chunk, nil when all is used.
func (f *frontend) resume(chunk []byte) ([]byte, error) {
	take := func(upTo int) bool {
		n := min(upTo-len(f.held), len(chunk))
		f.held = append(f.held, chunk[:n]...)
		chunk = chunk[n:]
		return len(f.held) == upTo
	}
	if len(f.held) < headerSize && !take(headerSize) {
		return nil, nil
	}
	typ, size := header(f.held)
	// A message that is not read, or makes no sense, or is thrown away as it comes, needs no more than that: walk deals with the rest.
	if size >= headerSize && !f.discards(typ) {
		for need := f.wants(typ, size, f.held); need > len(f.held); need = f.wants(typ, size, f.held) {
			if !take(need) {
				return nil, nil
			}
		}
	}
	whole := f.held
	f.held = nil
	if err := f.walk(whole); err != nil {
		return nil, err
	}
	if f.blind {
		return nil, f.forward(chunk)
	}
	if cap(whole) <= bufferSize {
		f.held = whole[:0]
	}
	return chunk, nil
}

// header takes a message's header apart; size is that of the whole message.
func header(b []byte) (typ byte, size int) {
	return b[0], 1 + int(int32(binary.BigEndian.Uint32(b[1:])))
}

// lookReady looks whether the server has said that it is ready, until it has. It does so once for what one read returned:
// what is to be read must not change in the middle of a message.
func (f *frontend) lookReady() {
	if !f.started {
		o := &f.s.owed
		o.mu.Lock()
		f.started = o.started
		o.mu.Unlock()
	}
}

// discards says whether a message is thrown away, because one of our own statements failed before it.
func (f *frontend) discards(typ byte) bool { return f.skipping && typ != 'S' && typ != 'X' }

// inspect looks at one whole message. ours says that it is dealt with and must not be forwarded. msg is valid during the
// call only.
func (f *frontend) inspect(typ byte, msg []byte) (ours bool, err error) {
	switch typ {
	case 'Q':
		return f.query(msg)
	case 'P':
		return f.parse(msg)
	}
	return f.extendedMessage(typ, msg)
}

// note enters a message that will be forwarded in the account, at the latest when it is written.
func (f *frontend) note(typ byte) {
	switch typ {
	case 'c', 'f':
	case 'Q', 'F', 'S':
		f.forwarded = false
	case 'P', 'B':
		f.forwarded, f.serverUnnamed = true, true
	case 'D', 'E', 'C':
		f.forwarded = true
	default:
		return
	}
	f.unsettled = append(f.unsettled, entry(typ))
}

// forward sends what is queued, and b, to the server, with what is noted entered in the account first. Answers of our own
// that are still held go out before it: the server may answer at once.
func (f *frontend) forward(b []byte) error {
	if f.ext != nil {
		f.ext.queued = nil
	}
	if len(f.unsettled) > 0 {
		o := &f.s.owed
		o.mu.Lock()
		// What is sent may end the transaction, and with it portals that the server knows nothing of.
		o.watchTags = o.watchTags || f.ext != nil && len(f.ext.portals) > 0
		replies := f.replies
		for _, e := range f.unsettled {
			if e&replied != 0 {
				o.pushReplied(e, replies[0])
				replies = replies[1:]
				continue
			}
			o.push(e)
		}
		o.mu.Unlock()
		f.unsettled = f.unsettled[:0]
		clear(f.replies)
		f.replies = f.replies[:0]
	}
	if len(f.queued) > 0 {
		b = append(f.queued, b...)
		if f.queued = b[:0]; cap(b) > bufferSize {
			f.queued = nil
		}
	}
	if len(b) == 0 {
		return nil
	}
	if err := f.flushOut(); err != nil {
		return err
	}
	if err := f.side.write(f.s.server, b); err != nil {
		return fmt.Errorf("%w: %w", errServerGone, err)
	}
	return nil
}

// queue has a message of ours go to the server in place of the one that is being looked at, behind what stands in front
// of that, together with what comes next. r is set if e is marked replied.
func (f *frontend) queue(msg []byte, e entry, r *reply) {
	f.queued = append(append(f.queued, f.before...), msg...)
	f.noteQueued(e, r)
}

// queueBind queues a Bind message, see appendBind.
func (f *frontend) queueBind(portal, statement []byte, m *bindMessage, values [][]byte, e entry, r *reply) {
	f.queued = appendBind(append(f.queued, f.before...), portal, statement, m, values)
	f.noteQueued(e, r)
}

// noteQueued enters the message that queued ends with in the account, at the latest when it is written.
func (f *frontend) noteQueued(e entry, r *reply) {
	f.before = nil
	f.unsettled = append(f.unsettled, e)
	if r != nil {
		f.replies = append(f.replies, r)
	}
	switch k := e.kind(); {
	case isExtended(k):
		f.forwarded = true
		f.serverUnnamed = f.serverUnnamed || k == 'P' || k == 'B'
	case e.endsInReady():
		f.forwarded = false
	}
}

// send sends messages of our own making to the server and enters them as given.
func (f *frontend) send(msg []byte, entries ...entry) error {
	f.unsettled = append(f.unsettled, entries...)
	return f.forward(msg)
}

// forwardBefore forwards what stands in front of the message that is being looked at.
func (f *frontend) forwardBefore() error {
	b := f.before
	f.before = nil
	if len(b) == 0 && len(f.queued) == 0 {
		return nil
	}
	return f.forward(b)
}

func (f *frontend) goBlind(typ byte) {
	f.s.log.Debug().Str("type", string(rune(typ))).Msg("client sent a message with an impossible length")
	f.blind = true
}

// flushOut writes what we have for the client.
func (f *frontend) flushOut() error {
	if f.outBuf == nil && len(f.out) == 0 {
		return nil
	}
	var err error
	if len(f.out) > 0 {
		err = f.writeClient(f.out)
	}
	if f.outBuf != nil {
		buffers.Put(f.outBuf)
	}
	f.out, f.outBuf = nil, nil
	return err
}

// flushLong writes what we have for the client if it is much.
func (f *frontend) flushLong() error {
	if len(f.out) < flushAt {
		return nil
	}
	if err := f.flushOut(); err != nil {
		return err
	}
	f.buffer()
	return nil
}

// buffer makes out ready for appending.
func (f *frontend) buffer() {
	if f.out == nil {
		f.outBuf = buffers.Get().(*[bufferSize]byte)
		f.out = f.outBuf[:0]
	}
}

// end lets go of what the session holds. It is called once, by the goroutine that runs the side.
func (f *frontend) end() {
	f.ext.clear()
	if f.outBuf != nil {
		buffers.Put(f.outBuf)
		f.out, f.outBuf = nil, nil
	}
}

// settled is what settle found.
type settled uint8

const (
	settledIdle     settled = iota // the server owes nothing
	settledSkipping                // an earlier message failed: the server discards everything up to Sync
	settledCopying                 // the server reads CopyData: only it can say what a message means now
)

// settle waits until the server has answered all that stands in front of the message that is being looked at, and all of
// it has reached the client.
func (f *frontend) settle() (settled, error) {
	if err := f.forwardBefore(); err != nil {
		return 0, err
	}
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.empty() && !o.copyIn && !o.entries[len(o.entries)-1].endsInReady() {
		o.mu.Unlock()
		err := f.forward(flushMessage)
		o.mu.Lock()
		if err != nil {
			return 0, err
		}
	}
	for left := false; !o.closed && (o.fatal || !o.empty() || o.delivering || !o.started); {
		if o.copyIn {
			return settledCopying, nil
		}
		if !left { // which takes other locks
			left = true
			o.mu.Unlock()
			f.side.leave()
			o.mu.Lock()
			continue
		}
		o.waits = true
		o.cond.Wait()
		o.waits = false
	}
	if o.closed {
		return 0, errTerminated
	}
	f.started = true
	f.upToDate()
	if o.skipping {
		return settledSkipping, nil
	}
	return settledIdle, nil
}

// upToDate takes over what the server's side knows of the session. The caller holds owed.mu.
func (f *frontend) upToDate() {
	o := &f.s.owed
	f.settings, f.seen, f.seenDrops = f.s.back.settings, o.tx, o.drops
	f.ext.settlePending()
	f.ext.forget(o.tx)
	o.watchTags = f.ext.named() || f.calls.used
}

var flushMessage = []byte{'H', 0, 0, 0, 4}
