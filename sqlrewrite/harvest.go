package sqlrewrite

import (
	"math"
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// checkHarvest looks at a statement with sets for what would not be as if the calls ran in postgres, and lets the gets
// among the columns run row by row as well.
func (w *rewriter) checkHarvest() *Refusal {
	sets := w.sets()
	if len(sets) == 0 {
		return nil
	}
	if refusal := w.checkSorting(sets); refusal != nil || !w.harvest {
		return refusal
	}
	seen := w.visible(sets)
	for i := range w.targets {
		t := &w.targets[i]
		switch {
		case t.isSet || t.column == nil:
		case t.direct && (t.form == formGet || t.form == formLookup && t.call.Over == nil && t.call.AggFilter == nil):
			t.form = formArray
		case seen.by(t):
			return refuseBesideSet(w.position.of(t.at))
		}
	}
	return w.checkSorting(w.arrays())
}

func (w *rewriter) sets() (sets []*target) {
	for i := range w.targets {
		if w.targets[i].isSet {
			sets = append(sets, &w.targets[i])
		}
	}
	return sets
}

func (w *rewriter) arrays() (arrays []*target) {
	for i := range w.targets {
		if w.targets[i].form == formArray {
			arrays = append(arrays, &w.targets[i])
		}
	}
	return arrays
}

// visibility says which sets a get in an expression, or a list, could come after.
type visibility struct {
	// number are the numbers of the output columns.
	number map[*pg_query.ResTarget]int
	// single says that there is one row at most, so that only sets in columns further left can matter; but for the rows that lists among
	// the columns make, which are read before all of them.
	single, lists bool
	// Of the sets of each constant key, of those of keys that only postgres knows, and of all: the number of the first column.
	first      map[string]int
	computed   int
	everything int
}

func (w *rewriter) visible(sets []*target) visibility {
	v := visibility{number: map[*pg_query.ResTarget]int{}, single: w.single(), first: map[string]int{}, computed: math.MaxInt, everything: math.MaxInt}
	v.lists = slices.ContainsFunc(w.targets, func(t target) bool { return rowsOfList(&t) })
	for i, n := range w.columns() {
		v.number[n.GetResTarget()] = i
	}
	for _, s := range sets {
		n, key := v.number[s.column], s.key()
		v.everything = min(v.everything, n)
		switch before, ok := v.first[key.value]; {
		case !key.known || key.isParam:
			v.computed = min(v.computed, n)
		case !ok || n < before:
			v.first[key.value] = n
		}
	}
	return v
}

// by reports whether a get may be evaluated after a set of its key, or a list after any set.
func (v *visibility) by(t *target) bool {
	limit := math.MaxInt
	if v.single && (!v.lists || rowsOfList(t)) {
		limit = v.number[t.column]
	}
	if t.form == formList {
		return v.everything < limit
	}
	a := &t.args[0]
	if !a.known || a.isParam {
		return v.everything < limit
	}
	n, ok := v.first[a.value]
	return !a.null && (v.computed < limit || ok && n < limit)
}

// rowsOfList reports whether a call makes rows of a statement by standing among its columns.
func rowsOfList(t *target) bool { return t.form == formList && t.column != nil && !t.inSubselect() }

// key is the argument that is the key.
func (t *target) key() *callArg {
	i := slices.IndexFunc(t.args, func(a callArg) bool { return a.slot == 0 })
	return &t.args[i]
}

// checkSorting refuses a statement that compares the results of calls that postgres does not run.
func (w *rewriter) checkSorting(arrays []*target) *Refusal {
	sel, ok := w.inner.Interface().(*pg_query.SelectStmt)
	if !ok {
		return nil
	}
	m := meanings{columns: sel.TargetList, byName: map[string]*target{}, byColumn: map[*pg_query.ResTarget]*target{}}
	for _, t := range arrays {
		m.byName[columnName(t.column.Name, word)], m.byColumn[t.column] = t, t
	}
	for _, n := range sel.GroupClause {
		if t := m.of(n); t != nil {
			return w.refuseComparing(t, nodeLocation(n), "equality")
		}
	}
	for _, n := range sel.SortClause {
		by := n.GetSortBy()
		if t := m.of(by.GetNode()); t != nil {
			return w.refuseComparing(t, nodeLocation(by.GetNode()), "ordering")
		}
	}
	for _, n := range sel.DistinctClause {
		if n.GetNode() == nil {
			return w.refuseComparing(arrays[0], arrays[0].at, "equality")
		}
		if t := m.of(n); t != nil {
			return w.refuseComparing(t, nodeLocation(n), "equality")
		}
	}
	return nil
}

// refuseComparing is PostgreSQL's error for a void, which has no operators.
func (w *rewriter) refuseComparing(t *target, at int, operator string) *Refusal {
	if !t.isSet {
		return refuseSortKey(w.position.of(t.at))
	}
	f := fail(w.position.of(at), "42883", "could not identify an %s operator for type void", operator)
	if operator == "ordering" {
		f.Hint = "Use an explicit ordering operator or modify the query."
	}
	return f
}

// meanings says which output columns are calls.
type meanings struct {
	columns  []*pg_query.Node
	byName   map[string]*target
	byColumn map[*pg_query.ResTarget]*target
}

// of gives the call that an item of ORDER BY and the like means by the number or the name of its column.
func (m *meanings) of(n *pg_query.Node) *target {
	if number := int(n.GetAConst().GetIval().GetIval()); number > 0 && number <= len(m.columns) {
		return m.byColumn[m.columns[number-1].GetResTarget()]
	}
	if ref := n.GetColumnRef(); ref != nil && len(ref.Fields) == 1 {
		return m.byName[ref.Fields[0].GetString_().GetSval()]
	}
	return nil
}

func nodeLocation(n *pg_query.Node) int {
	switch v := n.GetNode().(type) {
	case *pg_query.Node_AConst:
		return int(v.AConst.Location)
	case *pg_query.Node_ColumnRef:
		return int(v.ColumnRef.Location)
	}
	return 0
}
