package sqlrewrite

import (
	"fmt"
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// form is what stands in the place of a call.
type form uint8

const (
	// formLeave leaves the call to postgres, which has an error for it.
	formLeave form = iota
	// formGet is a value that is known beforehand.
	formGet
	// formLookup is a value looked up in the whole table, by a key that postgres computes.
	formLookup
	// formList is raftable() in an expression.
	formList
	// formStar and formClause are calls as if the function were an aggregate: postgres has an error for them.
	formStar
	formClause
	// formArray is the array of arguments of a call that is run for each row.
	formArray
)

// The SQL that stands around values and arguments. All names have their schema, so that no search path changes them.
const (
	sqlText      = "::pg_catalog.text"
	sqlKeyOpen   = `pg_catalog."varchar"(`
	sqlKeyClose  = ", -1, false)"
	sqlLookup    = "pg_catalog.jsonb_object_field_text("
	sqlStar      = "pg_catalog.now"
	sqlClause    = "pg_catalog.concat("
	sqlEach      = "pg_catalog.json_each_text("
	sqlVarchar   = `::pg_catalog."varchar"`
	sqlRecords   = "ROWS FROM (pg_catalog.json_to_recordset("
	sqlRowsOpen  = "pg_catalog.json_to_recordset("
	sqlRowsClose = "::pg_catalog.json) AS (key pg_catalog.varchar, value pg_catalog.text)"
	sqlAlias     = " AS " + word
)

// target is a call that is looked at for replacement.
type target struct {
	*site
	at     int // of the name, in bytes
	number int // in Rewrite.Calls
	shape  shape
	args   []callArg
	form   form
	column *pg_query.ResTarget // the output column of the statement that it lies in
	direct bool                // it is that column
	simple bool                // postgres cannot take a sub-select in its place
	plain  bool                // a get that is a parameter and no sub-select, a look-up that postgres may evaluate when it plans
	// volatile: postgres must see that it is none of the things that it may evaluate when it likes.
	volatile bool
	isSet    bool
}

// callArg is an argument of a call that is looked at for replacement.
type callArg struct {
	argument
	known bool // a constant or a parameter, and argument says which
	slot  int
}

// end is the byte behind the call's parenthesis, without the clauses that may follow.
func (p *planner) end(t *target) int { return int(p.tokens[t.shape.close].end) }

// rewriter makes the rewrite of one statement.
type rewriter struct {
	*planner
	container
	targets []target
	out     *Rewrite
	edits   []edit
	values  map[valueKey]int
	// lookups says that keys that are parameters are not values of their own.
	lookups   bool
	harvest   bool // sets run row by row
	plainGets bool // no get is a sub-select
	// fields says that a field is taken somewhere, fieldsKnown that one has looked.
	fields, fieldsKnown bool
	// scalars says that a sub-select stands for a value somewhere, scalarsKnown that one has looked.
	scalars, scalarsKnown bool
}

// hasScalars reports whether a sub-select stands for a value somewhere in the statement. That it has two rows is an error that
// a client sees or not, depending on whether it is evaluated.
func (w *rewriter) hasScalars() bool {
	if !w.scalarsKnown {
		w.scalars, w.scalarsKnown = hasScalarSubselect(w.inner), true
	}
	return w.scalars
}

// valueKey says which values are the same. Calls that are spelled in other ways are different expressions to postgres, and so are
// their values: it matters in GROUP BY.
type valueKey struct {
	kind  ValueKind
	key   string
	null  bool
	param int
	typ   uint32
	named bool
}

// maxValues is how many keys a statement may have. Each is a parameter, of which the protocol can number 65535, the client's among
// them.
const maxValues = 50_000

// rewrite plans a statement in which postgres runs all but the calls.
func (p *planner) rewrite(raw *pg_query.RawStmt, calls []site, start, end int) Statement {
	w := rewriter{planner: p, container: open(raw), out: &Rewrite{}, values: map[valueKey]int{}}
	if !w.known {
		return refused(refusePlace(p.position.of(int(calls[0].call.Location))))
	}
	p.tokens = p.tokenize(start, end)
	w.lookups = w.prepares != ""
	if refusal := w.classify(calls); refusal != nil {
		return refused(refusal)
	}
	if refusal := w.checkHarvest(); refusal != nil {
		return refused(refusal)
	}
	if len(w.targets) == 0 {
		return Statement{} // postgres has an error for all of them
	}
	conflicts := w.findConflicts()
	if w.prepares != "" && len(conflicts) > 0 {
		return refused(conflicts[0].refusal) // it has the declared types itself
	}
	r := w.assemble(start, end)
	if len(r.Values) > maxValues {
		return refused(&Refusal{Code: "54000", Message: fmt.Sprintf("raftable() is called with more than %d different keys in one statement", maxValues),
			Detail: "Nothing was executed.", Hint: "Join the list, as in SELECT ... FROM raftable() AS r WHERE r.key = ..."})
	}
	r.conflicts = conflicts
	if r.evaluated != nil {
		r.evaluated.conflicts = conflicts
	}
	s := Statement{Class: ClassRewritten, Rewrite: r}
	if len(r.Harvest) > 0 {
		s.Class = ClassHarvested
	}
	return s
}

func refused(r *Refusal) Statement { return Statement{Class: ClassRefused, Refusal: r} }

// assemble makes the pieces, and those of the variant for parameters of other types if there can be any.
func (w *rewriter) assemble(start, end int) *Rewrite {
	r := w.pieces(start, end)
	if slices.ContainsFunc(r.Values, func(v Value) bool { return v.Kind == ValueGet && v.Key.Param > 0 }) {
		w.lookups = true
		r.evaluated = w.pieces(start, end)
	}
	return r
}

func (w *rewriter) pieces(start, end int) *Rewrite {
	w.out = &Rewrite{Literals: w.literals, Prepares: w.prepares}
	w.edits, w.values = w.edits[:0], map[valueKey]int{}
	w.out.Calls = make([]Replaced, 0, len(w.targets))
	for i := range w.targets {
		t := &w.targets[i]
		t.number = len(w.out.Calls)
		w.out.Calls = append(w.out.Calls, w.replaced(t))
		w.replace(t)
	}
	w.emit(start, end)
	return w.out
}

func (w *rewriter) replaced(t *target) Replaced {
	r := Replaced{Name: funcName(t.call), Position: w.position.of(t.at)}
	for _, a := range t.args {
		typ := "unknown"
		if a.known {
			typ, _ = typeName(a.textType())
		} else if a.slot < len(signature) {
			typ, _ = typeName([]uint32{oidText, oidText, oidInt4}[a.slot])
		}
		bare := 0
		if a.known && a.isParam && len(a.casts) == 0 {
			bare = a.param
		}
		r.args = append(r.args, replacedArg{name: a.name, slot: a.slot, typ: typ, param: bare})
	}
	return r
}

// value gives the number of a value, which equal ones share.
func (w *rewriter) value(v Value, named bool) int {
	k := valueKey{v.Kind, v.Key.Value, v.Key.Null, v.Key.Param, v.Key.Type, named}
	if n, ok := w.values[k]; ok {
		return n
	}
	n := len(w.out.Values)
	w.values[k] = n
	w.out.Values = append(w.out.Values, v)
	return n
}

// replace says what stands in the place of a call.
func (w *rewriter) replace(t *target) {
	if t.form == formGet && w.lookups && t.args[0].isParam {
		t.form = formLookup
		defer func() { t.form = formGet }()
	}
	if f, item := t.rangeFunction(); f != nil {
		w.replaceFrom(t, f, item)
		return
	}
	switch t.form {
	case formArray:
		w.replaceByArray(t)
		return
	case formStar:
		open := w.tokens.at(t.at)
		for w.tokens[open].kind != kOpen {
			open++
		}
		w.edit(t, t.at, int(w.tokens[open].start), text(sqlStar))
		return
	case formClause:
		w.edit(t, t.at, w.end(t), w.aggregate(t)...)
		return
	case formList:
		w.replaceList(t)
		return
	default:
		w.edit(t, t.at, w.end(t), w.get(t)...)
	}
	if t.form != formGet || t.plain {
		w.nameColumn(t)
	}
}

// get is the SQL of a get.
func (w *rewriter) get(t *target) []part {
	a := &t.args[0]
	if t.form == formLookup {
		s := t.shape
		parts := []part{text(sqlLookup)}
		if t.call.AggDistinct {
			parts[0].text += "DISTINCT "
		}
		length := ", -1, "
		if t.volatile || !t.plain && (t.inSubselect() || !hasColumn(t.call.ProtoReflect())) {
			length = sqlNoLength
		}
		return append(parts, w.use(Value{Kind: ValueObject}), text("::pg_catalog.jsonb, "+sqlKeyOpen),
			client(s.args[0]), text(length+"false)"), client(span{s.args[0].end, w.end(t)}))
	}
	arg := Arg{Param: a.param, Null: a.null, Value: a.value, Type: a.textType(), Position: a.pos}
	v := part{kind: PieceValue, value: w.value(Value{Kind: ValueGet, Key: arg}, a.name != "")}
	before, after := "(SELECT ", sqlText+" AS "+word+")"
	if t.inSubselect() {
		after = sqlText + " AS " + word + sqlVolatile + ")"
	}
	if t.volatile {
		before, after = "(CASE WHEN pg_catalog.clock_timestamp() IS NOT NULL THEN ", sqlText+" END)"
	} else if t.plain {
		before, after = "(", sqlText+")"
	} else if w.inParentheses(t) {
		after += sqlText // so that they are not those of the sub-select, which would be where they are
	}
	if !a.isParam && !slices.Contains(a.casts, oidText) {
		return []part{text(before), v, text(after)}
	}
	// Postgres sees the argument in a place that is never run but decides the type of a parameter, and where a cast to a
	// type of the session's own that is named text is an error.
	return []part{
		text(before + "CASE WHEN false THEN " + sqlKeyOpen), client(t.shape.args[0]), text(sqlKeyClose + " ELSE "), v,
		text(sqlText + " END" + after[len(sqlText):]),
	}
}

// inParentheses reports whether a call stands in parentheses by itself.
func (w *rewriter) inParentheses(t *target) bool {
	before, behind := w.tokens.at(t.at)-1, t.shape.close+1
	if before < 0 || behind >= len(w.tokens) || w.tokens[before].kind != kOpen || w.tokens[behind].kind != kClose {
		return false
	}
	_, argument := in[*pg_query.FuncCall](t.site, 0, "args")
	return !argument || before > 0 && w.tokens[before-1].kind == kOpen
}

// How each argument is wrapped, so that postgres takes what the function would take.
var (
	opens  = [...]string{sqlKeyOpen, "pg_catalog.textcat(", "pg_catalog.int4pl("}
	closes = [...]string{sqlKeyClose + sqlText, ", '')" + sqlText, ", 0)" + sqlText}
)

// aggregate is a set that is called like an aggregate.
func (w *rewriter) aggregate(t *target) []part {
	before := sqlClause
	if t.call.AggDistinct {
		before += "DISTINCT "
	}
	var parts []part
	for i, a := range t.args {
		parts = append(parts, text(before+opens[a.slot]), client(t.shape.args[i]), text(closes[a.slot]))
		before = ", "
	}
	return append(parts, client(span{t.shape.args[len(t.args)-1].end, w.end(t)}))
}

// replaceByArray makes an output column of the arguments.
func (w *rewriter) replaceByArray(t *target) {
	before := "ARRAY["
	var parts []part
	for slot := range t.args {
		parts = append(parts, text(before+opens[slot]), client(t.argument(slot)))
		if slot == 0 {
			parts = append(append(append(parts, text(sqlNoLength)), w.check(t)...), text(")"+sqlText))
		} else {
			parts = append(parts, text(closes[slot]))
		}
		before = ", "
	}
	h := Harvest{Op: OpSet, Name: cut(columnName(t.column.Name, word)), Args: len(t.args), Position: w.position.of(t.at)}
	if len(t.args) == 1 {
		h.Op = OpGet
	}
	name := text(` AS "` + HarvestName(len(w.out.Harvest)) + `"`)
	if w.harvest {
		w.out.Harvest = append(w.out.Harvest, h)
	}
	w.edit(t, t.at, w.end(t), append(parts, text("]"))...)
	w.edit(t, w.columnEnd(t), w.targetEnd(int(t.column.Location)), name)
}

// argument gives the text of the argument that is parameter number slot of the function.
func (t *target) argument(slot int) span {
	i := slices.IndexFunc(t.args, func(a callArg) bool { return a.slot == slot })
	return t.shape.args[i]
}

// check is a condition that is false, and is never run. If there are several arguments of which only postgres knows the type, it
// has a call with all of them, so that the error about one of a wrong type names those of the others.
func (w *rewriter) check(t *target) []part {
	unknown := 0
	for i := range t.args {
		a, s := &t.args[i], t.shape.args[i]
		switch {
		case len(within(w.survey.escapes, s.start, s.end)) > 0, len(within(w.survey.long, s.start, s.end)) > 0:
			return []part{text("false")} // postgres would give its notice twice
		case !a.known:
			unknown++
		case a.slot == 0 && a.isParam && len(a.casts) == 0:
			return []part{text("false")} // the parameter must get its type from the key's place
		}
	}
	if unknown < 2 {
		return []part{text("false")}
	}
	c := &checks[len(t.args)-2]
	parts := []part{text(c.before + c.open), client(t.argument(0))}
	for slot := 1; slot < len(t.args); slot++ {
		parts = append(parts, text(", "), client(t.argument(slot)))
	}
	return append(parts, text(c.shut))
}

// checks are functions of the same parameters as a set with two and with three arguments, each the only one of its name. What stands
// around them is never true, which postgres finds out when it plans the statement; AND would not take a set of rows.
var checks = [...]struct{ before, open, shut string }{
	{"pg_catalog.booleq(NULL, ", "pg_catalog.texteq(", ")) IS NOT NULL"},
	{"pg_catalog.texteq(NULL, ", "pg_catalog.split_part(", ")) IS NOT NULL"},
}

// sqlVolatile is a condition that always holds, in words that make what it stands in volatile, as the function is. So postgres does
// not leave out the column of a sub-select that it is in, although nothing uses that.
const sqlVolatile = " WHERE pg_catalog.clock_timestamp() IS NOT NULL"

// sqlNoLength is the length -1 that varchar() takes for none, in words that make the whole array or look-up volatile, as the function
// is: postgres then sorts and limits the rows before it evaluates it, and does not evaluate it when it plans.
const sqlNoLength = ", pg_catalog.int4um((pg_catalog.clock_timestamp() IS NOT NULL)::pg_catalog.int4), "

// columnEnd gives the end of the expression of an output column that is a call, which may be in parentheses.
func (w *rewriter) columnEnd(t *target) int {
	last := t.shape.close
	for i := w.tokens.at(t.at) - 1; i >= 0 && int(w.tokens[i].start) >= int(t.column.Location); i-- {
		last++
	}
	return int(w.tokens[last].end)
}

// nameColumn gives an output column the name that it would have from the call.
func (w *rewriter) nameColumn(t *target) {
	if column := t.names(); column != nil {
		end := w.targetEnd(int(column.Location))
		w.edit(t, end, end, text(sqlAlias))
	}
}

// cut gives what postgres keeps of an identifier.
func cut(name string) string {
	if len(name) <= maxIdent {
		return name
	}
	n := maxIdent
	for n > 0 && name[n]&0xC0 == 0x80 {
		n--
	}
	return name[:n]
}
