package sqlrewrite

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// The SQL of the list as records. A name that nobody else has keeps postgres from taking a column of a query around for it.
const (
	rowName      = `"raftproxy: row"`
	sqlRowSource = " FROM pg_catalog.json_to_recordset("
	sqlRowNames  = "::pg_catalog.json) AS " + rowName + "(key pg_catalog.varchar, value pg_catalog.text)"
	sqlUnnest    = "pg_catalog.unnest((SELECT pg_catalog.array_agg(" + rowName + ")" + sqlRowSource
)

// replaceList replaces raftable() in an expression. Records are elements of an array: they have the types that the function
// gives them. But postgres does not know their fields before it runs the statement, so where a field is taken they
// come from json_each_text, whose keys are a text.
func (w *rewriter) replaceList(t *target) {
	i, taken := in[*pg_query.A_Indirection](t.site, 0, "arg")
	outer, inner := w.subselect(t)
	switch {
	case taken:
		w.replaceField(t, i)
	case t.simple, t.call.Over != nil, t.call.AggFilter != nil:
		w.edit(t, t.at, w.end(t), w.each()...) // postgres has an error for all of them
	case inner && isOnlyColumn(outer):
		w.edit(t, t.at, w.end(t), text(rowName))
		w.nameColumn(t)
		end := w.targetEnd(int(outer.TargetList[0].GetResTarget().Location))
		w.edit(t, end, end, text(sqlRowSource), w.use(Value{Kind: ValueRows}), text(sqlRowNames))
		return
	case inner:
		w.edit(t, t.at, w.end(t), w.each()...)
	default:
		w.edit(t, t.at, w.end(t), text(sqlUnnest), w.use(Value{Kind: ValueRows}), text(sqlRowNames+"))"))
	}
	w.nameColumn(t)
}

func (w *rewriter) each() []part {
	return []part{text(sqlEach), w.use(Value{Kind: ValueList}), text("::pg_catalog.json)")}
}

// replaceField gives a field that is taken of a list the type that it should have, and the star for all fields the same.
func (w *rewriter) replaceField(t *target, i *pg_query.A_Indirection) {
	each := w.each()
	w.edit(t, t.at, w.end(t), each...)
	if len(i.Indirection) != 1 {
		return
	}
	dot := t.shape.close + 1
	for dot < len(w.tokens) && w.tokens[dot].kind == kClose {
		dot++
	}
	if dot+1 >= len(w.tokens) || w.tokens[dot].kind != kDot {
		return
	}
	end := int(w.tokens[dot+1].end)
	if target, ok := in[*pg_query.ResTarget](t.site, 1, "val"); ok && target.Name != "" && i.Indirection[0].GetAStar() != nil {
		end = w.targetEnd(int(target.Location)) // a name is of no use there
	}
	switch field := i.Indirection[0]; {
	case field.GetString_().GetSval() == "key":
		w.edit(t, end, end, text(sqlVarchar))
	case field.GetAStar() != nil && t.expands():
		parts := append([]part{text(".key" + sqlVarchar + ", (")}, each...)
		w.edit(t, int(w.tokens[dot].start), end, append(parts, text(").value"))...)
	}
}

// expands reports whether the star of (raftable()).* stands for columns.
func (s *site) expands() bool {
	if list := s.last(2); s.last(1).field == "val" && (list.field == "returning_list" || list.field == "target_list" && isSelect(list)) {
		return true
	}
	_, row := in[*pg_query.RowExpr](s, 1, "args")
	return row
}

// subselect gives the sub-select whose output column a list is, if the statement could take fields of it.
func (w *rewriter) subselect(t *target) (*pg_query.SelectStmt, bool) {
	if t.direct || !w.takesFields() {
		return nil, false
	}
	if _, ok := in[*pg_query.ResTarget](t.site, 0, "val"); !ok {
		return nil, false
	}
	return in[*pg_query.SelectStmt](t.site, 1, "target_list")
}

// takesFields reports whether a field is taken of anything in parentheses.
func (w *rewriter) takesFields() bool {
	if !w.fieldsKnown {
		w.fieldsKnown = true
		for i := 1; i < len(w.tokens) && !w.fields; i++ {
			w.fields = w.tokens[i].kind == kDot && w.tokens[i-1].kind == kClose
		}
	}
	return w.fields
}

// isOnlyColumn reports whether a SELECT has one output column and no FROM, nor anything that changes what rows it has, so that the
// rows of its column may as well come from a FROM.
func isOnlyColumn(s *pg_query.SelectStmt) bool {
	if len(s.TargetList) != 1 || !has(s, "target_list", "sort_clause", "limit_offset", "limit_count", "limit_option", "op") {
		return false
	}
	for _, n := range s.SortClause {
		by := n.GetSortBy().GetNode()
		ref := by.GetColumnRef()
		if by.GetAConst() == nil && (ref == nil || len(ref.Fields) != 1 || ref.Fields[0].GetString_().GetSval() != columnName(s.TargetList[0].GetResTarget().Name, word)) {
			return false
		}
	}
	return true
}
