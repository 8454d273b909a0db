package sqlrewrite

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// Execution is an EXECUTE of a prepared statement in a text.
type Execution struct {
	// Statement is the number of the statement among those of the text, from 0; empty ones do not count.
	Statement int
	// Name is the prepared statement's.
	Name string
	// Start and End are the statement's byte range in the text, as in Statement.
	Start, End int
	// At is the offset where further arguments go: behind the last one, or behind the name where Args is 0 and
	// there are no parentheses.
	At int
	// Args is how many arguments it has, which begin at Open.
	Args, Open int
	// Explain says that it stands in an EXPLAIN, Analyze that this one runs it, Into that its rows go to a new table.
	Explain, Analyze, Into bool
}

// executions finds the EXECUTE statements.
func (p *planner) executions(stmts []*pg_query.RawStmt) []Execution {
	var found []Execution
	for i, raw := range stmts {
		start, end := p.rangeOf(raw)
		e := Execution{Statement: i, Start: start, End: end}
		if n := e.unwrap(raw.Stmt); n != nil {
			e.Name, e.Args = n.Name, len(n.Params)
			p.tokens = p.tokenize(start, end)
			if p.placeArguments(&e) {
				found = append(found, e)
			}
		}
	}
	return found
}

// unwrap gives the EXECUTE that a statement is or has, nil if there is none.
func (e *Execution) unwrap(n *pg_query.Node) *pg_query.ExecuteStmt {
	for {
		switch s := n.GetNode().(type) {
		case *pg_query.Node_ExecuteStmt:
			return s.ExecuteStmt
		case *pg_query.Node_ExplainStmt:
			e.Explain, e.Analyze = true, analyzes(s.ExplainStmt)
			n = s.ExplainStmt.Query
		case *pg_query.Node_CreateTableAsStmt:
			e.Into = true
			n = s.CreateTableAsStmt.Query
		default:
			return nil
		}
	}
}

// placeArguments finds the place for further arguments among the statement's tokens.
func (p *planner) placeArguments(e *Execution) bool {
	for k := range p.tokens {
		if p.tokens[k].up >= 0 || !p.is(k, "execute") || e.Into && !p.is(k-1, "as") || k+1 == len(p.tokens) {
			continue
		}
		name := k + 1
		if open := name + 1; open < len(p.tokens) && p.tokens[open].kind == kOpen {
			closing := int(p.tokens[open].match)
			e.Open, e.At = int(p.tokens[open].end), int(p.tokens[closing-1].end)
			return e.Args > 0
		}
		e.At = int(p.tokens[name].end)
		return e.Args == 0
	}
	return false
}
