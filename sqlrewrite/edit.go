package sqlrewrite

import (
	"cmp"
	"slices"
	"sort"
)

// edit replaces [at, end) of the client's text; where both are the same, it puts something in behind what stands before.
type edit struct {
	at, end int
	call    int
	parts   []part
}

// part is a part of what an edit puts in: SQL of ours, a value, or a range of the client's text in which
// other edits may lie.
type part struct {
	kind  PieceKind
	text  string
	value int
	span
}

func text(s string) part { return part{kind: PieceText, text: s} }

func client(s span) part { return part{kind: PieceClient, span: s} }

// use is a value, which is made if there is none like it.
func (w *rewriter) use(v Value) part { return part{kind: PieceValue, value: w.value(v, false)} }

func (w *rewriter) edit(t *target, at, end int, parts ...part) {
	w.edits = append(w.edits, edit{at: at, end: end, call: t.number, parts: parts})
}

// emit makes the pieces of the whole statement.
func (w *rewriter) emit(start, end int) {
	slices.SortStableFunc(w.edits, func(a, b edit) int {
		if c := cmp.Compare(a.at, b.at); c != 0 {
			return c
		}
		// What is put in belongs to what stands before.
		return cmp.Compare(min(a.end-a.at, 1), min(b.end-b.at, 1))
	})
	w.emitRange(span{start, end}, end+1)
}

// emitRange makes the pieces of a range. What is put in at an offset belongs to the range that ends there, unless that is the end
// of the edit around it too.
func (w *rewriter) emitRange(r span, outerEnd int) {
	at := r.start
	i := sort.Search(len(w.edits), func(i int) bool { return w.edits[i].at >= r.start })
	for i < len(w.edits) {
		e := &w.edits[i]
		insert := e.at == e.end
		if e.at > r.end || e.at == r.end && !insert {
			break
		}
		if insert && (e.at == r.start || e.at == outerEnd) {
			i++
			continue
		}
		w.piece(Piece{Kind: PieceClient, Start: at, End: e.at})
		for _, p := range e.parts {
			switch p.kind {
			case PieceClient:
				w.emitRange(p.span, e.end)
			case PieceText:
				w.piece(Piece{Kind: PieceText, Text: p.text, Call: e.call})
			case PieceValue:
				w.piece(Piece{Kind: PieceValue, Value: p.value, Call: e.call})
			}
		}
		at = e.end
		if insert {
			i++
		} else {
			i += sort.Search(len(w.edits)-i, func(j int) bool { return w.edits[i+j].at >= at })
		}
	}
	w.piece(Piece{Kind: PieceClient, Start: at, End: r.end})
}

func (w *rewriter) piece(p Piece) {
	if p.Kind == PieceClient && p.Start >= p.End {
		return
	}
	if n := len(w.out.Pieces); n > 0 && p.Kind == PieceText {
		if last := &w.out.Pieces[n-1]; last.Kind == PieceText && last.Call == p.Call {
			last.Text += p.Text
			return
		}
	}
	w.out.Pieces = append(w.out.Pieces, p)
}
