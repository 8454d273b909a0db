package sqlrewrite

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// classify says for every call what is to stand in its place, and keeps those that are replaced.
func (w *rewriter) classify(calls []site) *Refusal {
	w.targets = make([]target, 0, len(calls))
	w.plainGets = len(calls) > manyCalls
	for i := range calls {
		t := target{site: &calls[i], at: int(calls[i].call.Location)}
		if refusal := w.look(&t); refusal != nil {
			return refusal
		}
		if t.form != formLeave {
			w.targets = append(w.targets, t)
		}
	}
	w.settleCasts()
	return nil
}

// manyCalls is from how many calls on gets are no sub-selects: postgres plans each of those by itself, which takes seconds for
// thousands.
const manyCalls = 200

// look reads a call and settles its form.
func (w *rewriter) look(t *target) *Refusal {
	fn, pos := t.call, w.position.of(t.at)
	_, procedure := in[*pg_query.CallStmt](t.site, 0, "funccall")
	switch {
	case fn.AggStar:
		t.shape, t.form = shape{}, formStar
		return nil
	case fn.AggWithinGroup, len(fn.Args) > len(signature):
		return nil
	}
	var ok bool
	isNamed := func(i int) bool { return fn.Args[i].GetNamedArgExpr() != nil }
	if t.shape, ok = w.shapeOf(t.at, len(fn.Args), len(fn.AggOrder) > 0, isNamed); !ok {
		return refusePlace(pos)
	}
	t.args = make([]callArg, len(fn.Args))
	for i, n := range fn.Args {
		t.args[i] = w.readArg(n, t.shape.args[i])
	}
	if !t.assign() {
		return nil
	}
	t.column, t.direct = w.column(t.site)
	t.simple = t.noSubselect()
	t.plain = t.simple || w.plainGets || t.compared()
	t.volatile = t.infers() || t.decides(w.hasScalars)
	if procedure {
		return w.notProcedure(t)
	}
	switch len(t.args) {
	case 0:
		t.form = formList
	case 1:
		t.form = formLookup
		if w.isValue(t) {
			t.form = formGet
		}
	default:
		return w.lookAtSet(t)
	}
	return nil
}

// notProcedure is PostgreSQL's error for CALL raftable(...).
func (w *rewriter) notProcedure(t *target) *Refusal {
	r, pos := w.replaced(t), w.position.of(t.at)
	if len(t.args) == 2 {
		// It could be a set, or a list with places for its two columns.
		f := fail(pos, "42725", "procedure %s is not unique", r.signature())
		f.Hint = "Could not choose a best candidate procedure. You might need to add explicit type casts."
		return f
	}
	f := fail(pos, "42809", "%s is not a procedure", r.signature())
	f.Hint = "To call a function, use SELECT."
	return f
}

// readArg reads an argument as far as it is a constant or a parameter.
func (w *rewriter) readArg(n *pg_query.Node, s span) callArg {
	a := callArg{}
	if named := n.GetNamedArgExpr(); named != nil {
		a.name = named.Name
	}
	if len(within(w.survey.escapes, s.start, s.end)) > 0 {
		return a // postgres reads it, and has something to say about it
	}
	if read, ok := w.readArgument(n); ok {
		a.argument, a.known = read, true
	}
	return a
}

// assign finds out which parameter of the function each argument is. It is false where postgres itself finds that no
// function fits.
func (t *target) assign() bool {
	plain := call{args: make([]argument, len(t.args))}
	for i, a := range t.args {
		plain.args[i] = a.argument
	}
	if plain.checkNames() != nil {
		return false
	}
	for i := range t.args {
		a := &t.args[i]
		if a.slot = plain.slotOf(i); a.slot < 0 {
			return false
		}
		if a.known && !a.isParam && fitOf(a.textType(), signature[a.slot].oid) == fitsNot {
			return false
		}
	}
	return true
}

// isValue reports whether a get is of a key that is known before postgres runs the statement.
func (w *rewriter) isValue(t *target) bool {
	a, fn := &t.args[0], t.call
	if fn.AggFilter != nil || fn.Over != nil || fn.AggDistinct || len(fn.AggOrder) > 0 {
		return false // postgres has an error that names the function
	}
	if !a.known || a.textType() != oidUnresolved && !isText(a.textType()) {
		return false
	}
	return !a.isParam || w.prepares == "" && a.param >= 1 && a.param <= maxParams
}

// settleCasts makes lookups of keys like $1::text where the parameter is used for something else, too: a cast takes every type, and the
// other use may decide on one whose bytes are not the key's.
func (w *rewriter) settleCasts() {
	var uses map[int]int
	for i := range w.targets {
		t := &w.targets[i]
		if t.form != formGet || !t.args[0].isParam || len(t.args[0].casts) == 0 {
			continue
		}
		if uses == nil {
			uses = w.otherUses()
		}
		if uses[t.args[0].param] > 0 {
			t.form = formLookup
		}
	}
}

// otherUses counts how often a parameter is used for anything but a key that is nothing else.
func (w *rewriter) otherUses() map[int]int {
	uses := map[int]int{}
	for _, t := range w.tokens {
		if t.kind == kParam {
			uses[paramNumber(w.text[t.start:t.end])]++
		}
	}
	for i := range w.targets {
		if t := &w.targets[i]; t.form == formGet && t.args[0].isParam {
			uses[t.args[0].param]--
		}
	}
	return uses
}

// lookAtSet says what becomes of a set.
func (w *rewriter) lookAtSet(t *target) *Refusal {
	pos, fn := w.position.of(t.at), t.call
	switch {
	case fn.AggFilter != nil, fn.AggDistinct, len(fn.AggOrder) > 0, fn.Over != nil:
		t.form = formClause
		return nil
	case !t.direct, w.keeps && (!w.explain || w.analyze), w.analyze, w.prepares != "" && w.explain:
		return refuseSet(pos)
	}
	t.form, t.isSet = formArray, true
	w.harvest = !w.explain
	return nil
}
