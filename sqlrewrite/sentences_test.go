package sqlrewrite

import (
	"context"
	"flag"
	"math/rand"
	"strings"
	"testing"
)

var sentenceCount = flag.Int("sentences", 400, "how many statements to put together at random")

// sentences puts statements together at random. Most of them are in order.
type sentences struct {
	*rand.Rand
	depth int
}

func (s *sentences) pick(from ...string) string { return from[s.Intn(len(from))] }

func (s *sentences) blank() string { return s.pick("", "", "", "", " ", "/* é */", "--\n", "\n\t") }

// key is an expression for a key, of a type that fits most of the time.
func (s *sentences) key() string {
	s.depth++
	defer func() { s.depth-- }()
	if s.depth > 3 {
		return s.pick("'a'", "k", "NULL")
	}
	if s.Intn(30) == 0 {
		return s.pick("1", "n", "k::name", "true", "ARRAY['a']", "nope", "t.*", "-n", "max(k)", "x.y", "(raftable()).key")
	}
	switch s.Intn(16) {
	case 0, 1, 2, 3:
		return s.pick("'a'", "'b'", "'ключ'", "$$a$$", "E'\\x61'", "NULL", "'c'::text", "'a'::varchar", "'zz'")
	case 4, 5, 6:
		return s.pick("k", "v", "t.k", "t.v", "k::varchar", "(k)", "left(v, 1)", "k || ''", "lower(k)")
	case 7:
		return s.get()
	case 8:
		return "(SELECT " + s.get() + ")"
	case 9:
		return "CASE WHEN n > 1 THEN " + s.key() + " ELSE " + s.key() + " END"
	case 10:
		return "substr(" + s.get() + s.blank() + ", 1, 1)"
	case 11:
		return s.get() + s.blank() + "||" + s.blank() + s.key()
	case 12:
		return s.pick("'a'::char(3)", "k COLLATE \"C\"", "n::text", "concat(k, n)")
	case 13:
		return "(SELECT max(key) FROM raftable() WHERE key < " + s.key() + ")"
	}
	return s.pick("'a'", "k")
}

func (s *sentences) name() string {
	return s.pick("raftable", "raftable", "raftable", "RAFTABLE", "public.raftable", "\"raftable\"", "public . raftable") + s.blank()
}

func (s *sentences) get() string {
	named := s.pick("", "", "", "", "", "", "key => ", "key:=", "\"key\" =>", "ALL ")
	clause := ""
	if s.Intn(50) == 0 {
		named, clause = s.pick("", "foo => ", "DISTINCT "), s.pick("", " OVER ()", " FILTER (WHERE true)")
	}
	return s.name() + "(" + s.blank() + named + s.key() + s.blank() + ")" + clause
}

// set is one with arguments that fit most of the time.
func (s *sentences) set() string {
	value := s.pick("v", "'x'", "k || v", "NULL", "n::text", "upper(v)", "''", "(SELECT max(k) FROM t)", "raftable('zz')")
	key := s.pick("k", "'p'", "'q'", "k || 'x'", "v", "k")
	if s.Intn(20) == 0 {
		key, value = s.pick("n", key), s.pick("n", value)
	}
	switch s.Intn(5) {
	case 0:
		return s.name() + "(" + key + ", " + value + ", " + s.pick("n", "5", "'7'", "n::smallint", "NULL", "n + 1") + ")"
	case 1:
		return s.name() + "(key => " + key + "," + s.blank() + "value => " + value + ")"
	}
	return s.name() + "(" + key + s.blank() + "," + s.blank() + value + s.blank() + ")"
}

// expression is one that has calls.
func (s *sentences) expression() string {
	s.depth++
	defer func() { s.depth-- }()
	get := s.get()
	if s.depth > 3 {
		return get
	}
	switch s.Intn(24) {
	case 0:
		return get + "::" + s.pick("text", "varchar", "char(2)", "name", "text")
	case 1:
		return "CAST(" + get + " AS " + s.pick("text", "varchar(1)", "name") + ")"
	case 2:
		return get + " COLLATE \"C\""
	case 3:
		return "CASE WHEN " + s.condition() + " THEN " + s.get() + " ELSE " + s.get() + " END"
	case 4:
		return "CASE WHEN " + s.condition() + " THEN " + s.expression() + " END"
	case 5:
		return "(SELECT " + s.expression() + s.pick("", " AS x", " FROM t LIMIT 1") + ")"
	case 6:
		return "coalesce(" + s.get() + ", 'x')"
	case 7:
		return s.pick("upper", "length", "concat", "to_json", "raftable", "json_build_array") + "(" + s.get() + ")"
	case 8:
		return "ARRAY[" + s.get() + ", " + s.get() + "]"
	case 9:
		return "ROW(" + s.expression() + ", n)"
	case 10:
		return "(" + s.expression() + ")"
	case 11:
		return "(string_to_array(" + get + ", ' '))[1]"
	case 12:
		return "(raftable())." + s.pick("key", "value", "key", "*")
	case 13:
		return s.pick("raftable()", get, get)
	case 14:
		return s.condition()
	case 15:
		return "ARRAY(SELECT " + s.expression() + " FROM t ORDER BY 1)"
	}
	return get
}

func (s *sentences) condition() string {
	get := s.get()
	switch s.Intn(9) {
	case 0:
		return "v = " + get
	case 1:
		return get + " IN (" + s.get() + s.pick("", ", 'x'", ", k") + ")"
	case 2:
		return "'a' = " + s.pick("ANY", "ALL") + " (" + s.pick(get, "string_to_array("+get+", ' ')", "ARRAY["+get+"]") + ")"
	case 3:
		return get + " IS " + s.pick("", "NOT ") + s.pick("NULL", "DISTINCT FROM "+s.get())
	case 4:
		return "EXISTS (SELECT " + get + " FROM raftable() WHERE key = t.k)"
	case 5:
		return get + " LIKE " + s.get() + s.pick("", " ESCAPE '!'")
	case 6:
		return "k BETWEEN " + get + " AND " + s.get()
	case 7:
		return "(k, v) IN (SELECT key, value FROM raftable())"
	}
	return "n > 1 AND " + get + s.pick("=", "<>", " < ", " > ") + s.key()
}

// from is an item of FROM with a call.
func (s *sentences) from() string {
	alias := s.pick("", "", " r", " AS r", " r(a)", " AS r(a)", " key", " raftable(x)")
	if s.Intn(10) == 0 {
		alias = s.pick(" AS r(a, b)", " r(a, b, c)", " AS r(a text)", " AS (a text)")
	}
	ordinality := s.pick("", "", "", " WITH ORDINALITY", s.blank()+" with ordinality")
	switch s.Intn(5) {
	case 0:
		return s.pick("", "LATERAL ") + s.get() + ordinality + alias
	case 1:
		return "ROWS FROM (" + s.pick("raftable()", s.get()) + ", " + s.pick("raftable()", s.get(), "generate_series(1, 3)") + ")" + ordinality + alias
	case 2:
		return "ROWS FROM (" + s.pick("raftable()", s.get()) + s.blank() + ")" + ordinality + alias
	}
	return s.pick("", "", "LATERAL ") + s.name() + "()" + ordinality + alias
}

func (s *sentences) columns() string {
	var columns []string
	for range 1 + s.Intn(3) {
		switch s.Intn(5) {
		case 0:
			columns = append(columns, s.pick("t.k", "n", "*", "t.*", "'é'", "n + 1", "1"))
		default:
			columns = append(columns, s.expression()+s.blank()+s.pick("", "", "", " x", " AS \"Y é\"", " AS from"))
		}
	}
	return strings.Join(columns, s.blank()+","+s.blank())
}

func (s *sentences) query() string {
	q := "SELECT " + s.pick("", "", "", "DISTINCT ") + s.columns()
	if s.Intn(8) > 0 {
		q += s.blank() + " FROM t" + s.pick("", ", ", " CROSS JOIN ")
		if !strings.HasSuffix(q, "t") {
			q += s.from()
		}
	}
	if s.Intn(3) == 0 {
		q += " WHERE " + s.condition()
	}
	if s.Intn(8) == 0 {
		q += " GROUP BY " + s.pick("t.k, t.v, n", "t.k, t.v, n", "t.k, t.v, n, "+s.expression(), "raftable")
	}
	if s.Intn(2) == 0 {
		q += " ORDER BY " + s.pick("1", "n", "t.k, n", s.get(), "raftable")
	}
	return q + s.pick("", "", "", "", " LIMIT 1000 + length(raftable('a'))")
}

func (s *sentences) statement() string {
	switch s.Intn(16) {
	case 0:
		return "INSERT INTO t (k, v) SELECT " + s.get() + ", " + s.get() + " FROM t" + s.pick("", " ON CONFLICT DO NOTHING", " RETURNING "+s.columns())
	case 1:
		return "INSERT INTO u VALUES (raftable('a'), coalesce(raftable('b'), 'x')) ON CONFLICT (k) DO UPDATE SET v = " + strings.NewReplacer("t.", "u.", "n", "length(u.v)").Replace(s.pick("raftable(u.k)", "raftable(excluded.k || 'x')", s.get())) + s.pick("", " RETURNING "+s.columns())
	case 2:
		return "UPDATE t SET v = " + s.get() + s.pick("", " FROM raftable('b') AS r", " FROM raftable('a') WITH ORDINALITY AS r") + " WHERE " + s.condition() + s.pick("", " RETURNING "+s.columns())
	case 3:
		return "DELETE FROM t WHERE " + s.condition() + s.pick("", " RETURNING "+s.columns())
	case 4:
		return "WITH w AS (" + s.query() + ") SELECT * FROM w, " + s.from()
	case 5:
		return "SELECT " + s.get() + " FROM t" + s.pick(" UNION ", " UNION ALL ", " EXCEPT ") + "SELECT " + s.get() + " FROM t ORDER BY 1"
	case 6:
		return "SELECT * FROM t, LATERAL (VALUES (" + s.expression() + ", " + s.get() + ")) x"
	case 7, 8, 9:
		var columns []string
		for range 1 + s.Intn(3) {
			columns = append(columns, s.pick(s.set(), s.set(), s.get(), s.get()+" AS g", s.set()+s.blank()+" AS x", "n", s.expression()))
		}
		list := strings.Join(columns, s.blank()+", ")
		if s.Intn(4) == 0 {
			return s.pick("UPDATE t SET n = n + 1", "INSERT INTO t VALUES ('e', 'f', 3), ('g', NULL, 4)", "DELETE FROM t") + " RETURNING " + list
		}
		return "SELECT " + list + s.pick("", " FROM t ORDER BY n", " FROM t WHERE n > 1", " FROM t ORDER BY 1", " FROM t GROUP BY k, v, n ORDER BY k", " FROM raftable() r(k, v), t")
	case 10:
		return s.pick("CREATE TABLE x AS ", "DECLARE c CURSOR FOR ", "EXPLAIN ", "PREPARE s AS ", "COPY (") + s.query()
	}
	return s.query()
}

// TestRewrittenAtRandom compares statements put together at random.
func TestRewrittenAtRandom(t *testing.T) {
	p := newPair(t)
	p.unordered = true
	seen := map[string]int{}
	for seed := range int64(*sentenceCount) {
		s := &sentences{Rand: rand.New(rand.NewSource(seed))}
		c := sqlCase{text: s.statement(), options: standard}
		if strings.HasPrefix(c.text, "COPY") {
			c.text += ") TO STDOUT"
		}
		plan := Parse(c.text, c.options)
		if len(plan.Statements) == 1 {
			st := plan.Statements[0]
			kind := className(st.Class)
			if st.Class == ClassRewritten || st.Class == ClassHarvested {
				_, err := p.real.Prepare(context.Background(), "", c.text, nil)
				if e := refusalOf(err); e != nil {
					kind += ", error"
				}
			}
			seen[kind]++
		} else {
			seen["none"]++
		}
		p.compare(t, c, plan)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Log(seen)
}
