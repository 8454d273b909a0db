package sqlrewrite

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// maxColumns is PostgreSQL's limit of output columns.
const maxColumns = 1664

// local reads a statement that the table alone can answer: a SELECT with nothing but output columns,
// or with raftable() alone in FROM. Everything in it must be understood; sel is nil for a statement
// that is no SELECT.
func (p *planner) local(sel *pg_query.SelectStmt, calls []site) (*Local, *Refusal) {
	if !isPlainSelect(sel) {
		return nil, p.misplaced(calls)
	}
	if len(sel.FromClause) > 0 {
		return p.localFrom(sel, calls)
	}
	if len(sel.TargetList) > maxColumns {
		return nil, fail(0, "54011", "target lists can have at most %d entries", maxColumns)
	}
	l, next := &Local{}, 0
	for _, n := range sel.TargetList {
		target := n.GetResTarget()
		fn := target.GetVal().GetFuncCall()
		if !has(target, "name", "val", "location") || next == len(calls) || fn != calls[next].call {
			return nil, p.misplaced(calls)
		}
		next++
		c, refusal := p.readCall(fn)
		if refusal != nil {
			return nil, refusal
		}
		l.calls = append(l.calls, c)
		l.Columns = append(l.Columns, Column{Name: columnName(target.Name, word), Position: c.pos})
	}
	if refusal := l.resolveStatically(); refusal != nil {
		return nil, refusal
	}
	for i, c := range l.calls {
		l.Columns[i].Op, l.Columns[i].Args = c.op(), c.ordered()
	}
	return l, nil
}

// isPlainSelect reports whether a SELECT has nothing but output columns and perhaps FROM.
func isPlainSelect(sel *pg_query.SelectStmt) bool {
	return sel != nil && has(sel, "target_list", "from_clause", "limit_option", "op") && len(sel.TargetList) > 0 &&
		sel.LimitOption == pg_query.LimitOption_LIMIT_OPTION_DEFAULT && sel.Op == pg_query.SetOperation_SETOP_NONE
}

func columnName(alias, name string) string {
	if alias != "" {
		return alias
	}
	return name
}

// misplaced refuses a statement for the place of its calls: for a set that can never be served if there
// is one, otherwise for the first call.
func (p *planner) misplaced(calls []site) *Refusal {
	for _, c := range calls {
		if len(c.call.Args) > 1 && !c.isOutput() {
			return refuseSet(p.position.of(int(c.call.Location)))
		}
	}
	return refusePlace(p.position.of(int(calls[0].call.Location)))
}

// isOutput reports whether a call is an output column of the statement itself, in SELECT or RETURNING.
func (s site) isOutput() bool {
	if len(s.around) != 3 {
		return false
	}
	list := s.around[1].field
	return s.around[2].field == "val" && (list == "target_list" && isSelect(s.around[1]) || list == "returning_list")
}

func isSelect(s step) bool {
	_, ok := s.node.Interface().(*pg_query.SelectStmt)
	return ok
}

// op is what a call does; its arguments have been resolved.
func (c *call) op() Op {
	switch len(c.args) {
	case 0:
		return OpListRecord
	case 1:
		return OpGet
	}
	return OpSet
}

// ordered gives the arguments as key, value, timeout.
func (c *call) ordered() []Arg {
	if len(c.args) == 0 {
		return nil
	}
	args := make([]Arg, len(c.args))
	for _, a := range c.args {
		args[a.slot] = Arg{Param: a.param, Null: a.null, Value: a.value, Type: a.textType(), Position: a.pos}
	}
	return args
}
