package sqlrewrite

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// relation is raftable() or raftable(key) in FROM, as the output columns see it.
type relation struct {
	name    string
	columns []string
	// scalar is a function without a row type: its name alone is its only column.
	scalar bool
}

// localFrom reads a SELECT with one call in FROM and columns of it as output.
func (p *planner) localFrom(sel *pg_query.SelectStmt, calls []site) (*Local, *Refusal) {
	fn, alias := loneFunction(sel.FromClause)
	if fn == nil || len(calls) != 1 || calls[0].call != fn {
		return nil, p.misplaced(calls)
	}
	c, refusal := p.readCall(fn)
	if refusal != nil {
		return nil, refusal
	}
	l := &Local{calls: []call{c}}
	if refusal := l.resolveStatically(); refusal != nil {
		return nil, refusal
	}
	op := l.calls[0].op()
	if op == OpSet {
		return nil, refuseSet(c.pos)
	}
	r := relation{name: columnName(alias.GetAliasname(), word), columns: []string{"key", "value"}}
	if op == OpGet {
		r.scalar, r.columns = true, []string{r.name}
	}
	if refusal := r.rename(alias.GetColnames()); refusal != nil {
		return nil, refusal
	}
	if l.Columns, refusal = p.outputs(sel.TargetList, r); refusal != nil {
		return nil, refusal
	}
	l.From = !r.scalar
	if r.scalar && len(l.Columns) > 1 {
		// Two gets might not see the same table.
		return nil, refuseOutput(c.pos)
	}
	for i := range l.Columns {
		col := &l.Columns[i]
		col.Position = c.pos
		if r.scalar {
			col.Op, col.Args = OpGet, l.calls[0].ordered()
		}
	}
	return l, nil
}

// loneFunction gives the function that FROM consists of, and its alias if it has one.
func loneFunction(from []*pg_query.Node) (*pg_query.FuncCall, *pg_query.Alias) {
	if len(from) != 1 {
		return nil, nil
	}
	f := from[0].GetRangeFunction()
	if f == nil || !has(f, "functions", "alias") || len(f.Functions) != 1 {
		return nil, nil
	}
	// The second item would be the column definitions of the function inside ROWS FROM.
	items := f.Functions[0].GetList().GetItems()
	if len(items) != 2 || items[1].GetNode() != nil || f.Alias != nil && !has(f.Alias, "aliasname", "colnames") {
		return nil, nil
	}
	return items[0].GetFuncCall(), f.Alias
}

// rename gives the first columns the names that the alias has for them.
func (r *relation) rename(names []*pg_query.Node) *Refusal {
	if len(names) > len(r.columns) {
		return fail(0, "42P10", "table \"%s\" has %d columns available but %d columns specified", r.name, len(r.columns), len(names))
	}
	for i, n := range names {
		r.columns[i] = n.GetString_().GetSval()
	}
	return nil
}

// outputs resolves the output columns against the relation.
func (p *planner) outputs(targets []*pg_query.Node, r relation) ([]Column, *Refusal) {
	var columns []Column
	for _, n := range targets {
		target := n.GetResTarget()
		ref := target.GetVal().GetColumnRef()
		if !has(target, "name", "val", "location") || ref == nil || !has(ref, "fields", "location") {
			return nil, refuseOutput(p.position.of(int(target.GetLocation())))
		}
		places, name, refusal := r.find(ref.Fields, p.position.of(int(ref.Location)))
		if refusal != nil {
			return nil, refusal
		}
		for _, place := range places {
			col := Column{Name: columnName(target.Name, name), Op: OpKey + Op(place)}
			if name == "" {
				col.Name = r.columns[place] // a star takes no alias; PostgreSQL ignores it
			}
			columns = append(columns, col)
		}
		if len(columns) > maxColumns {
			return nil, fail(0, "54011", "target lists can have at most %d entries", maxColumns)
		}
	}
	return columns, nil
}

// find gives the places of the columns that a reference at pos means, and its last name, which is empty
// for a star.
func (r *relation) find(fields []*pg_query.Node, pos int) (places []int, name string, refusal *Refusal) {
	last := fields[len(fields)-1]
	name = last.GetString_().GetSval()
	switch {
	case len(fields) > 2 || last.GetAStar() == nil && last.GetString_() == nil:
		return nil, "", refuseOutput(pos)
	case len(fields) == 2 && fields[0].GetString_().GetSval() != r.name:
		return nil, "", fail(pos, "42P01", "missing FROM-clause entry for table \"%s\"", fields[0].GetString_().GetSval())
	case last.GetAStar() != nil:
		for i := range r.columns {
			places = append(places, i)
		}
		return places, "", nil
	}
	for i, column := range r.columns {
		if column == name {
			places = append(places, i)
		}
	}
	switch {
	case len(places) == 1:
		return places, name, nil
	case len(places) > 1:
		return nil, "", fail(pos, "42702", "column reference \"%s\" is ambiguous", name)
	case len(fields) == 2:
		// It might be a function of the row.
		return nil, "", refuseOutput(pos)
	case name == r.name && r.scalar:
		return []int{0}, name, nil
	case name == r.name:
		return nil, "", refuseOutput(pos)
	}
	return nil, "", r.noColumn(name, pos)
}

// noColumn is PostgreSQL's error for a column that does not exist, with a hint at names that are close
// to it.
func (r *relation) noColumn(name string, pos int) *Refusal {
	const tooFar = 4
	f := fail(pos, "42703", "column \"%s\" does not exist", name)
	best, near := tooFar, []string(nil)
	for _, column := range r.columns {
		switch d := distance([]rune(column), []rune(name)); {
		case d > len(name)/2 || d > best || d == tooFar:
		case d < best:
			best, near = d, []string{column}
		default:
			near = append(near, column)
		}
	}
	switch len(near) {
	case 1:
		f.Hint = "Perhaps you meant to reference the column \"" + r.name + "." + near[0] + "\"."
	case 2:
		f.Hint = "Perhaps you meant to reference the column \"" + r.name + "." + near[0] +
			"\" or the column \"" + r.name + "." + near[1] + "\"."
	}
	return f
}

// distance is the number of characters to insert, delete or replace to make a from b.
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, ca := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, cb := range b {
			cost := diagonal
			if ca != cb {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
