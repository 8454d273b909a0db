package sqlrewrite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// What the cases of rewritten and harvested statements use, in both databases.
const pairSQL = `
CREATE TABLE t (k text, v text, n int);
INSERT INTO t VALUES ('a', 'va', 1), ('b', 'vb', 2), ('z', 'vz', 3);
CREATE TABLE u (k text PRIMARY KEY, v text);
INSERT INTO u VALUES ('a', 'ua'), ('1', 'u1');
CREATE TABLE cfg (name varchar(20), val text, ms smallint);
INSERT INTO cfg VALUES ('x', '1', 100), ('y', NULL, 200), ('a', 'it''s', 300), ('x', 'b\s', NULL);
CREATE TABLE log (x text);
CREATE PROCEDURE p(x text) LANGUAGE sql AS 'INSERT INTO log VALUES (x)';
CREATE DOMAIN d AS text;
`

// pair is a database with the functions and one without, which gets what is rewritten instead.
type pair struct {
	real, plain *pgconn.PgConn
	table       map[string]string // what the one has and the other is to see
	after       map[string]string // what the one has after a statement that did not fail
	unordered   bool              // rows are compared in any order
	refused     bool              // the table would refuse what a call does, in its own words
}

func newPair(t *testing.T) *pair {
	server := pgtest.New(t, pgtest.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	connect := func(db string) *pgconn.PgConn {
		config, err := pgconn.ParseConfig(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		if db != "" {
			config.Database = db
		}
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	p := &pair{real: connect("")}
	must(t, p.real, "CREATE DATABASE plain")
	p.plain = connect("plain")
	must(t, p.real, oracleSQL+pairSQL)
	must(t, p.plain, pairSQL)
	p.reset(t)
	return p
}

func must(t *testing.T, conn *pgconn.PgConn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// reset gives both sides the same table.
func (p *pair) reset(t *testing.T) {
	p.table = startTable()
	fill := "TRUNCATE raftable_kv"
	for k, v := range p.table {
		fill += fmt.Sprintf("; INSERT INTO raftable_kv VALUES (%s, %s)", Quote(&k), Quote(&v))
	}
	must(t, p.real, fill)
}

func startTable() map[string]string {
	return map[string]string{"a": "1", "b": "", "c": "x y", "k": "v", "1": "a", "ключ": "(,\"\\'é\n", "it's": "q"}
}

// outcome is all that a client sees of a statement.
type outcome struct {
	Fields []string
	Rows   []string
	Tag    string
	Error  *Refusal
}

// TestRewritten runs what the cases are rewritten to, and compares it with what they do where there are functions.
func TestRewritten(t *testing.T) {
	p := newPair(t)
	for _, f := range readSQLFiles(t) {
		for _, c := range f.cases {
			plan := Parse(c.text, c.options)
			name := filepath.Base(f.path)
			switch {
			case len(plan.Statements) > 1, plan.Class == ClassStored, plan.Class == ClassCommand, name == "commands.txt":
				continue
			case plan.Class == ClassNone && name != "rewritten.txt" && name != "harvested.txt" && name != "arguments.txt":
				continue // no call is looked for
			}
			t.Run(name+"/"+c.title, func(t *testing.T) { p.compare(t, c, plan) })
		}
	}
}

func (p *pair) compare(t *testing.T, c sqlCase, plan *Plan) {
	set := "SET standard_conforming_strings = off"
	if c.options.StandardConformingStrings {
		set = "SET standard_conforming_strings = on"
	}
	must(t, p.real, set)
	must(t, p.plain, set)
	s := Statement{Class: ClassNone}
	if len(plan.Statements) > 0 {
		s = plan.Statements[0]
	}
	switch {
	case s.Class == ClassLocal && s.Rewrite == nil:
		return
	case s.Class == ClassLocal:
		// The rewrite is for what cannot be answered locally.
		if _, refusal := s.Local.ResolveParams(c.declared); refusal == nil || refusal.Code != codeNotSupported {
			return
		}
	case s.Class == ClassRefused:
		if s.Refusal.Code == codeNotSupported {
			return
		}
		want := p.extended(t, p.real, c.text, c.declared, c.text, nil, s, 0)
		if s.Refusal.Code == "42P02" {
			want = p.simple(t, p.real, c.text, c.text, nil, nil)
		}
		if p.unordered && want.Error != nil {
			return // of several mistakes postgres may name another one first
		}
		p.diff(t, c, want, outcome{Error: s.Refusal}, "refusal")
		return
	}
	for _, format := range []int16{0, 1} {
		if strings.HasPrefix(c.text, "COPY") || s.Rewrite != nil && (s.Rewrite.Literals || s.Rewrite.Prepares != "") {
			continue
		}
		want := p.extended(t, p.real, c.text, c.declared, c.text, nil, s, format)
		text, r := c.text, s.Rewrite
		if r != nil {
			if refusal := r.Conflict(c.declared); refusal != nil {
				p.diff(t, c, want, outcome{Error: refusal}, "refusal")
				continue
			}
			r = r.For(c.declared)
			text = r.Text(c.text, max(s.MaxParam, len(c.declared))+1)
		}
		got := p.extended(t, p.plain, text, c.declared, c.text, r, s, format)
		p.diff(t, c, want, got, fmt.Sprintf("%s, format %d", text, format))
	}
	want := p.simple(t, p.real, c.text, c.text, nil, nil)
	text, r := c.text, s.Rewrite
	var values []*string
	if r != nil && r.Prepares != "" {
		// The values are parameters of the statement that is prepared.
		text = r.Text(c.text, s.MaxParam+1)
	} else if r != nil {
		values = p.values(r, nil)
		text = r.Literal(c.text, values)
	}
	got := p.simple(t, p.plain, text, c.text, r, func(code, message string, pos int) (string, int) {
		if r.Prepares != "" {
			return r.MapError(c.text, s.MaxParam+1, code, message, pos)
		}
		return r.MapErrorLiteral(c.text, values, code, message, pos)
	})
	p.diff(t, c, want, got, text)
}

func (p *pair) diff(t *testing.T, c sqlCase, want, got outcome, text string) {
	t.Helper()
	if p.refused {
		p.refused = false
		return
	}
	if p.unordered && want.Error != nil && got.Error == nil && (want.Error.Code == "42P10" || want.Error.Code == "42803") {
		return // to postgres, calls in named and in positional notation are different expressions
	}
	if p.unordered {
		// A record that is no output column of the statement itself has a text for a key.
		for _, rows := range [][]string{want.Rows, got.Rows} {
			for i, row := range rows {
				rows[i] = strings.ReplaceAll(row, `\x00\x00\x04\x13`, `\x00\x00\x00\x19`)
			}
		}
		for _, e := range []*Refusal{want.Error, got.Error} {
			if e != nil && strings.Count(e.Message, ",") > 0 && e.Code == "42883" {
				// The type of an argument is not known where that of another is wrong.
				e.Message, _, _ = strings.Cut(e.Message, "(")
			}
		}
		slices.Sort(want.Rows)
		slices.Sort(got.Rows)
	}
	if strings.HasPrefix(c.text, "EXPLAIN") {
		want.Rows, got.Rows = nil, nil
	}
	if want.Error != nil && got.Error != nil && want.Error.Code == "XX000" {
		want.Error.Position = got.Error.Position // an internal error has one where it happens
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\nis sent as\n%s\nPostgreSQL (-) and we (+) differ:\n%s", c.text, text, diff)
	}
}

// values gives the values of a rewrite as texts.
func (p *pair) values(r *Rewrite, params [][]byte) []*string {
	values := make([]*string, len(r.Values))
	for i, v := range r.Values {
		s, ok := "", true
		switch v.Kind {
		case ValueGet:
			key := v.Key.Value
			ok = !v.Key.Null
			if n := v.Key.Param; n > 0 && n <= len(params) {
				key, ok = string(params[n-1]), params[n-1] != nil
			}
			if ok {
				s, ok = p.table[key]
			}
		case ValueObject:
			s = toJSON(p.table)
		case ValueList: // Go writes the keys of a map in order
			s = toJSON(p.table)
		case ValueRows:
			var rows []map[string]string
			for _, k := range slices.Sorted(maps.Keys(p.table)) {
				rows = append(rows, map[string]string{"key": k, "value": p.table[k]})
			}
			s = toJSON(rows)
		}
		if ok {
			values[i] = &s
		}
	}
	return values
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// extended runs a statement by Parse, Describe, Bind and Execute, in a transaction that is rolled back.
func (p *pair) extended(t *testing.T, conn *pgconn.PgConn, text string, declared []uint32, original string, r *Rewrite, s Statement, format int16) (o outcome) {
	ctx := context.Background()
	defer p.cleanUp(t, conn)
	must(t, conn, "BEGIN")
	first := max(s.MaxParam, len(declared)) + 1
	failed := func(err error) outcome {
		e := refusalOf(err)
		if e == nil {
			t.Fatalf("%s: %v", text, err)
		}
		if r != nil {
			e.Message, e.Position = r.MapError(original, first, e.Code, e.Message, e.Position)
		}
		return outcome{Error: e}
	}
	d, err := conn.Prepare(ctx, "", text, declared)
	if err != nil {
		return failed(err)
	}
	oids := d.ParamOIDs
	if r != nil {
		oids = oids[:first-1]
	}
	params := make([][]byte, len(oids))
	for i, oid := range oids {
		params[i] = []byte(map[uint32]string{oidInt4: "1", oidInt8: "1", oidInt2: "1", oidBool: "t"}[oid])
		if len(params[i]) == 0 {
			params[i] = []byte("a")
		}
	}
	o.Fields = append(o.Fields, fmt.Sprint("parameters ", oids))
	sent := params
	if r != nil {
		for _, v := range p.values(r, params) {
			if v == nil {
				sent = append(sent, nil)
			} else {
				sent = append(sent, []byte(*v))
			}
		}
	}
	result := conn.ExecPrepared(ctx, "", sent, nil, []int16{format}).Read()
	if result.Err != nil {
		return failed(result.Err)
	}
	p.read(t, &o, r, result, format)
	return o
}

// simple runs a statement as a simple query.
func (p *pair) simple(t *testing.T, conn *pgconn.PgConn, text, original string, r *Rewrite, mapped func(code, message string, pos int) (string, int)) (o outcome) {
	ctx := context.Background()
	defer p.cleanUp(t, conn)
	must(t, conn, "BEGIN")
	failed := func(err error) outcome {
		e := refusalOf(err)
		if e == nil {
			t.Fatalf("%s: %v", text, err)
		}
		if r != nil {
			e.Message, e.Position = mapped(e.Code, e.Message, e.Position)
		}
		return outcome{Error: e}
	}
	if strings.HasPrefix(original, "COPY") {
		var b bytes.Buffer
		tag, err := conn.CopyTo(ctx, &b, text)
		if err != nil {
			return failed(err)
		}
		return outcome{Rows: strings.Split(b.String(), "\n"), Tag: tag.String()}
	}
	if strings.HasPrefix(original, "EXECUTE") {
		must(t, conn, "PREPARE q AS SELECT $1::text || 'x', $2::text")
	}
	results, err := conn.Exec(ctx, text).ReadAll()
	if err != nil {
		return failed(err)
	}
	p.read(t, &o, r, results[0], 0)
	if strings.HasPrefix(original, "PREPARE") {
		p.executePrepared(t, conn, r, &o)
	}
	return o
}

// executePrepared runs what a PREPARE has prepared, with values added to the arguments where it was rewritten.
func (p *pair) executePrepared(t *testing.T, conn *pgconn.PgConn, r *Rewrite, o *outcome) {
	types, err := conn.Exec(context.Background(), "SELECT parameter_types FROM pg_prepared_statements WHERE name = 's'").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	text := "EXECUTE s"
	n := 0
	if s := strings.Trim(string(types[0].Rows[0][0]), "{}"); s != "" {
		n = len(strings.Split(s, ","))
	}
	if r != nil {
		n -= len(r.Values)
	}
	for i := range n {
		text += map[bool]string{true: "('1'", false: ", '1'"}[i == 0]
	}
	if n > 0 {
		text += ")"
	}
	if r != nil && len(r.Values) > 0 {
		var more []string
		for _, v := range p.values(r, nil) {
			more = append(more, Quote(v))
		}
		e := Parse(text, standard).Executions[0]
		add := "(" + strings.Join(more, ", ") + ")"
		if e.Args > 0 {
			add = ", " + strings.Join(more, ", ")
		}
		text = text[:e.At] + add + text[e.At:]
	}
	results, err := conn.Exec(context.Background(), text).ReadAll()
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return
	}
	p.read(t, o, r, results[0], 0)
}

// read notes columns, rows and tag, and runs what is harvested.
func (p *pair) read(t *testing.T, o *outcome, r *Rewrite, result *pgconn.Result, format int16) {
	harvest := make([]*Harvest, len(result.FieldDescriptions))
	for i, f := range result.FieldDescriptions {
		if r != nil {
			for n := range r.Harvest {
				if f.Name == HarvestName(n) {
					harvest[i] = &r.Harvest[n]
					f.Name, f.DataTypeOID, f.DataTypeSize = harvest[i].Name, oidText, -1
					if harvest[i].Op == OpSet {
						f.DataTypeOID, f.DataTypeSize = 2278, 4
					}
				}
			}
		}
		o.Fields = append(o.Fields, fmt.Sprint(f.Name, " ", f.DataTypeOID, " ", f.DataTypeSize, " ", f.TypeModifier, " ", f.Format))
	}
	for _, row := range result.Rows {
		for i, h := range harvest {
			if h != nil {
				row[i] = p.run(t, h, row[i], format)
			}
		}
		o.Rows = append(o.Rows, showRow(row))
	}
	o.Tag += result.CommandTag.String()
}

// run runs a call with the arguments that postgres has evaluated.
func (p *pair) run(t *testing.T, h *Harvest, array []byte, format int16) []byte {
	var args []*string
	if err := pgtype.NewMap().Scan(1009, format, array, &args); err != nil || len(args) != h.Args {
		t.Fatalf("%q: %v", array, errors.Join(err, fmt.Errorf("%d arguments", len(args))))
	}
	switch {
	case h.Op == OpSet && args[0] == nil:
		p.refused, p.after = true, nil
	case h.Op == OpSet && args[1] == nil:
		delete(p.table, *args[0])
	case h.Op == OpSet:
		p.table[*args[0]] = *args[1]
	case args[0] == nil:
		return nil
	default:
		if v, ok := p.table[*args[0]]; ok {
			return []byte(v)
		}
		return nil
	}
	return []byte{}
}

// cleanUp ends the transaction and compares the tables, if the calls have run.
func (p *pair) cleanUp(t *testing.T, conn *pgconn.PgConn) {
	if conn == p.real && conn.TxStatus() == 'T' {
		results, err := conn.Exec(context.Background(), "SELECT k, v FROM raftable_kv").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		after := map[string]string{}
		for _, row := range results[0].Rows {
			after[string(row[0])] = string(row[1])
		}
		p.after = after
	}
	must(t, conn, "ROLLBACK; DEALLOCATE ALL")
	if conn == p.plain {
		if p.after != nil && !t.Failed() {
			if diff := cmp.Diff(p.after, p.table); diff != "" {
				t.Errorf("tables of PostgreSQL (-) and ours (+) differ:\n%s", diff)
			}
		}
		p.after = nil
		p.table = startTable()
	}
}
