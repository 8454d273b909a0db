package sqlrewrite

import (
	"slices"
	"strconv"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// call is a call as it is written. It keeps no part of the parse tree.
type call struct {
	name string // with the schema, if that is written
	pos  int
	args []argument // in the order of the text
	// The clauses that only aggregate and window functions can have.
	star, distinct, over bool
}

// argument is an argument as it is written.
type argument struct {
	name    string // in named notation
	namePos int
	pos     int
	isParam bool
	param   int
	null    bool
	value   string
	oid     uint32   // the type of a constant before casts
	casts   []uint32 // from the inside outwards; all of them text and varchar, or all int4
	slot    int      // which parameter of the function it is, once that is known
}

// textType is the type that the text gives the argument, 0 if none.
func (a *argument) textType() uint32 {
	if n := len(a.casts); n > 0 {
		return a.casts[n-1]
	}
	return a.oid
}

// readCall reads a call whose arguments are constants and parameters.
func (p *planner) readCall(fn *pg_query.FuncCall) (call, *Refusal) {
	c := call{
		name: funcName(fn), pos: p.position.of(int(fn.Location)),
		star: fn.AggStar, distinct: fn.AggDistinct, over: fn.Over != nil,
	}
	if !has(fn, "funcname", "args", "funcformat", "location", "agg_star", "agg_distinct", "over") ||
		fn.Funcformat != pg_query.CoercionForm_COERCE_EXPLICIT_CALL {
		return call{}, refusePlace(c.pos)
	}
	for _, n := range fn.Args {
		a, ok := p.readArgument(n)
		if !ok {
			return call{}, refuseArgument(c.pos)
		}
		c.args = append(c.args, a)
	}
	return c, nil
}

func funcName(fn *pg_query.FuncCall) string {
	var names []string
	for _, n := range fn.Funcname {
		names = append(names, n.GetString_().GetSval())
	}
	return strings.Join(names, ".")
}

// readArgument is not ok for an argument that is neither a constant nor a parameter.
func (p *planner) readArgument(n *pg_query.Node) (a argument, ok bool) {
	if named := n.GetNamedArgExpr(); named != nil {
		if !has(named, "arg", "name", "argnumber", "location") || named.Argnumber != -1 {
			return a, false
		}
		a.name, a.namePos = named.Name, p.position.of(int(named.Location))
		n = named.Arg
	}
	for cast := n.GetTypeCast(); cast != nil; cast = n.GetTypeCast() {
		oid := castTo(cast)
		if oid == oidUnresolved {
			return a, false
		}
		a.casts = append(a.casts, oid)
		n = cast.Arg
	}
	slices.Reverse(a.casts)
	switch n := n.GetNode().(type) {
	case *pg_query.Node_ParamRef:
		a.param, a.pos = int(n.ParamRef.Number), p.position.of(int(n.ParamRef.Location))
		a.isParam, ok = true, has(n.ParamRef, "number", "location")
	case *pg_query.Node_AConst:
		a.pos = p.position.of(int(n.AConst.Location))
		ok = p.readConstant(&a, n.AConst)
	}
	return a, ok && a.castsAgree()
}

// castTo is the type of a cast that is understood, or 0.
func castTo(cast *pg_query.TypeCast) uint32 {
	t := cast.TypeName
	if !has(cast, "arg", "type_name", "location") || !has(t, "names", "typemod", "location") || t.Typemod != -1 {
		return oidUnresolved
	}
	names := t.Names
	if len(names) == 2 && names[0].GetString_().GetSval() == "pg_catalog" {
		names = names[1:]
	}
	if len(names) != 1 {
		return oidUnresolved
	}
	switch names[0].GetString_().GetSval() {
	case "text":
		return oidText
	case "varchar":
		return oidVarchar
	case "int4":
		return oidInt4
	}
	return oidUnresolved
}

// castsAgree reports whether the casts do nothing to a value but give it a type.
func (a *argument) castsAgree() bool {
	for _, to := range a.casts {
		if isText(to) != isText(a.casts[0]) {
			return false
		}
	}
	if len(a.casts) == 0 || a.oid == oidUnresolved {
		return true
	}
	return a.oid == oidInt4 && a.casts[0] == oidInt4
}

// readConstant reads a constant and its type.
func (p *planner) readConstant(a *argument, c *pg_query.A_Const) bool {
	if !has(c, "isnull", "location", "ival", "fval", "boolval", "sval", "bsval") {
		return false
	}
	a.null = c.Isnull
	switch v := c.Val.(type) {
	case nil:
		return c.Isnull
	case *pg_query.A_Const_Sval:
		a.value = v.Sval.GetSval()
	case *pg_query.A_Const_Ival:
		a.oid, a.value = oidInt4, strconv.Itoa(int(v.Ival.GetIval()))
		return p.isPlainNumber(int(c.Location))
	case *pg_query.A_Const_Fval:
		a.oid, a.value = numberType(v.Fval.GetFval()), v.Fval.GetFval()
		return p.isPlainNumber(int(c.Location))
	case *pg_query.A_Const_Boolval:
		a.oid = oidBool
	case *pg_query.A_Const_Bsval:
		a.oid = oidBit
	default:
		return false
	}
	return true
}

// numberType is the type of a number that the parser does not take for an int4 at once.
func numberType(s string) uint32 {
	switch n, err := strconv.ParseInt(s, 10, 64); {
	case err != nil:
		return oidNumeric
	case n == int64(int32(n)):
		return oidInt4
	}
	return oidInt8
}

// isPlainNumber reports whether the number at offset, behind its signs, is spelled as every version of
// PostgreSQL reads it: no 0x10, no 1_000.
func (p *planner) isPlainNumber(offset int) bool {
	lex := lexer{text: p.text, at: offset}
	t := lex.next()
	for t.kind == kOp && p.text[t.start:t.end] == "-" {
		t = lex.next()
	}
	return t.kind == kNumber && strings.Trim(p.text[t.start:t.end], "0123456789.eE") == ""
}

// toInt4 reads an untyped constant as PostgreSQL's input function of integer does.
func (a *argument) toInt4() *Refusal {
	if a.null {
		return nil
	}
	s := strings.Trim(a.value, " \t\n\v\f\r")
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	if len(s)-len(digits) > 1 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		if strings.HasPrefix(digits, "0") || strings.Contains(digits, "_") {
			return refuseArgument(a.pos) // newer versions of PostgreSQL read 0x10 and 1_000
		}
		return fail(a.pos, "22P02", "invalid input syntax for type integer: \"%s\"", a.value)
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return fail(a.pos, "22003", "value \"%s\" is out of range for type integer", a.value)
	}
	a.value = strconv.FormatInt(n, 10)
	return nil
}
