// Package sqlrewrite reads SQL text and says where it calls raftable(), what class of statement that
// is, what the calls do, and what postgres is to run in place of a statement that the table alone cannot
// answer. It is pure: no I/O, no clock, and no knowledge of sessions or of the table.
//
// What postgres is to run is the client's own text with pieces put in at the places of the calls, never a text
// written from the parse tree. So postgres does all typing and analysis, and its errors point at the client's
// own characters. The pieces name everything with its schema and are the same for all versions of PostgreSQL.
package sqlrewrite

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// maxText is a bound for the parser's 32-bit offsets; callers have far smaller ones.
const maxText = 1 << 30

// Parse says what a simple-query text or the text of a Parse message contains. It never fails: what
// PostgreSQL's parser cannot read, or must not be given for its size or shape, is ClassNone, and so is
// a text that is not UTF-8 or has a zero byte in it. It is safe for concurrent use; very large texts
// are parsed one at a time, and may take some seconds and 800 MB of memory.
func Parse(text string, o Options) *Plan {
	if len(text) > maxText || !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return &Plan{}
	}
	s := look(text, o)
	if !s.ok || len(s.names) == 0 && !s.commands && !s.executes {
		return &Plan{}
	}
	tree, err := parseTree(s.text, s.tokens)
	if err != nil {
		return &Plan{}
	}
	p := planner{text: text, survey: s, position: positions{text: text}, onServer: o.OnServer}
	return p.plan(tree.Stmts)
}

var bigTexts sync.Mutex

func parseTree(text string, tokens int) (*pg_query.ParseResult, error) {
	if tokens >= bigText {
		bigTexts.Lock()
		defer bigTexts.Unlock()
	}
	return pg_query.Parse(text)
}

// planner makes the plan of one text.
type planner struct {
	text     string
	survey   survey
	position positions
	tokens   tokenTable // of the statement that is rewritten
	onServer bool       // nothing is local
}

func (p *planner) plan(stmts []*pg_query.RawStmt) *Plan {
	plan := &Plan{Statements: make([]Statement, 0, len(stmts))}
	for _, raw := range stmts {
		start, end := p.rangeOf(raw)
		s := p.statement(raw, start, end)
		s.Start, s.End = start, end
		plan.Class = max(plan.Class, s.Class)
		plan.Statements = append(plan.Statements, s)
	}
	if p.survey.executes {
		plan.Executions = p.executions(stmts)
	}
	if plan.Class == ClassNone && len(plan.Executions) == 0 {
		return &Plan{}
	}
	for i, raw := range stmts {
		p.describe(raw, &plan.Statements[i])
	}
	return plan
}

// describe fills in what is known of any statement; its range is.
func (p *planner) describe(raw *pg_query.RawStmt, s *Statement) {
	s.Control, s.Fills = controlOf(raw.Stmt), fills(raw.Stmt)
	if fetch := raw.Stmt.GetFetchStmt(); fetch != nil && !fetch.Ismove {
		s.Fetches = fetch.Portalname
	}
	s.MaxParam = len(raw.Stmt.GetPrepareStmt().GetArgtypes())
	takes := takesParameters(raw.Stmt)
	if !takes && raw.Stmt.GetPrepareStmt() == nil {
		return
	}
	uses := p.survey.params
	first, _ := slices.BinarySearchFunc(uses, s.Start, func(u paramUse, at int) int { return u.at - at })
	for _, use := range uses[first:] {
		if use.at >= s.End {
			break
		}
		s.MaxParam = max(s.MaxParam, use.number)
		if takes && s.FirstParam == 0 {
			s.FirstParam = use.at
		}
	}
}

// takesParameters reports whether postgres looks for parameters of the client's when it analyses a statement.
func takesParameters(n *pg_query.Node) bool {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_SelectStmt, *pg_query.Node_InsertStmt, *pg_query.Node_UpdateStmt, *pg_query.Node_DeleteStmt, *pg_query.Node_MergeStmt,
		*pg_query.Node_DeclareCursorStmt, *pg_query.Node_CallStmt:
		return true
	case *pg_query.Node_ExplainStmt:
		return takesParameters(s.ExplainStmt.Query)
	case *pg_query.Node_CreateTableAsStmt:
		return takesParameters(s.CreateTableAsStmt.Query)
	}
	return false
}

// fills reports whether postgres runs a statement to its end before it answers: it may send rows of a SELECT while it finds them,
// unless there is one among its WITH queries that writes.
func fills(n *pg_query.Node) bool {
	sel := n.GetSelectStmt()
	if sel == nil || sel.IntoClause != nil {
		return true
	}
	for _, with := range sel.WithClause.GetCtes() {
		if with.GetCommonTableExpr().GetCtequery().GetSelectStmt() == nil {
			return true
		}
	}
	return false
}

// rangeOf gives the range of a statement in the text.
func (p *planner) rangeOf(raw *pg_query.RawStmt) (start, end int) {
	start, end = int(raw.StmtLocation), len(p.text)
	if raw.StmtLen > 0 {
		end = start + int(raw.StmtLen)
	}
	return start, end
}

// statement classifies the statement in [start, end).
func (p *planner) statement(raw *pg_query.RawStmt, start, end int) Statement {
	if p.survey.commands {
		if s := commandOf(raw.Stmt); s.Class != ClassNone {
			return s
		}
	}
	names := within(p.survey.names, start, end)
	if len(names) == 0 {
		return Statement{}
	}
	calls := findCalls(raw, names)
	if len(calls) == 0 {
		return Statement{}
	}
	if isDefinition(raw.Stmt) {
		return Statement{Class: ClassStored}
	}
	if !p.onServer && p.faithful(start, end) {
		local, refusal := p.local(raw.Stmt.GetSelectStmt(), calls)
		switch {
		case refusal == nil:
			s := Statement{Class: ClassLocal, Local: local}
			if len(local.Params) > 0 {
				s.Rewrite = p.rewrite(raw, calls, start, end).Rewrite
			}
			return s
		case refusal.Code != codeNotSupported:
			return refused(refusal)
		}
	}
	return p.rewrite(raw, calls, start, end)
}

// faithful reports whether a local answer would lack nothing that postgres says of a statement: it has warnings and notices for
// backslashes and for long names.
func (p *planner) faithful(start, end int) bool {
	return len(within(p.survey.long, start, end)) == 0 && len(within(p.survey.escapes, start, end)) == 0
}

// within gives the part of sorted offsets in [start, end).
func within(offsets []int, start, end int) []int {
	i, _ := slices.BinarySearch(offsets, start)
	j, _ := slices.BinarySearch(offsets, end)
	return offsets[i:max(i, j)]
}

// isDefinition reports whether postgres keeps the statement's expressions as part of an object.
func isDefinition(n *pg_query.Node) bool {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_CreateTableAsStmt:
		return s.CreateTableAsStmt.Objtype == pg_query.ObjectType_OBJECT_MATVIEW
	case *pg_query.Node_ViewStmt, *pg_query.Node_CreateFunctionStmt, *pg_query.Node_CreateTrigStmt,
		*pg_query.Node_RuleStmt, *pg_query.Node_CreatePolicyStmt, *pg_query.Node_AlterPolicyStmt,
		*pg_query.Node_CreateStmt, *pg_query.Node_CreateForeignTableStmt, *pg_query.Node_AlterTableStmt,
		*pg_query.Node_IndexStmt, *pg_query.Node_CreateStatsStmt, *pg_query.Node_CreateDomainStmt,
		*pg_query.Node_AlterDomainStmt, *pg_query.Node_CreateSchemaStmt, *pg_query.Node_CreatePublicationStmt,
		*pg_query.Node_AlterPublicationStmt:
		return true
	}
	return false
}

// positions turns byte offsets into the positions of PostgreSQL's messages: characters, from 1. It
// counts from the last offset it was asked for.
type positions struct {
	text         string
	offset, past int
}

func (p *positions) of(offset int) int {
	offset = min(max(offset, 0), len(p.text))
	if offset >= p.offset {
		p.past += utf8.RuneCountInString(p.text[p.offset:offset])
	} else {
		p.past -= utf8.RuneCountInString(p.text[offset:p.offset])
	}
	p.offset = offset
	return p.past + 1
}
