// Package sqlrewrite reads SQL text and says where it calls raftable(), what class of statement that
// is, and what the calls do. It is pure: no I/O, no clock, and no knowledge of sessions or of the table.
package sqlrewrite

// Parse says what a simple-query text or the text of a Parse message contains. The plan shares no
// memory with a caller's buffer beyond text itself. It never fails: what cannot be read is ClassNone.
func Parse(text string, o Options) *Plan {
	return &Plan{}
}

// ResolveParams combines the types that a Parse message declares with those that the text deduces. It
// gives the type OID of every parameter; 0 where neither says anything.
func (l *Local) ResolveParams(declared []uint32) (types []uint32, refusal *Refusal) {
	return append([]uint32(nil), declared...), nil
}

// RefuseParams gives the error of a text that uses parameters where there can be none (a simple
// query), or nil if it uses none.
func (l *Local) RefuseParams() *Refusal { return nil }
