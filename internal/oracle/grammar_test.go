package oracle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// grammar makes statements with calls in random places. They are such that PostgreSQL's answer does not depend on the
// plan: there are no errors that only some rows have, no LIMIT without an order of all columns, and sets have keys that
// nothing reads.
type grammar struct {
	r      *rand.Rand
	params []string // their values
	texts  []string // columns that can be seen, by type
	ints   []string
	number int  // of aliases
	bare   bool // there can be no parameters
}

// grammarSetup is what the statements are about.
const grammarSetup = `
CREATE TABLE t (id int PRIMARY KEY, k text, name varchar(20), flag text, n int);
INSERT INTO t VALUES (1, 'a', 'Ann', 'on', 10), (2, 'b', 'Bob', 'off', 20), (3, NULL, 'Cid', 'on', NULL), (4, 'it''s', 'Dan', NULL, 40), (5, 'ключ', 'e', 'a', 0);
CREATE TABLE u (id int, key text, raftable text);
INSERT INTO u VALUES (1, 'a', 'b'), (2, 'f', 'ключ'), (2, '', NULL), (7, 'on', 'x');
CREATE TABLE w (id int, v text);
INSERT INTO w VALUES (1, 'a'), (2, NULL);
`

var grammarTable = map[string]string{
	"a": "b", "b": "", "f": "on", "on": "a", "it's": `q"\'` + "\n", "ключ": "значение 😀", "n": "3", "": "empty", "big": strings.Repeat("ж", 300),
}

func (g *grammar) pick(list ...string) string { return list[g.r.IntN(len(list))] }

// in says yes once in n times.
func (g *grammar) in(n int) bool { return g.r.IntN(n) == 0 }

func (g *grammar) alias() string {
	g.number++
	return fmt.Sprintf("x%d", g.number)
}

// constant is a string in one of its spellings.
func (g *grammar) constant() string {
	return g.pick(`'a'`, `'b'`, `'f'`, `'on'`, `'it''s'`, `E'it\'s'`, `'ключ'`, `E'\u043a\u043b\u044e\u0447'`, `'n'`, `''`, `'big'`, `'nobody'`, `$$a$$`, `$q$it's$q$`,
		`U&'\0061'`, `'a'::text`, `CAST('b' AS varchar)`, `text 'f'`, `('a')`, `'a'::char(3)`, `'raftable(1)'`, `'$1'`)
}

func (g *grammar) param(value string) string {
	if g.bare {
		return literal(value)
	}
	if len(g.params) > 0 && g.in(3) {
		return fmt.Sprintf("$%d", 1+g.r.IntN(len(g.params)))
	}
	g.params = append(g.params, value)
	return fmt.Sprintf("$%d", len(g.params))
}

func (g *grammar) key(depth int) string {
	switch {
	case g.in(12):
		return g.param(g.pick("a", "b", "f", "it's", "ключ", "nobody"))
	case len(g.texts) > 0 && g.in(3):
		return g.pick(g.texts...)
	case depth > 0 && g.in(3):
		return g.text(depth - 1)
	case g.in(60):
		return g.int(0)
	case g.in(25):
		return g.pick("NULL", "NULL::text", "current_setting('application_name')", "'' || 'a'")
	}
	return g.constant()
}

func (g *grammar) name() string {
	return g.pick("raftable", "raftable", "raftable", "raftable", "RAFTABLE", `"raftable"`, "public.raftable", "Public . raftable ", "raftable ", "raftable/* ( é */")
}

func (g *grammar) get(depth int) string {
	named := g.pick("", "", "", "", "", "", "", "key => ", "key := ", "\"key\" =>")
	return g.name() + "(" + named + g.key(depth) + ")"
}

func (g *grammar) text(depth int) string {
	if depth <= 0 {
		switch {
		case len(g.texts) > 0 && g.in(3):
			return g.pick(g.texts...)
		case g.in(3):
			return g.constant()
		case g.in(20):
			return g.param("a") + g.pick("", "::text", "::varchar")
		}
		return g.get(0)
	}
	d := depth - 1
	switch g.r.IntN(14) {
	case 0:
		return g.text(d) + " || " + g.text(d)
	case 1:
		return "coalesce(" + g.text(d) + ", " + g.text(d) + ")"
	case 2:
		return g.pick("upper", "lower", "btrim", "md5", "reverse") + "(" + g.text(d) + ")"
	case 3:
		return "CASE WHEN " + g.bool(d) + " THEN " + g.text(d) + " ELSE " + g.text(d) + " END"
	case 4:
		return "(SELECT " + g.pick("max", "min") + "(" + g.inner(func() string { return g.text(d) }) + ")"
	case 5:
		return "(SELECT value FROM raftable() WHERE key = " + g.text(d) + ")"
	case 6:
		return "(ARRAY[" + g.text(d) + ", " + g.text(d) + "])[" + g.pick("1", "2", "3") + "]"
	case 7:
		return "(" + g.text(d) + ")" + g.pick("::text", "::varchar", "::varchar(5)", ` COLLATE "C"`, "::text::varchar")
	case 8:
		return "left(" + g.text(d) + ", " + g.int(d) + ")"
	case 9:
		return "(SELECT " + g.text(d) + ")"
	case 10:
		return "nullif(" + g.text(d) + ", " + g.text(d) + ")"
	}
	return g.get(depth)
}

// inner is the end of a sub-select over a table, whose column is made by what; it sees the outer columns too.
func (g *grammar) inner(what func() string) string {
	texts, ints := g.texts, g.ints
	from := g.source(0)
	s := what()
	if g.in(2) {
		from += " WHERE " + g.bool(0)
	}
	g.texts, g.ints = texts, ints
	return s + ") FROM " + from
}

func (g *grammar) int(depth int) string {
	if depth <= 0 {
		if len(g.ints) > 0 && g.in(2) {
			return g.pick(g.ints...)
		}
		return g.pick("0", "1", "2", "7")
	}
	switch g.r.IntN(6) {
	case 0:
		return "length(" + g.text(depth-1) + ")"
	case 1:
		return "(SELECT count(*)::int FROM raftable())"
	case 2:
		return g.int(depth-1) + g.pick(" + ", " * ", " - ") + g.int(depth-1)
	case 3:
		return "raftable('n')::int"
	case 4:
		return "CASE WHEN " + g.bool(depth-1) + " THEN " + g.int(depth-1) + " ELSE " + g.int(depth-1) + " END"
	}
	return g.int(0)
}

func (g *grammar) bool(depth int) string {
	d := depth - 1
	switch g.r.IntN(11) {
	case 0:
		return g.text(d) + g.pick(" = ", " <> ", " < ", " >= ", " IS DISTINCT FROM ") + g.text(d)
	case 1:
		return g.text(d) + g.pick(" IS NULL", " IS NOT NULL")
	case 2:
		return g.text(d) + g.pick(" LIKE '%a%'", " ~ 'n'", " NOT LIKE 'x_'")
	case 3:
		return g.text(d) + g.pick(" IN (", " NOT IN (") + g.text(d) + ", " + g.text(d) + ")"
	case 4:
		return g.text(d) + " = ANY (ARRAY[" + g.text(d) + ", 'b'])"
	case 5:
		return g.int(depth) + g.pick(" < ", " = ", " >= ") + g.int(d)
	case 6:
		if depth > 0 {
			return g.pick("", "NOT ") + "EXISTS (SELECT length(" + g.inner(func() string { return g.text(d) }) + ")"
		}
	case 7:
		if depth > 0 {
			return "(" + g.bool(d) + g.pick(" AND ", " OR ") + g.bool(d) + ")"
		}
	case 8:
		if depth > 0 {
			return "NOT (" + g.bool(d) + ")"
		}
	case 9:
		return g.text(d) + " IN (SELECT " + g.pick("key", "value") + " FROM raftable())"
	case 10:
		// What would fail, if a row came to it. Only what costs less than a call is sure to be evaluated before.
		cheap := slices.DeleteFunc(slices.Clone(g.ints), func(c string) bool { return c != "id" && !strings.HasSuffix(c, ".id") })
		if len(cheap) > 0 {
			fails := g.pick("raftable('f')::int = 1", "1 / (raftable('n')::int - raftable('n')::int) = 1", "raftable('a')::date IS NULL",
				"(raftable('f') = 'off' OR raftable('f')::int IN (1, 2))")
			return "(coalesce(" + g.pick(cheap...) + ", 0) > 1000 AND " + fails + ")"
		}
	}
	return g.text(0) + " = " + g.text(0)
}

// source is something in FROM; its columns can be seen from then on.
func (g *grammar) source(depth int) string {
	a := g.alias()
	see := func(texts, ints []string) {
		for _, c := range texts {
			g.texts = append(g.texts, a+"."+c)
		}
		for _, c := range ints {
			g.ints = append(g.ints, a+"."+c)
		}
	}
	switch g.r.IntN(13) {
	case 0, 1, 2:
		see([]string{"k", "name", "flag"}, []string{"id", "n"})
		return "t " + a
	case 3:
		see([]string{"key", "raftable"}, []string{"id"})
		return "u AS " + a
	case 4, 5:
		see([]string{"key", "value"}, nil)
		return g.name() + "() " + a
	case 6:
		see([]string{"c", "d"}, nil)
		return "raftable() AS " + a + " (c, d)"
	case 7:
		// A column of a list's alias may be left with its own name.
		see([]string{"c", "value"}, nil)
		return g.pick("raftable()", "ROWS FROM (raftable())") + " AS " + a + " (c)"
	case 8:
		s := g.get(depth) + " AS " + a + " (c)"
		see([]string{"c"}, nil)
		return s
	case 9:
		s := "LATERAL (SELECT " + g.text(depth) + " AS c, " + g.int(depth) + " AS i) " + a
		see([]string{"c"}, []string{"i"})
		return s
	case 10:
		s := "(VALUES (" + g.text(depth) + ", 1), (" + g.text(depth) + ", 2)) AS " + a + " (c, i)"
		see([]string{"c"}, []string{"i"})
		return s
	case 11:
		see([]string{"key", "value"}, []string{"ordinality::int"})
		return "raftable() WITH ORDINALITY " + a
	}
	see([]string{"key", "value"}, []string{"g"})
	return "ROWS FROM (raftable(), generate_series(1, 3)) AS " + a + " (key, value, g)"
}

// from is a FROM clause, or nothing.
func (g *grammar) from(depth int) string {
	if g.in(5) {
		return ""
	}
	s := " FROM " + g.source(depth)
	if g.in(3) {
		if next := g.source(depth); g.in(2) {
			s += ", " + next
		} else {
			s += g.pick(" JOIN ", " LEFT JOIN ") + next + " ON " + g.bool(depth)
		}
	}
	return s
}

func (g *grammar) column(depth int) string {
	var s string
	switch g.r.IntN(6) {
	case 0:
		s = g.int(depth)
	case 1:
		s = g.bool(depth)
	case 2, 3:
		s = g.get(depth)
	default:
		s = g.text(depth)
	}
	return s + g.pick("", "", "", "", " AS c", ` AS "C é"`, " AS raftable")
}

// query is a SELECT; ordered says that its rows come in an order that is fixed.
func (g *grammar) query(depth int) (text string, ordered bool) {
	texts, ints := g.texts, g.ints
	defer func() { g.texts, g.ints = texts, ints }()
	g.texts, g.ints = nil, nil
	var with string
	if depth > 0 && g.in(5) {
		with = "WITH q AS " + g.pick("", "MATERIALIZED ", "NOT MATERIALIZED ") + "(SELECT " + g.text(depth-1) + " AS c" + ") "
	}
	if depth > 0 && g.in(6) {
		text, ordered = g.union(depth)
		return with + text, ordered
	}
	from := g.from(depth)
	if with != "" && from != "" {
		from += ", q"
		g.texts = append(g.texts, "q.c")
	}
	if g.in(5) && from != "" {
		text, ordered = g.grouped(depth, from)
		return with + text, ordered
	}
	n := 1 + g.r.IntN(3)
	var columns []string
	for range n {
		columns = append(columns, g.column(depth))
	}
	text = with + "SELECT " + g.pick("", "", "", "", "DISTINCT ") + strings.Join(columns, ", ") + from
	if g.in(2) {
		text += " WHERE " + g.bool(depth)
	}
	order, ordered := g.order(n)
	return text + order, ordered
}

func (g *grammar) union(depth int) (text string, ordered bool) {
	var parts []string
	for range 2 + g.r.IntN(2) {
		g.texts, g.ints = nil, nil
		from := g.from(depth - 1)
		part := "SELECT " + g.text(depth-1) + ", " + g.int(depth-1) + from
		if g.in(3) {
			part += " WHERE " + g.bool(depth-1)
		}
		parts = append(parts, part)
	}
	order, ordered := g.order(2)
	return strings.Join(parts, g.pick(" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT ")) + order, ordered
}

func (g *grammar) grouped(depth int, from string) (text string, ordered bool) {
	by := g.text(depth - 1)
	text = "SELECT " + by + ", count(*), max(" + g.text(depth-1) + ")"
	if g.in(2) {
		text += " FILTER (WHERE " + g.bool(0) + ")"
	}
	text += from
	if g.in(3) {
		text += " WHERE " + g.bool(depth-1)
	}
	text += " GROUP BY " + g.pick(by, by, "1")
	if g.in(3) {
		text += " HAVING length(max(" + g.text(0) + ")) >= " + g.pick("1", "raftable('n')::int")
	}
	order, ordered := g.order(3)
	return text + order, ordered
}

func (g *grammar) order(n int) (text string, ordered bool) {
	if g.in(3) {
		return "", false
	}
	var by []string
	for i := range n {
		by = append(by, fmt.Sprint(i+1, g.pick("", " DESC", " NULLS FIRST")))
	}
	return " ORDER BY " + strings.Join(by, ", ") + g.pick("", "", "", " LIMIT 3", " LIMIT raftable('n')::int", " OFFSET 1", " FETCH FIRST 2 ROWS ONLY"), true
}

// set is a call that sets, with a key that nothing reads. Its arguments have no calls, since the sets of the rows before
// might change what those give; the same holds for what stands beside it.
func (g *grammar) set(columns bool) string {
	key, value := "'h/1'", g.constant()
	if columns {
		key = "'h/' || id"
		value = g.pick(g.constant(), g.pick(g.texts...), g.pick(g.texts...)+" || 'x'", "upper("+g.pick(g.texts...)+")", "NULL", "id::text")
	}
	switch g.r.IntN(5) {
	case 0:
		return g.name() + "(value => " + value + ", key => " + key + ")"
	case 1:
		return g.name() + "(" + key + ", " + value + ", 1000)"
	}
	return g.name() + "(" + key + ", " + value + ")"
}

// where is a condition with calls that no set has an influence on.
func (g *grammar) where() string {
	return g.pick("", "", " WHERE flag = raftable('f')", " WHERE raftable(k) IS NOT NULL", " WHERE id <= raftable('n')::int",
		" WHERE k IN (raftable('f'), 'a', raftable('nobody'))", " WHERE EXISTS (SELECT FROM raftable() WHERE key = k)", " WHERE false")
}

// harvest is a query with sets among its columns.
func (g *grammar) harvest() string {
	g.texts, g.ints = []string{"k", "name", "flag"}, []string{"id", "n"}
	columns := []string{g.set(true)}
	for range g.r.IntN(3) {
		columns = append(columns, g.pick("id", "k", "raftable(k)", "1 AS one", "n", "raftable('a')", g.set(true)))
	}
	g.r.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
	return "SELECT " + strings.Join(columns, ", ") + " FROM t" + g.where() + " ORDER BY id" + g.pick("", "", " LIMIT 2")
}

// write is a statement that changes a table.
func (g *grammar) write() string {
	if g.in(4) {
		g.texts, g.ints = []string{"k", "name", "flag"}, []string{"id", "n"}
		set := g.set(true)
		return g.pick("UPDATE t SET flag = raftable('f')", "DELETE FROM t") + g.where() + " RETURNING " + g.pick(set, "id, "+set, set+", raftable('a'), flag")
	}
	g.texts, g.ints = nil, nil
	returning := func(columns ...string) string {
		g.texts, g.ints = columns, []string{"id"}
		switch g.r.IntN(4) {
		case 0:
			return " RETURNING *"
		case 1:
			return " RETURNING id, " + g.column(1)
		case 2:
			return " RETURNING " + g.get(1)
		}
		return ""
	}
	switch g.r.IntN(5) {
	case 0:
		return "INSERT INTO w VALUES (" + g.int(1) + ", " + g.text(1) + ")" + returning("v")
	case 1:
		return "INSERT INTO w (v, id) SELECT key, row_number() OVER (ORDER BY key) FROM raftable() r WHERE " + g.bool(1) + returning("v")
	case 2:
		g.texts, g.ints = []string{"k", "name", "flag"}, []string{"id", "n"}
		s := "UPDATE t SET flag = " + g.text(2)
		if g.in(2) {
			s += " WHERE " + g.bool(1)
		}
		return s + returning("k", "flag")
	case 3:
		g.texts, g.ints = []string{"k", "name", "flag"}, []string{"id", "n"}
		return "DELETE FROM t WHERE " + g.bool(2) + returning("k", "flag")
	}
	s := "INSERT INTO t (id, k) VALUES (1, " + g.text(1) + ") ON CONFLICT (id) DO UPDATE SET k = excluded.k || " + g.text(1)
	return s + returning("k", "flag")
}

// conversation makes the steps of a case, and says whether their rows come in a fixed order.
func (g *grammar) conversation() (steps []string, ordered bool) {
	kind := g.r.IntN(20)
	switch kind {
	case 0, 1:
		return []string{g.harvest()}, true
	case 2, 3:
		return []string{g.write()}, false
	case 4:
		return []string{"BEGIN", g.write(), "SELECT count(*), raftable('f') FROM t", "ROLLBACK"}, false
	case 5:
		g.bare = true
		first := g.harvest()
		query, ordered := g.query(2)
		return []string{first + "; " + query}, ordered
	}
	g.bare = kind == 6
	query, ordered := g.query(g.r.IntN(4))
	switch kind {
	case 6:
		return []string{"COPY (" + query + ") TO STDOUT"}, ordered
	case 7, 8:
		execute := "EXECUTE p"
		if len(g.params) > 0 {
			var values []string
			for _, p := range g.params {
				values = append(values, literal(p))
			}
			execute += "(" + strings.Join(values, ", ") + ")"
			g.params = nil
		}
		return []string{"PREPARE p AS " + query, execute, "SELECT raftable('a', 'f'), 1", execute}, ordered
	case 9:
		return []string{"BEGIN", "DECLARE c CURSOR FOR " + query, "FETCH ALL FROM c", "COMMIT"}, ordered
	case 10:
		return []string{"EXPLAIN " + query}, ordered
	case 11:
		return []string{"CREATE TABLE made AS " + query, "SELECT count(*), raftable('a') FROM made"}, true
	case 12:
		return []string{"SELECT " + g.set(false), query}, ordered
	}
	return []string{query}, ordered
}
