package sqlrewrite

// Whole is the Rewrite of a statement that is sent by itself, or with those behind it, and otherwise as it is: the client's
// text in [start, end). It serves to map positions.
func Whole(start, end int) *Rewrite {
	return &Rewrite{Pieces: []Piece{{Kind: PieceClient, Start: start, End: end, Call: -1}}}
}

// WithArguments gives what to run for an EXECUTE of a prepared statement that was rewritten: its values become further
// arguments, as constants, since EXECUTE takes no parameters. base is the Rewrite of the EXECUTE itself, nil if it has no
// calls. If the client's statement has no parameters, alone is set: postgres then looks at no arguments, whatever they are.
func (e Execution) WithArguments(base, prepared *Rewrite, alone bool) *Rewrite {
	if base == nil {
		base = Whole(e.Start, e.End)
	}
	r := *base
	r.evaluated = nil
	r.Literals = true
	r.Values = append(append([]Value(nil), base.Values...), prepared.Values...)
	if !e.Explain && !e.Into {
		r.Harvest = prepared.Harvest
	}
	if len(prepared.Values) == 0 {
		return &r
	}
	ours := func(text string) Piece { return Piece{Kind: PieceText, Text: text, Start: e.At, End: e.At, Call: -1} }
	if alone && e.Args > 0 {
		r.Pieces = without(r.Pieces, e.Open, e.At)
		e.At = e.Open
	}
	var more []Piece
	if e.Args == 0 {
		more = append(more, ours("("))
	}
	for i := range prepared.Values {
		if i > 0 || e.Args > 0 && !alone {
			more = append(more, ours(", "))
		}
		more = append(more, Piece{Kind: PieceValue, Value: len(base.Values) + i, Start: e.At, End: e.At, Call: -1})
	}
	if e.Args == 0 {
		more = append(more, ours(")"))
	}
	r.Pieces = insert(r.Pieces, e.At, more)
	return &r
}

// insert gives pieces with more of them at an offset of the client's text, which must lie outside of the calls.
func insert(old []Piece, at int, more []Piece) []Piece {
	pieces := make([]Piece, 0, len(old)+len(more)+1)
	for i, p := range old {
		// An offset between two pieces is the end of the first, unless that is of ours.
		last := i+1 == len(old) || old[i+1].Kind != PieceClient || old[i+1].Start != at
		if more == nil || p.Kind != PieceClient || at < p.Start || at > p.End || at == p.End && !last {
			pieces = append(pieces, p)
			continue
		}
		head, tail := p, p
		head.End, tail.Start = at, at
		if head.Start < head.End {
			pieces = append(pieces, head)
		}
		pieces = append(pieces, more...)
		if tail.Start < tail.End {
			pieces = append(pieces, tail)
		}
		more = nil
	}
	return pieces
}

// without gives pieces without those in a range of the client's text.
func without(old []Piece, start, end int) []Piece {
	var pieces []Piece
	for _, p := range old {
		if p.End <= start || p.Start >= end {
			pieces = append(pieces, p)
			continue
		}
		if p.Kind != PieceClient {
			continue
		}
		head, tail := p, p
		head.End, tail.Start = start, end
		if head.Start < head.End {
			pieces = append(pieces, head)
		}
		if tail.Start < tail.End {
			pieces = append(pieces, tail)
		}
	}
	return pieces
}
