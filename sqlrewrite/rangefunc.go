package sqlrewrite

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// rangeFunction gives the item of FROM that a call is, and its number among the functions of a ROWS FROM.
func (s *site) rangeFunction() (*pg_query.RangeFunction, int) {
	list, ok := in[*pg_query.List](s, 0, "items")
	if !ok {
		return nil, 0
	}
	f, ok := in[*pg_query.RangeFunction](s, 1, "functions")
	if !ok {
		return nil, 0
	}
	for i, n := range f.Functions {
		if n.GetList() == list {
			return f, i
		}
	}
	return nil, 0
}

// definitions gives the column definitions that the client has for a function in FROM, in whichever place.
func definitions(f *pg_query.RangeFunction, item int) []*pg_query.Node {
	if len(f.Coldeflist) > 0 {
		return f.Coldeflist
	}
	if items := f.Functions[item].GetList().GetItems(); len(items) > 1 {
		return items[1].GetList().GetItems()
	}
	return nil
}

// replaceFrom replaces a call in FROM.
func (w *rewriter) replaceFrom(t *target, f *pg_query.RangeFunction, item int) {
	defined := definitions(f, item)
	end := w.end(t)
	switch {
	case t.form == formList && len(defined) > 0:
		// Postgres has an error for this, as for any function that names its columns.
		w.edit(t, t.at, end, text(sqlEach+"NULL::pg_catalog.json)"))
	case t.form == formList && f.IsRowsfrom:
		w.edit(t, t.at, end, text(sqlRowsOpen), w.use(Value{Kind: ValueRows}), text(sqlRowsClose))
	case t.form == formList:
		w.edit(t, t.at, end, text(sqlRecords), w.use(Value{Kind: ValueRows}), text(sqlRowsClose+")"))
	case len(f.Functions) > 1 && len(defined) == 0:
		// Beside other functions a column is named after its function, so it must be a record's.
		parts := append([]part{text("pg_catalog.json_to_record(pg_catalog.json_build_object('" + word + "', ")}, w.get(t)...)
		w.edit(t, t.at, end, append(parts, text(")) AS ("+word+" pg_catalog.text)"))...)
	case t.form == formLookup:
		w.edit(t, t.at, end, w.get(t)...)
	default:
		parts := append([]part{text("pg_catalog.textcat(")}, w.get(t)...)
		w.edit(t, t.at, end, append(parts, text(", '')"))...)
	}
	if f.Alias != nil || item > 0 || len(f.Coldeflist) > 0 {
		return
	}
	last := t.shape.close
	if f.IsRowsfrom {
		if up := w.tokens[t.shape.open].up; up >= 0 {
			last = int(w.tokens[up].match)
		}
	}
	if f.Ordinality && w.is(last+2, "ordinality") {
		last += 2
	}
	end = int(w.tokens[last].end)
	w.edit(t, end, end, text(sqlAlias))
}
