package sqlrewrite

// conflict is a parameter without a declared type that is an argument of two types.
type conflict struct {
	param   int
	refusal *Refusal
}

// Conflict is PostgreSQL's error for a parameter that a call has as a varchar and as a text, or as an integer, when a Parse message
// declares these types; nil if there is none. Postgres does not see it in what it is sent.
func (r *Rewrite) Conflict(declared []uint32) *Refusal {
	for _, c := range r.conflicts {
		if t := declaredType(declared, c.param); t == oidUnresolved || t == oidUnknown {
			return c.refusal
		}
	}
	return nil
}

// findConflicts looks at parameters that are nothing but arguments of calls in the output columns. Of others, another
// use may decide on the type.
func (w *rewriter) findConflicts() (conflicts []conflict) {
	if !w.harvest {
		return nil
	}
	uses := map[int]int{}
	for _, t := range w.tokens {
		if t.kind == kParam {
			uses[paramNumber(w.text[t.start:t.end])]++
		}
	}
	w.eachBare(func(_ *target, a *callArg) { uses[a.param]-- })
	type use struct {
		call *target
		oid  uint32
	}
	first := map[int]use{}
	w.eachBare(func(t *target, a *callArg) {
		wanted := signature[a.slot].oid
		f, ok := first[a.param]
		switch {
		case !ok:
			first[a.param] = use{t, wanted}
		case f.call == t && f.oid != wanted && uses[a.param] == 0 && a.param > w.types:
			// Another call would be looked for with the type of the first.
			conflicts = append(conflicts, conflict{a.param, inconsistent(&a.argument, f.oid, wanted)})
			uses[a.param]++ // one is enough
		}
	})
	return conflicts
}

// eachBare calls f with the arguments of calls in output columns that are parameters without casts, in the order of the text.
func (w *rewriter) eachBare(f func(*target, *callArg)) {
	for i := range w.targets {
		t := &w.targets[i]
		for j := range t.args {
			if a := &t.args[j]; t.direct && a.known && a.isParam && len(a.casts) == 0 {
				f(t, a)
			}
		}
	}
}
