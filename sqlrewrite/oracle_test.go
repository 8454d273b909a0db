package sqlrewrite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// The same functions over an ordinary table: the yardstick of everything that is answered locally.
const oracleSQL = `
CREATE TABLE raftable_kv (k varchar(64) COLLATE "C" PRIMARY KEY, v text NOT NULL);
CREATE FUNCTION public.raftable(key varchar(64)) RETURNS text LANGUAGE sql AS 'SELECT v FROM raftable_kv WHERE k = $1';
CREATE FUNCTION public.raftable(key varchar(64), value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF value IS NULL THEN DELETE FROM raftable_kv WHERE k = key;
	ELSE INSERT INTO raftable_kv VALUES (key, value) ON CONFLICT (k) DO UPDATE SET v = excluded.v; END IF;
END $$;
CREATE FUNCTION public.raftable(key varchar(64), value text, timeout_ms int) RETURNS void LANGUAGE sql AS 'SELECT raftable($1, $2)';
CREATE FUNCTION public.raftable() RETURNS TABLE (key varchar(64), value text) LANGUAGE sql AS 'SELECT k, v FROM raftable_kv ORDER BY k';
`

func oracle(t *testing.T) *pgconn.PgConn {
	server := pgtest.New(t, pgtest.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	conn, err := pgconn.Connect(ctx, server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(ctx, oracleSQL).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestOracle holds the files of cases against PostgreSQL: what is local must give its columns, types
// and rows. TestRewritten does so for the rest.
func TestOracle(t *testing.T) {
	conn := oracle(t)
	for _, f := range readSQLFiles(t) {
		for _, c := range f.cases {
			p := Parse(c.text, c.options)
			if len(p.Statements) != 1 {
				continue
			}
			t.Run(filepath.Base(f.path)+"/"+c.title, func(t *testing.T) {
				set := "on"
				if !c.options.StandardConformingStrings {
					set = "off"
				}
				if _, err := conn.Exec(context.Background(), "SET standard_conforming_strings = "+set).ReadAll(); err != nil {
					t.Fatal(err)
				}
				switch s := p.Statements[0]; s.Class {
				case ClassLocal:
					compareLocal(t, conn, c, s.Local)
				}
			})
		}
	}
}

// TestOracleAtRandom does the same with statements put together at random.
func TestOracleAtRandom(t *testing.T) {
	conn := oracle(t)
	seen := map[string]int{}
	for seed := range int64(4000) {
		c := sqlCase{text: randomStatement(rand.New(rand.NewSource(seed))), options: standard}
		p := Parse(c.text, c.options)
		if p.Class == ClassNone {
			seen["none"]++
			// It cannot be read, or postgres is left to say that no function fits.
			if _, err := prepare(conn, c.text, nil); err == nil {
				t.Fatalf("not read: %s", c.text)
			}
			continue
		}
		switch s := p.Statements[0]; s.Class {
		case ClassLocal:
			seen["local"]++
			compareLocal(t, conn, c, s.Local)
		case ClassRefused:
			seen[s.Refusal.Code]++
			compareError(t, conn, c, s.Refusal)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Log(seen)
	if seen["local"] < 300 || seen["42883"] < 300 || seen["42703"] < 50 || seen["none"] > 800 {
		t.Errorf("statements are not mixed well: %v", seen)
	}
}

func randomStatement(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.Intn(len(from))] }
	argument := func() string {
		s := pick("'a'", "'b'", "E'\\x41'", "U&'\\043A'", "$$k$$", "'v'", "''", "'a'", "$1", "$2", "$3", "NULL", "7", "-1", "1.5", "true", "'12'", "12345678901")
		s = pick("", "", "", "", "", "", "", "", "", "key => ", "value => ", "timeout_ms := ", "\"key\" => ", "Key=>") + s
		return s + pick("", "", "", "", "", "::text", "::varchar", "::int", "::text::varchar")
	}
	call := func() string {
		var args []string
		for range []int{0, 1, 1, 1, 2, 2, 2, 3, 3, 4}[r.Intn(10)] {
			args = append(args, argument())
		}
		blank := pick("", "", " ", "/* é */", "--\n")
		return pick("raftable", "raftable", "RAFTABLE", "public.raftable", "\"raftable\"") + blank +
			"(" + pick("", "", "", "", "", "", "", "", "", "ALL ", "DISTINCT ") + strings.Join(args, ","+blank) + ")" + pick("", "", "", "", "", "", "", "", "", "", "", " OVER ()")
	}
	var columns []string
	if r.Intn(2) == 0 {
		for range 1 + r.Intn(3) {
			columns = append(columns, call()+pick("", "", "", " x", " AS \"Y é\"", " key"))
		}
		return "SELECT " + strings.Join(columns, ", ")
	}
	from := pick("raftable()", "raftable()", "raftable('a')", "public.raftable ( )", call()) +
		pick("", "", " r", " AS r", " r(k)", " r(k, v)", " AS r(value, key)", " r(k, k)", " k", " key", " r(kex, vale)", " r(x, y, z)")
	for range 1 + r.Intn(2) {
		column := pick("key", "value", "key", "value", "*", "*", "k", "v", "kay", "vales", "raftable", "KEY", "\"KEY\"", "*", "r", "kexx", "va", "x", "ключ")
		columns = append(columns, pick("", "", "", "", "", "", "", "r.", "raftable.", "k.")+column+pick("", "", "", " AS z"))
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + from
}

// prepare describes a text with the protocol's Parse and Describe.
func prepare(conn *pgconn.PgConn, text string, declared []uint32) (*pgconn.StatementDescription, error) {
	return conn.Prepare(context.Background(), "", text, declared)
}

func compareError(t *testing.T, conn *pgconn.PgConn, c sqlCase, want *Refusal) {
	if want.Code == codeNotSupported {
		return
	}
	_, err := prepare(conn, c.text, c.declared)
	if want.Code == "42P02" {
		_, err = conn.Exec(context.Background(), c.text).ReadAll()
	}
	if diff := cmp.Diff(refusalOf(err), want); diff != "" {
		t.Errorf("%s\nPostgreSQL (-) and we (+) differ:\n%s", c.text, diff)
	}
}

// refusalOf is an error of PostgreSQL as a refusal.
func refusalOf(err error) *Refusal {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return nil
	}
	return &Refusal{Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint, Position: int(e.Position)}
}

func compareLocal(t *testing.T, conn *pgconn.PgConn, c sqlCase, l *Local) {
	types, refusal := l.ResolveParams(c.declared)
	if refusal != nil {
		compareError(t, conn, c, refusal)
		return
	}
	if i := slices.Index(types, 0); i >= 0 {
		_, err := prepare(conn, c.text, c.declared)
		if got := refusalOf(err); got == nil || got.Code != "42P18" || got.Message != fmt.Sprintf("could not determine data type of parameter $%d", i+1) {
			t.Errorf("%s: the type of $%d is open, but PostgreSQL says %v", c.text, i+1, err)
		}
		return
	}
	d, err := prepare(conn, c.text, c.declared)
	if err != nil {
		t.Errorf("%s: %v", c.text, err)
		return
	}
	if diff := cmp.Diff(slices.Concat([]uint32{}, d.ParamOIDs), slices.Concat([]uint32{}, types)); diff != "" {
		t.Errorf("%s: parameter types of PostgreSQL (-) and ours (+) differ:\n%s", c.text, diff)
	}
	oids := map[Op]uint32{OpGet: 25, OpSet: 2278, OpListRecord: 2249, OpKey: 1043, OpValue: 25}
	var got, want []string
	for _, f := range d.Fields {
		want = append(want, fmt.Sprintf("%s %d", f.Name, f.DataTypeOID))
	}
	for _, col := range l.Columns {
		got = append(got, fmt.Sprintf("%s %d", col.Name, oids[col.Op]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: columns of PostgreSQL (-) and ours (+) differ:\n%s", c.text, diff)
	}
	if len(l.Params) > 0 {
		_, err := conn.Exec(context.Background(), c.text).ReadAll()
		if diff := cmp.Diff(refusalOf(err), l.RefuseParams()); diff != "" {
			t.Errorf("%s: in a simple query PostgreSQL (-) and we (+) differ:\n%s", c.text, diff)
		}
		return
	}
	compareRows(t, conn, c, l)
}

// compareRows runs a statement in PostgreSQL and over a map.
func compareRows(t *testing.T, conn *pgconn.PgConn, c sqlCase, l *Local) {
	table := map[string]string{"a": "1", "b": "", "A": "x y", "k": "v", "ключ": "(,\"\\"}
	if slices.ContainsFunc(l.Columns, func(col Column) bool { return col.Op == OpSet && col.Args[0].Null }) {
		return // the yardstick has nothing to say about a NULL key
	}
	fill := "TRUNCATE raftable_kv"
	for k, v := range table {
		fill += fmt.Sprintf("; INSERT INTO raftable_kv VALUES (E'%s', E'%s')", k, strings.ReplaceAll(v, `\`, `\\`))
	}
	results, err := conn.Exec(context.Background(), fill+";").ReadAll()
	if err == nil {
		results, err = conn.Exec(context.Background(), c.text).ReadAll()
	}
	if err != nil {
		t.Errorf("%s: %v", c.text, err)
		return
	}
	var want []string
	for _, row := range results[len(results)-1].Rows {
		want = append(want, showRow(row))
	}
	if diff := cmp.Diff(want, evaluate(l, table)); diff != "" {
		t.Errorf("%s: rows of PostgreSQL (-) and ours (+) differ:\n%s", c.text, diff)
	}
	results, err = conn.Exec(context.Background(), "SELECT k, v FROM raftable_kv ORDER BY k").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	after := map[string]string{}
	for _, row := range results[0].Rows {
		after[string(row[0])] = string(row[1])
	}
	if diff := cmp.Diff(after, table); diff != "" {
		t.Errorf("%s: table of PostgreSQL (-) and ours (+) differ afterwards:\n%s", c.text, diff)
	}
}

func showRow(row [][]byte) string {
	var s []string
	for _, v := range row {
		if v == nil {
			s = append(s, "NULL")
		} else {
			s = append(s, fmt.Sprintf("%q", v))
		}
	}
	return strings.Join(s, " ")
}

// evaluate runs a local statement without parameters over a map. Records go in step, and a row is
// tried, with its sets, until all of them have ended.
func evaluate(l *Local, table map[string]string) (rows []string) {
	if l.From {
		for _, k := range slices.Sorted(maps.Keys(table)) {
			var row [][]byte
			for _, col := range l.Columns {
				row = append(row, []byte(map[Op]string{OpKey: k, OpValue: table[k]}[col.Op]))
			}
			rows = append(rows, showRow(row))
		}
		return rows
	}
	lists := make([][]string, len(l.Columns))
	for n := 0; ; n++ {
		var row [][]byte
		more := false
		for i, col := range l.Columns {
			var v []byte
			switch key := ""; col.Op {
			case OpListRecord:
				if n == 0 {
					lists[i] = records(table)
				}
				if n < len(lists[i]) {
					v, more = []byte(lists[i][n]), true
				}
			case OpGet:
				key = col.Args[0].Value
				if value, ok := table[key]; ok && !col.Args[0].Null {
					v = []byte(value)
				}
			case OpSet:
				key, v = col.Args[0].Value, []byte{}
				if table[key] = col.Args[1].Value; col.Args[1].Null {
					delete(table, key)
				}
			}
			row = append(row, v)
		}
		hasLists := slices.ContainsFunc(l.Columns, func(c Column) bool { return c.Op == OpListRecord })
		if hasLists && !more {
			return rows
		}
		if rows = append(rows, showRow(row)); !hasLists {
			return rows
		}
	}
}

func records(table map[string]string) (out []string) {
	quote := func(s string) string {
		if s == "" || strings.ContainsAny(s, "\"\\(), \t\n") {
			return `"` + strings.NewReplacer(`"`, `""`, `\`, `\\`).Replace(s) + `"`
		}
		return s
	}
	for _, k := range slices.Sorted(maps.Keys(table)) {
		out = append(out, "("+quote(k)+","+quote(table[k])+")")
	}
	return out
}
