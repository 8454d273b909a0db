package proxy

import "bytes"

// maxBind is the size up to which a Bind for a statement of ours is read, in bytes: the largest value that a table may be
// set to take, and what else there may be.
const maxBind = 65 << 20

// smallMessage is how much of a message is held for a client that has not authenticated, and for the names at the beginning of one
// that is too large to be read, in bytes.
const smallMessage = 8 << 10

// wants says how many bytes of a message must be seen before it is dealt with: none, all of it, or enough to know that. In a
// session without statements of its own that is all for the two messages that carry SQL text, and none for others. msg is
// what there is of the message, its header at least.
func (f *frontend) wants(typ byte, size int, msg []byte) int {
	small := size <= f.s.srv.cfg.InspectLimit
	switch typ {
	case 'Q', 'P':
		switch {
		case size > smallMessage && !f.started: // too soon for anything of this size: the server may judge
		case small:
			return size
		case typ == 'P' && len(msg) == headerSize && f.ext.live():
			return headerSize + 1 // which tells whether the statement has a name
		}
	case 'S':
		if size == headerSize && (f.skipping || f.ext.live()) {
			return size
		}
	case 'B':
		if !f.ext.live() {
			break
		}
		names := min(size, headerSize+smallMessage)
		switch {
		case small:
			return size
		case len(msg) < names && bytes.Count(msg[headerSize:], []byte{0}) < 2:
			return names
		case size <= maxBind && f.isOurs('B', msg[headerSize:]):
			return size
		}
	case 'E', 'D', 'C', 'H':
		if small && f.ext.live() {
			return size
		}
	}
	return 0
}

// passUnread is called for a message that is forwarded unread. One that is too large to be read may still take the place of
// a statement or portal of ours. start is the beginning of its body. It is ours if it is to be thrown away.
func (f *frontend) passUnread(typ byte, size int, start []byte) (ours bool, err error) {
	if size <= f.s.srv.cfg.InspectLimit || typ != 'Q' && typ != 'P' && typ != 'B' || !f.started {
		return false, nil
	}
	if typ != 'B' {
		f.side.leave()
		f.s.srv.tooLarge(f.s, size)
	}
	if !f.ext.live() {
		return false, nil
	}
	switch state, err := f.settle(); {
	case err != nil || state == settledSkipping:
		return true, err
	case state == settledCopying:
		return false, nil
	}
	switch {
	case typ == 'Q':
		f.queryOfServer()
	case typ == 'B':
		return false, f.messageOfServer(typ, start)
	case start[0] == 0:
		f.ext.unnamedOfServer()
	}
	return false, nil
}

// queryOfServer notes that a simple query goes to the server, which ends unnamed statements and portals.
func (f *frontend) queryOfServer() {
	f.serverUnnamed = false
	if x := f.ext; x != nil {
		x.dropUnnamed()
		x.staleStmt, x.stalePortal = false, false
	}
}

// unnamedOfServer notes that the server gets an unnamed statement.
func (x *extended) unnamedOfServer() {
	delete(x.stmts, "")
	x.staleStmt = false
}

// messageOfServer makes ready for a message of the extended protocol about a statement or portal of the server's, which may have the
// name of one that it has not.
func (f *frontend) messageOfServer(typ byte, body []byte) error {
	if portal, replaces := f.replaces(typ, body); replaces {
		f.ext.dropPortal(portal)
		if portal == "" {
			if err := f.dropServerPortal(); err != nil {
				return err
			}
		}
	}
	return f.takeUnnamed(typ, body)
}
