package proxy

import (
	"bytes"
	"encoding/binary"
)

// settings are what the server told of the session in ParameterStatus and what our answers depend on.
type settings struct {
	standardConformingStrings bool
	// foreignEncoding is client_encoding where it is one that UTF-8 must be converted to; "" otherwise.
	foreignEncoding string
}

func (g *settings) set(name, value []byte) {
	switch string(name) {
	case "standard_conforming_strings":
		g.standardConformingStrings = string(value) == "on"
	case "client_encoding":
		g.foreignEncoding = ""
		// The server converts nothing for a client that says SQL_ASCII.
		if !bytes.EqualFold(value, []byte("UTF8")) && !bytes.EqualFold(value, []byte("SQL_ASCII")) {
			g.foreignEncoding = string(value)
		}
	}
}

// noteLimit bounds the body of a message that the proxy reads a copy of (ParameterStatus, BackendKeyData).
const noteLimit = 4 << 10

// backend is the server's side of a session. All of it belongs to the goroutine that runs the side. settings are
// written under owed.mu, and read by the other side after session.settle, which takes it.
type backend struct {
	s        *session
	side     side
	settings settings

	hdr    [headerSize]byte
	hdrLen int              // how much of a header is held back until it is whole
	prefix [headerSize]byte // a header that was held back and goes out now

	typ       byte // the current message, if inMessage
	inMessage bool
	hiding    bool   // it must not reach the client
	passing   int    // bytes of it that are still to come
	note      []byte // the copy of a body that we read
	noting    bool

	lastWords []byte // an error that was hidden and must not be

	captured bool   // the current message is read whole, and what becomes of it goes out in its place
	out      []byte // what the client gets of a chunk in which a message was changed
	rebuilt  bool   // out is in use
	held     []byte // what goes out with what comes next, unless that is an error
	complete []byte // memory for a CommandComplete in held
	harvest  harvest

	blind    bool
	locked   bool // clientMu is held: a message is half written
	keyKnown bool
}

// feed takes what one read of the server returned and writes to the client what is meant for it, in one write. It may
// change chunk.
func (b *backend) feed(chunk []byte) error {
	if b.blind {
		return b.write(nil, chunk)
	}
	for {
		prefix, visible, rest := b.account(chunk)
		b.registerKey()
		if err := b.write(prefix, visible); err != nil {
			return err
		}
		if b.lastWords != nil {
			if err := b.write(nil, b.lastWords); err != nil {
				return err
			}
			b.lastWords = nil
		}
		if b.harvest.pending() {
			if err := b.write(nil, b.runHarvest()); err != nil {
				return err
			}
		}
		if chunk = rest; len(chunk) == 0 {
			break
		}
	}
	o := &b.s.owed
	o.mu.Lock()
	o.delivering = false
	wake, waits := o.empty() || o.copyIn, o.waits
	o.mu.Unlock()
	if wake {
		if waits {
			b.side.wakes()
		}
		o.cond.Broadcast()
		b.s.endIfDraining()
	}
	return nil
}

// account goes through chunk, enters what it finds, and returns what the client must get. The account says that answers
// are being delivered until the caller takes that back. rest is what must wait until the rows in harvest have been run.
func (b *backend) account(chunk []byte) (prefix, visible, rest []byte) {
	o := &b.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	o.delivering = true
	if b.rebuilt = false; cap(b.out) > 2*bufferSize {
		b.out = nil
	}
	if b.hdrLen > 0 {
		prefix, chunk = b.resume(chunk)
	}
	visible, rest = b.walk(chunk)
	return prefix, visible, rest
}

// resume completes a header of which the beginning was held back. prefix is what the client must get of it.
func (b *backend) resume(chunk []byte) (prefix, rest []byte) {
	n := copy(b.hdr[b.hdrLen:], chunk)
	b.hdrLen += n
	if b.hdrLen < headerSize {
		return nil, nil
	}
	b.hdrLen = 0
	if held := b.takeHeld(b.hdr[0]); held != nil {
		prefix = bytes.Clone(held) // it may become that of another message before it is written
	}
	b.begin(b.hdr[:])
	if !b.hiding {
		b.prefix = b.hdr // walk may hold back the next one
		prefix = append(prefix, b.prefix[:]...)
	}
	if b.inMessage && b.passing == 0 {
		b.finish(func(msg []byte) { prefix = append(prefix, msg...) })
	}
	return prefix, chunk[n:]
}

// walk goes through the messages in chunk, keeps the account, and returns chunk without what the client must not see. It
// stops in front of a message that must wait for the rows in harvest.
func (b *backend) walk(chunk []byte) (visible, rest []byte) {
	pos, kept := 0, 0
	keep := func(n int) {
		if !b.hiding {
			switch {
			case b.rebuilt:
				b.out = append(b.out, chunk[pos:pos+n]...)
			case kept != pos:
				copy(chunk[kept:], chunk[pos:pos+n])
			}
			kept += n
		}
		pos += n
	}
	emit := func(msg []byte) {
		if !b.rebuilt {
			b.out, b.rebuilt = append(b.out[:0], chunk[:kept]...), true
		}
		b.out = append(b.out, msg...)
	}
	for pos < len(chunk) {
		if b.blind {
			b.hiding = false
			keep(len(chunk) - pos)
			break
		}
		if !b.inMessage {
			if b.harvest.mustRun(chunk[pos]) {
				rest = chunk[pos:]
				break
			}
			if len(chunk)-pos < headerSize {
				b.hdrLen = copy(b.hdr[:], chunk[pos:])
				break
			}
			if held := b.takeHeld(chunk[pos]); held != nil {
				emit(held)
			}
			b.begin(chunk[pos:])
			keep(headerSize)
		}
		n := min(b.passing, len(chunk)-pos)
		if b.noting {
			b.note = append(b.note, chunk[pos:pos+n]...)
		}
		b.passing -= n
		keep(n)
		if b.passing == 0 {
			b.finish(emit)
		}
	}
	if b.rebuilt {
		return b.out, rest
	}
	return chunk[:kept], rest
}

// takeHeld gives what was held back, if a message of this type lets it go. An error does away with it.
func (b *backend) takeHeld(next byte) []byte {
	held := b.held
	if held == nil {
		return nil
	}
	switch next {
	case 'N', 'S', 'T':
		return nil
	case 'D', 'C', 's':
		if r := b.s.owed.reply(); r != nil && r.captures(next) && (next != 'D' || r.shape != nil && r.shape.harvests()) {
			return nil
		}
	case 'E':
		held = nil
	default:
		if b.s.owed.hides(next) {
			return nil
		}
	}
	b.held = nil
	return held
}

// begin starts a message with its header.
func (b *backend) begin(hdr []byte) {
	typ, size := header(hdr)
	if size < headerSize {
		b.blind, b.hiding = true, false
		return
	}
	o := &b.s.owed
	b.typ, b.passing, b.inMessage = typ, size-headerSize, true
	r := o.reply()
	b.captured = r != nil && r.captures(typ)
	b.hiding = b.captured || o.hides(typ)
	b.noting = b.captured || size <= noteLimit &&
		(typ == 'S' || typ == 'Z' || typ == 'K' || typ == 'C' && o.tellsEnd() || typ == 'E' && b.hiding)
	if b.note = b.note[:0]; cap(b.note) > 2*bufferSize {
		b.note = nil
	}
}

// finish enters a message in the account when its last byte was seen. emit takes what goes out in place of one that was
// captured.
func (b *backend) finish(emit func(msg []byte)) {
	b.inMessage = false
	var status byte
	if r := b.s.owed.reply(); r != nil {
		if b.typ == '1' && r.prepared != nil {
			r.prepared.confirmed = true
		}
		if b.captured {
			if msg := b.change(r); len(msg) > 0 {
				emit(msg)
			}
		}
	}
	switch {
	case !b.noting:
	case b.typ == 'Z' && len(b.note) == 1:
		status = b.note[0]
	case b.typ == 'S':
		if name, rest, ok := bytes.Cut(b.note, []byte{0}); ok {
			value, _, _ := bytes.Cut(rest, []byte{0})
			b.settings.set(name, value)
		}
	case b.typ == 'E' && !b.captured && bytes.Contains(b.note, []byte("\x00VFATAL\x00")):
		// It was meant for a message of ours, but it ends the session and the client must know why.
		b.lastWords = finishMessage(append([]byte{'E', 0, 0, 0, 0}, b.note...), 0)
	case b.typ == 'C':
		b.s.owed.completed(b.note)
	case b.typ == 'K' && !b.keyKnown:
		b.s.cancelKey = string(b.note)
	}
	b.s.owed.answered(b.typ, status)
}

// change gives what the client gets in place of a captured message, header and all; nothing if it gets nothing, or gets
// it later.
func (b *backend) change(r *reply) []byte {
	o := &b.s.owed
	hidden := o.hides(b.typ)
	body := b.note
	switch b.typ {
	case 'E':
		switch {
		case isFatal(body):
			o.fatal = true
			return newMessage('E', body) // whatever it was for, the client must know why the session ends
		case r.rows != nil:
			r.rows.fail(body)
			return nil
		}
		if o.harvestError != nil {
			return nil // the client gets that of the row
		}
		body = r.sent.mapError(body, r.query)
	case 'N':
		if r.dropNotice {
			return nil
		}
		return newMessage('N', r.sent.mapError(body, r.query))
	case 't':
		body = trimParameters(body, r.params)
	case 'T':
		if r.shape != nil {
			body = r.shape.describe(body)
		}
		if r.query && r.fills {
			b.held = newMessage('T', body)
			return nil
		}
	case 'D':
		if r.rows != nil {
			r.rows.take(body)
			return nil
		}
		if r.shape.harvests() {
			if o.harvestError == nil {
				b.harvest.add(r, body)
			}
			return nil
		}
	case 'C', 's':
		return b.completed(r, body, hidden)
	case 'n':
		return nil
	}
	if hidden {
		return nil
	}
	return newMessage(b.typ, body)
}

// completed changes a CommandComplete or PortalSuspended, behind what is held for it.
func (b *backend) completed(r *reply, body []byte, hidden bool) []byte {
	held := b.held
	b.held = nil
	switch {
	case b.s.owed.harvestError != nil:
		return nil
	case r.holdComplete && held == nil && b.typ == 'C':
		b.complete = appendMessage(b.complete[:0], b.typ, body)
		b.held = b.complete
		return nil
	case r.holdComplete:
		b.held = newMessage(b.typ, body)
		return held
	case hidden:
		return nil
	}
	return append(held, newMessage(b.typ, body)...)
}

// newMessage makes a message of a type and a body.
func newMessage(typ byte, body []byte) []byte {
	return appendMessage(make([]byte, 0, headerSize+len(body)), typ, body)
}

func appendMessage(dst []byte, typ byte, body []byte) []byte {
	at := len(dst)
	return finishMessage(append(append(dst, typ, 0, 0, 0, 0), body...), at)
}

// take keeps the first column of a DataRow's body.
func (a *answerRows) take(body []byte) {
	var value []byte
	if len(body) >= 6 {
		if n := int(int32(binary.BigEndian.Uint32(body[2:]))); n >= 0 && n <= len(body)-6 {
			value = append([]byte{}, body[6:6+n]...)
		}
	}
	a.values = append(a.values, value)
}

// registerKey registers the cancel key, once, before the client learns it.
func (b *backend) registerKey() {
	if !b.keyKnown && b.s.cancelKey != "" {
		b.keyKnown = true
		b.s.srv.cancels.add(b.s.cancelKey, b.s)
	}
}

// write passes on to the client. The write lock stays with us while a message is half written.
func (b *backend) write(prefix, p []byte) error {
	if len(prefix)+len(p) == 0 {
		return nil
	}
	if !b.locked {
		b.side.lockClient()
		b.locked = true
	}
	var err error
	if len(prefix) > 0 {
		err = b.side.write(b.s.client, prefix)
	}
	if err == nil && len(p) > 0 {
		err = b.side.write(b.s.client, p)
	}
	if err == nil && (!b.inMessage || b.hiding) {
		b.unlock()
	}
	return err
}

func (b *backend) unlock() {
	if b.locked {
		b.locked = false
		b.s.clientMu.Unlock()
	}
}

// end lets go of what the session holds. It is called once, by the goroutine that runs the side.
func (b *backend) end() {
	b.unlock()
	if b.keyKnown {
		b.s.srv.cancels.remove(b.s.cancelKey, b.s)
	}
}
