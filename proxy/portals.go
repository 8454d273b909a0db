package proxy

import (
	"bytes"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// portal finds a portal of ours that its transaction's end has not taken.
func (f *frontend) portal(name string) (*portal, *pgError) {
	if f.transaction().status == 'E' {
		return nil, errFailedTransaction
	}
	p := f.ext.portals[name]
	if p == nil || !f.alive(p) {
		f.ext.dropPortal(name)
		return nil, errNoPortal(name)
	}
	return p, nil
}

// convertParameters brings parameters into the table's encoding.
func (f *frontend) convertParameters(p *prepared, m *bindMessage) *pgError {
	if f.settings.foreignEncoding == "" {
		return nil
	}
	for i, v := range m.values {
		if v == nil || i >= len(p.types) || isInteger(p.types[i]) {
			continue
		}
		var e *pgError
		if m.values[i], e = f.settings.toUTF8(v); e != nil {
			return e
		}
	}
	return nil
}

// newPortal makes room for a portal in place of one that may have its name. The unnamed one, which most are, keeps its memory
// from one to the next.
func (x *extended) newPortal(name string, st *statement) *portal {
	x.dropPortal(name)
	o := x.spare
	if o == nil || name != "" {
		o = &portal{}
	}
	o.reset(st)
	o.remote = nil
	return o
}

// makePortal makes the portal that a Bind asks for.
func (x *extended) makePortal(name string, p *prepared, m *bindMessage, tx transaction) *pgError {
	o := x.newPortal(name, p.st)
	o.tx = tx
	if e := m.parameters(p, &o.cursor); e != nil {
		return e
	}
	o.formats = m.resultFormats
	x.portals[name] = o
	return nil
}

// takeUnnamed makes the server forget its unnamed statement and portal, when it would else be asked for one that a
// statement of ours has replaced.
func (f *frontend) takeUnnamed(typ byte, body []byte) error {
	stmt, portal := false, false
	switch typ {
	case 'B':
		_, rest, _ := bytes.Cut(body, []byte{0})
		stmt = len(rest) > 0 && rest[0] == 0
	case 'D', 'C':
		stmt = len(body) > 1 && body[0] == 'S' && body[1] == 0
		portal = len(body) > 1 && body[0] == 'P' && body[1] == 0
	case 'E':
		portal = len(body) > 0 && body[0] == 0
	}
	if stmt && f.ext.staleStmt {
		f.ext.staleStmt = false
		f.forwarded = true
		return f.send(closeUnnamedStatement, 'C'|quiet)
	}
	if portal {
		return f.dropServerPortal()
	}
	return nil
}

// dropServerPortal makes the server forget an unnamed portal that a statement of ours has replaced. Outside of a
// transaction it has none.
func (f *frontend) dropServerPortal() error {
	if !f.ext.stalePortal {
		return nil
	}
	f.ext.stalePortal = false
	if f.transaction().status == 'I' && !f.openAtServer() {
		return nil
	}
	f.forwarded = true
	return f.send(closeUnnamedPortal, 'C'|quiet)
}

var (
	closeUnnamedStatement = []byte{'C', 0, 0, 0, 6, 'S', 0}
	closeUnnamedPortal    = []byte{'C', 0, 0, 0, 6, 'P', 0}
)

// replaces says whether a Bind for the server takes the name of a portal that we know of, or of an unnamed one that we replaced.
func (f *frontend) replaces(typ byte, body []byte) (portal string, ok bool) {
	if typ != 'B' {
		return "", false
	}
	raw, _, _ := bytes.Cut(body, []byte{0})
	name := nameOf(raw)
	return name, f.ext.portals[name] != nil || len(raw) == 0 && f.ext.stalePortal
}

// fetchesHarvest says whether a text reads a portal by SQL of which the rows have sets to run, which only Execute does.
func (f *frontend) fetchesHarvest(text []byte) bool {
	if f.ext == nil {
		return false
	}
	for name, o := range f.ext.portals {
		if name != "" && o.remote != nil && o.remote.harvests() && f.readsPortal(text, name) {
			return true
		}
	}
	return false
}

// readsPortal says whether a text has a FETCH or MOVE from a portal.
func (f *frontend) readsPortal(text []byte, portal string) bool {
	readable := func(b []byte) string {
		utf, e := f.settings.toUTF8(b)
		if e != nil {
			utf = maskForeign(b)
		}
		return string(utf)
	}
	return sqlrewrite.ReadsPortal(readable(text), readable([]byte(portal)), f.readOptions())
}

var errFetchHarvest = &pgError{
	code:    codeFeatureNotSupported,
	message: "FETCH and MOVE cannot read a portal whose rows set keys",
	detail:  "Nothing was set.",
	hint:    "Read it with Execute messages.",
}

// alive says whether the transaction that a portal lives in is still open.
func (f *frontend) alive(p *portal) bool {
	return p.tx.same(f.transaction())
}

// same says whether what was made in t still lives now.
func (t transaction) same(now transaction) bool {
	return t.ends == now.ends && (t.rollbacks == now.rollbacks || !now.inDoubt)
}

// forget drops the portals that a transaction's end has taken.
func (x *extended) forget(now transaction) {
	if x == nil {
		return
	}
	for name, p := range x.portals {
		if p.tx.ends != now.ends {
			x.dropPortal(name)
		}
	}
}
