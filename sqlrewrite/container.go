package sqlrewrite

import (
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// container is a statement without what is wrapped around it: EXPLAIN, PREPARE and the like.
type container struct {
	// inner is the statement that has the calls, depth the number of steps from the root to its fields.
	inner protoreflect.Message
	depth int
	// known says that the statement is of a kind that can be served.
	known bool
	// literals says that postgres takes no parameters in it.
	literals bool
	// explain says that nothing runs, analyze that it runs but shows no rows.
	explain, analyze bool
	// prepares is the name of a prepared statement, types the number of types that are declared for it.
	prepares string
	types    int
	// keeps says that the rows go elsewhere: into a table, a cursor or a COPY.
	keeps bool
}

// open unwraps a statement.
func open(raw *pg_query.RawStmt) container {
	c := container{inner: raw.ProtoReflect(), depth: 1}
	for n := raw.Stmt; n != nil; {
		var next *pg_query.Node
		switch s := n.Node.(type) {
		case *pg_query.Node_SelectStmt:
			c.inner, c.known = s.SelectStmt.ProtoReflect(), true
			c.keeps = c.keeps || s.SelectStmt.IntoClause != nil
		case *pg_query.Node_InsertStmt:
			c.inner, c.known = s.InsertStmt.ProtoReflect(), true
		case *pg_query.Node_UpdateStmt:
			c.inner, c.known = s.UpdateStmt.ProtoReflect(), true
		case *pg_query.Node_DeleteStmt:
			c.inner, c.known = s.DeleteStmt.ProtoReflect(), true
		case *pg_query.Node_MergeStmt:
			c.inner, c.known = s.MergeStmt.ProtoReflect(), true
		case *pg_query.Node_CallStmt:
			c.inner, c.known = s.CallStmt.ProtoReflect(), true
		case *pg_query.Node_ExecuteStmt:
			c.inner, c.known, c.literals = s.ExecuteStmt.ProtoReflect(), true, true
		case *pg_query.Node_ExplainStmt:
			c.explain, c.analyze = true, analyzes(s.ExplainStmt)
			next = s.ExplainStmt.Query
		case *pg_query.Node_PrepareStmt:
			c.prepares, c.types = s.PrepareStmt.Name, len(s.PrepareStmt.Argtypes)
			next = s.PrepareStmt.Query
		case *pg_query.Node_DeclareCursorStmt:
			c.keeps, next = true, s.DeclareCursorStmt.Query
		case *pg_query.Node_CreateTableAsStmt:
			c.keeps, next = true, s.CreateTableAsStmt.Query
		case *pg_query.Node_CopyStmt:
			c.keeps, c.literals = true, true
			if next = s.CopyStmt.Query; next == nil {
				c.inner, c.known = s.CopyStmt.ProtoReflect(), true
			}
		}
		if next != nil {
			c.depth++
		}
		n = next
	}
	return c
}

// analyzes reports whether an EXPLAIN runs its statement.
func analyzes(s *pg_query.ExplainStmt) bool {
	on := false
	for _, o := range s.Options {
		d := o.GetDefElem()
		if d.GetDefname() != "analyze" {
			continue
		}
		switch v := d.GetArg().GetNode().(type) {
		case *pg_query.Node_String_:
			on = strings.EqualFold(v.String_.Sval, "true") || strings.EqualFold(v.String_.Sval, "on")
		case *pg_query.Node_Integer:
			on = v.Integer.Ival != 0
		default:
			on = true
		}
	}
	return on
}

// column gives the number of the output column of the container's statement that a site lies in, -1 if in none.
func (c *container) column(s *site) (target *pg_query.ResTarget, direct bool) {
	if len(s.around) < c.depth+2 || s.around[c.depth].node != c.inner {
		return nil, false
	}
	switch s.around[c.depth].field {
	case "target_list":
		if !isSelect(s.around[c.depth]) {
			return nil, false
		}
	case "returning_list":
	default:
		return nil, false
	}
	target, _ = s.around[c.depth+1].node.Interface().(*pg_query.ResTarget)
	return target, len(s.around) == c.depth+2
}

// columns are the output columns of the container's statement.
func (c *container) columns() []*pg_query.Node {
	switch s := c.inner.Interface().(type) {
	case *pg_query.SelectStmt:
		return s.TargetList
	case *pg_query.InsertStmt:
		return s.ReturningList
	case *pg_query.UpdateStmt:
		return s.ReturningList
	case *pg_query.DeleteStmt:
		return s.ReturningList
	case *pg_query.MergeStmt:
		return s.ReturningList
	}
	return nil
}

// oneRow are functions that give one row, so that a SELECT without FROM that calls no others has one.
var oneRow = strings.Fields(`raftable array_agg avg bool_and bool_or char_length clock_timestamp concat concat_ws count
	current_setting date_trunc encode format gen_random_uuid json_agg json_build_array json_build_object jsonb_agg
	jsonb_build_array jsonb_build_object jsonb_set left length lower lpad ltrim btrim rtrim max md5 min nextval now replace right
	round rpad split_part statement_timestamp string_agg substr substring sum to_char to_json to_jsonb upper`)

// single reports whether the statement has at most one row, as far as one can see.
func (c *container) single() bool {
	s, ok := c.inner.Interface().(*pg_query.SelectStmt)
	if !ok || len(s.FromClause) > 0 || len(s.ValuesLists) > 0 || s.Op != pg_query.SetOperation_SETOP_NONE {
		return false
	}
	for _, n := range s.TargetList {
		if !eachCall(n.ProtoReflect(), func(f *pg_query.FuncCall) bool {
			return slices.Contains(oneRow, f.Funcname[len(f.Funcname)-1].GetString_().GetSval())
		}) {
			return false
		}
	}
	return true
}

// eachCall reports whether all calls in a part of the tree are as they should be.
func eachCall(m protoreflect.Message, good func(*pg_query.FuncCall) bool) bool {
	if f, ok := m.Interface().(*pg_query.FuncCall); ok && !good(f) {
		return false
	}
	all := true
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i, list := 0, v.List(); i < list.Len() && all; i++ {
				all = eachCall(list.Get(i).Message(), good)
			}
		default:
			all = eachCall(v.Message(), good)
		}
		return all
	})
	return all
}

// last gives the step that leads to the call, from the inside: 0 is the innermost.
func (s *site) last(n int) step {
	if n >= len(s.around) {
		return step{}
	}
	return s.around[len(s.around)-1-n]
}

// in reports whether step n from the inside is a field of a node of a type.
func in[T any](s *site, n int, field protoreflect.Name) (node T, ok bool) {
	l := s.last(n)
	if l.node == nil || l.field != field && field != "" {
		return node, false
	}
	node, ok = l.node.Interface().(T)
	return node, ok
}

// noSubselect reports whether a call stands where postgres takes no sub-select, or would take one for more than a value.
func (s *site) noSubselect() bool {
	if e, ok := in[*pg_query.A_Expr](s, 0, "rexpr"); ok &&
		(e.Kind == pg_query.A_Expr_Kind_AEXPR_OP_ANY || e.Kind == pg_query.A_Expr_Kind_AEXPR_OP_ALL) {
		return true
	}
	if l, ok := in[*pg_query.List](s, 0, "items"); ok && len(l.Items) == 1 {
		if e, ok := in[*pg_query.A_Expr](s, 1, "rexpr"); ok && e.Kind == pg_query.A_Expr_Kind_AEXPR_IN {
			return true
		}
	}
	if _, ok := in[*pg_query.MultiAssignRef](s, 0, "source"); ok {
		return true
	}
	for _, a := range s.around {
		switch a.node.Interface().(type) {
		case *pg_query.CallStmt, *pg_query.ExecuteStmt, *pg_query.InferClause:
			return true
		case *pg_query.CopyStmt:
			if a.field == "where_clause" {
				return true
			}
		}
	}
	return false
}

// names gives the output column that would be named after the call, nil if there is none.
func (s *site) names() *pg_query.ResTarget {
	n := 0
	for ; ; n++ {
		l := s.last(n)
		if l.node == nil {
			return nil
		}
		switch node := l.node.Interface().(type) {
		case *pg_query.TypeCast, *pg_query.CollateClause:
			continue
		case *pg_query.A_Indirection:
			for _, i := range node.Indirection {
				if i.GetString_() != nil || i.GetAStar() != nil {
					return nil
				}
			}
			if l.field == "arg" {
				continue
			}
		case *pg_query.CaseExpr:
			if l.field == "defresult" {
				continue
			}
		case *pg_query.ResTarget:
			list := s.last(n + 1)
			if l.field != "val" || node.Name != "" || list.field != "returning_list" && (list.field != "target_list" || !isSelect(list)) {
				return nil
			}
			return node
		}
		return nil
	}
}

// inSubselect reports whether a call is part of an output column of a sub-select in FROM or of a CTE.
func (s *site) inSubselect() bool {
	inside := false
	for _, step := range s.around {
		switch step.node.Interface().(type) {
		case *pg_query.RangeSubselect, *pg_query.CommonTableExpr:
			inside = true
		case *pg_query.SelectStmt:
			if inside && step.field == "target_list" {
				return true
			}
		}
	}
	return false
}

// infers reports whether a call helps to choose an index for ON CONFLICT, which a volatile function never does: postgres would
// take the value of a parameter for a constant.
func (s *site) infers() bool {
	return slices.ContainsFunc(s.around, func(st step) bool {
		_, ok := st.node.Interface().(*pg_query.InferClause)
		return ok
	})
}

// decides reports whether a call is in a condition that has no column, and that it matters when postgres evaluates it. Postgres
// does so first, or even when it plans the statement, unless a volatile function is in it. That is seen if it fails, as a cast might
// to which no row would ever have come. And what a condition keeps from being evaluated does not fail: scalars says whether there is
// such a thing.
func (s *site) decides(scalars func() bool) bool {
	at := len(s.around) - 1
	for ; at >= 0; at-- {
		a := s.around[at]
		if a.field == "where_clause" || a.field == "having_clause" || a.field == "quals" {
			break
		}
		if _, ok := a.node.Interface().(*pg_query.SubLink); ok && a.field == "subselect" {
			return false // it is evaluated once, by itself
		}
	}
	if at < 0 {
		return false
	}
	// Postgres takes AND, OR and NOT apart where it can: what is below them may become a condition of its own.
	inside := s.around[at+1:]
	for len(inside) > 0 && isLogic(inside[0]) {
		inside = inside[1:]
	}
	if len(inside) > 0 && hasOwnColumn(inside[0].node) {
		return false
	}
	return slices.ContainsFunc(inside, mayFail) || scalars()
}

func isLogic(st step) bool {
	_, ok := st.node.Interface().(*pg_query.BoolExpr)
	return ok
}

// mayFail reports whether an expression around a call might fail for some of its values. Comparisons of text never do.
func mayFail(st step) bool {
	switch e := st.node.Interface().(type) {
	case *pg_query.BoolExpr, *pg_query.NullTest, *pg_query.List:
		return false
	case *pg_query.TypeCast:
		name := e.TypeName.GetNames()
		return len(name) == 0 || !slices.Contains([]string{"text", "varchar"}, name[len(name)-1].GetString_().GetSval())
	case *pg_query.A_Expr:
		switch e.Kind {
		case pg_query.A_Expr_Kind_AEXPR_OP, pg_query.A_Expr_Kind_AEXPR_IN, pg_query.A_Expr_Kind_AEXPR_DISTINCT,
			pg_query.A_Expr_Kind_AEXPR_NOT_DISTINCT:
			return len(e.Name) != 1 || !slices.Contains([]string{"=", "<>", "<", "<=", ">", ">="}, e.Name[0].GetString_().GetSval())
		}
	}
	return true
}

// compared reports whether a call is an operand of a comparison that is a condition of WHERE or ON, or one of several. There a
// sub-select would do nothing but cost: it keeps postgres from evaluating what stands around a value when it plans. Elsewhere that
// could be seen: an error would come too soon, and a CASE that is decided has another type modifier.
func (s *site) compared() bool {
	last := len(s.around) - 1
	e, ok := s.around[last].node.Interface().(*pg_query.A_Expr)
	if !ok || e.Kind != pg_query.A_Expr_Kind_AEXPR_OP || len(e.Name) != 1 {
		return false
	}
	switch e.Name[0].GetString_().GetSval() {
	case "=", "<>", "<", ">", "<=", ">=":
	default:
		return false
	}
	for i := last - 1; i >= 0; i-- {
		switch s.around[i].node.Interface().(type) {
		case *pg_query.BoolExpr:
		case *pg_query.SelectStmt, *pg_query.UpdateStmt, *pg_query.DeleteStmt:
			return s.around[i].field == "where_clause"
		case *pg_query.JoinExpr:
			return s.around[i].field == "quals"
		default:
			return false
		}
	}
	return false
}
