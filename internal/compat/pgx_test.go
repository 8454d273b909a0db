package compat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pgxModes are pgx's ways to run a query: with named statements that are kept, with descriptions that are kept, with an
// unnamed statement each time, without a description, and with constants in a simple query.
var pgxModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec,
	pgx.QueryExecModeSimpleProtocol,
}

func (w *world) dsn() string {
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password)
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres password='%s' sslmode=disable", w.host, w.port, quoted)
}

func (w *world) pgxConnect(t *testing.T, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(w.dsn())
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	db, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return db
}

func (w *world) testPgx(t *testing.T) {
	for _, mode := range pgxModes {
		t.Run(mode.String(), func(t *testing.T) {
			w.clear(t)
			db := w.pgxConnect(t, mode)
			pgxValues(t, db)
			pgxTransaction(t, db)
			pgxErrors(t, db)
			pgxList(t, db)
			pgxElsewhere(t, db)
			pgxBatch(t, db)
			pgxCopyCancelNotify(t, db, w.pgxConnect(t, mode))
		})
	}
}

func one[T any](t *testing.T, db *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func run(t *testing.T, db *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func same[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func pgCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func fails(t *testing.T, db *pgx.Conn, code, sql string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), sql, args...)
	same(t, pgCode(err), code)
}

func pgxValues(t *testing.T, db *pgx.Conn) {
	for key, value := range everyRows() {
		run(t, db, "SELECT raftable($1, $2)", key, value)
		same(t, one[string](t, db, "SELECT raftable($1)", key), value)
		same(t, one[string](t, db, "SELECT $1::text || 'x'", value), value+"x")
	}
	run(t, db, "SELECT raftable($1, $2, $3)", "timed", "in time", int32(20000))
	same(t, one[*string](t, db, "SELECT raftable($1)", "missing"), nil)
	run(t, db, "SELECT raftable($1, $2)", "timed", nil)
	same(t, one[*string](t, db, "SELECT raftable($1)", "timed"), nil)
	for _, format := range []int16{pgx.TextFormatCode, pgx.BinaryFormatCode} {
		rows, err := db.Query(t.Context(), "SELECT raftable($1) AS a, raftable('missing') AS b",
			pgx.QueryResultFormats{format}, "simple")
		if err != nil {
			t.Fatal(err)
		}
		d := rows.FieldDescriptions()
		values, err := pgx.CollectOneRow(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
		if err != nil || fmt.Sprint(values) != `[it's \o/ <nil>]` || d[0].Name != "a" || d[1].DataTypeOID != 25 {
			t.Fatalf("%q, %v, %v", values, d, err)
		}
	}
}

func pgxTransaction(t *testing.T, db *pgx.Conn) {
	run(t, db, "DROP TABLE IF EXISTS compat_pgx")
	run(t, db, "CREATE TABLE compat_pgx (id int PRIMARY KEY, note text)")
	undo := errors.New("undo")
	err := pgx.BeginFunc(t.Context(), db, func(pgx.Tx) error {
		run(t, db, "INSERT INTO compat_pgx VALUES ($1, 'gone')", 1)
		run(t, db, "SELECT raftable($1, $2)", "kept", "rollback or not")
		return undo
	})
	same(t, err, undo)
	same(t, one[int](t, db, "SELECT count(*) FROM compat_pgx"), 0)
	same(t, one[string](t, db, "SELECT raftable('kept')"), "rollback or not")
}

func pgxErrors(t *testing.T, db *pgx.Conn) {
	long := strings.Repeat("x", 65)
	fails(t, db, "22001", "SELECT raftable($1, $2)", long, "v")
	fails(t, db, "42883", "SELECT raftable(1)")
	fails(t, db, "42883", "SELECT raftable($1::int)", 1)
	same(t, one[int](t, db, "SELECT 1"), 1)
	run(t, db, "BEGIN")
	fails(t, db, "22001", "SELECT raftable($1, $2)", long, "v")
	fails(t, db, "25P02", "SELECT 1")
	fails(t, db, "25P02", "SELECT raftable('kept')")
	run(t, db, "ROLLBACK")
}

func pgxList(t *testing.T, db *pgx.Conn) {
	rows, err := db.Query(t.Context(), "SELECT key, value FROM raftable()")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ Key, Value string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil || len(list) != len(everyRows()) {
		t.Fatalf("%v, %v", list, err)
	}
	if !slices.IsSortedFunc(list, func(a, b row) int { return strings.Compare(a.Key, b.Key) }) {
		t.Error("not in key order")
	}
}

// pgxElsewhere has calls in statements that PostgreSQL runs.
func pgxElsewhere(t *testing.T, db *pgx.Conn) {
	same(t, one[int](t, db, "SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), 2)
	same(t, one[string](t, db, "SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), "value 03")
	for i := range 10 {
		for _, format := range []int16{pgx.TextFormatCode, pgx.BinaryFormatCode} {
			rows, err := db.Query(t.Context(), "SELECT i + 1 AS n, raftable($1) AS v FROM generate_series(1, 2) AS i WHERE raftable($2) = $3",
				pgx.QueryResultFormats{format}, fmt.Sprintf("n%02d", i), "simple", `it's \o/`)
			if err != nil {
				t.Fatal(err)
			}
			type row struct {
				N int
				V string
			}
			got, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
			value := fmt.Sprintf("value %02d", i)
			if err != nil || !slices.Equal(got, []row{{2, value}, {3, value}}) {
				t.Fatalf("%v, %v", got, err)
			}
		}
		run(t, db, "SELECT k, raftable(k, upper($1)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k", "set")
	}
	same(t, one[string](t, db, "SELECT raftable('row 1') || raftable('row 2')"), "SETSET")
	fails(t, db, "0A000", "SELECT 1 WHERE raftable('row 1', 'x') IS NULL")
	fails(t, db, "42883", "SELECT raftable($1::int), 1", 1)
}

// pgxBatch sends calls and ordinary statements in one pipeline, once without and once with an error in the middle. In the
// simple protocol they are one text.
func pgxBatch(t *testing.T, db *pgx.Conn) {
	b := &pgx.Batch{}
	for i := range 20 {
		value := fmt.Sprint(i)
		b.Queue("SELECT raftable($1, $2)", "simple", value)
		b.Queue("INSERT INTO compat_pgx VALUES ($1, $2)", i, value)
		b.Queue("SELECT raftable($1)", "simple").QueryRow(func(r pgx.Row) error {
			var got string
			if err := r.Scan(&got); err != nil || got != value {
				return fmt.Errorf("got %q instead of %q: %w", got, value, err)
			}
			return nil
		})
		b.Queue("UPDATE compat_pgx SET note = note || raftable($1) WHERE id = $2", "row 1", i)
	}
	if err := db.SendBatch(t.Context(), b).Close(); err != nil {
		t.Fatal(err)
	}
	same(t, one[int](t, db, "SELECT count(*) FROM compat_pgx WHERE note LIKE '%SET'"), 20)
	b = &pgx.Batch{}
	b.Queue("SELECT raftable($1)", "simple")
	b.Queue("DELETE FROM compat_pgx")
	b.Queue("SELECT 1 / $1::int", 0)
	b.Queue("SELECT raftable($1, $2)", "simple", "never")
	same(t, pgCode(db.SendBatch(t.Context(), b).Close()), "22012")
	same(t, one[int](t, db, "SELECT count(*) FROM compat_pgx"), 20)
	same(t, one[string](t, db, "SELECT raftable($1)", "simple"), "19")
}

func pgxCopyCancelNotify(t *testing.T, db, other *pgx.Conn) {
	var lines [][]any
	for i := range 100 {
		lines = append(lines, []any{100 + i, "raftable('k')"})
	}
	if n, err := db.CopyFrom(t.Context(), pgx.Identifier{"compat_pgx"}, []string{"id", "note"}, pgx.CopyFromRows(lines)); err != nil || n != 100 {
		t.Fatal(n, err)
	}
	pid := one[int](t, db, "SELECT pg_backend_pid()")
	canceled := make(chan error, 1)
	go func() {
		canceled <- func() error {
			for runs := 0; runs == 0; {
				err := other.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'", pid).Scan(&runs)
				if err != nil {
					return err
				}
			}
			return db.PgConn().CancelRequest(t.Context())
		}()
	}()
	fails(t, db, "57014", "SELECT pg_sleep(600)")
	if err := <-canceled; err != nil {
		t.Fatal(err)
	}
	same(t, one[string](t, db, "SELECT raftable($1)", "kept"), "rollback or not")
	run(t, db, "LISTEN compat_pgx")
	run(t, other, "SELECT pg_notify($1, $2)", "compat_pgx", "другой")
	n, err := db.WaitForNotification(t.Context())
	if err != nil || n.Channel != "compat_pgx" || n.Payload != "другой" {
		t.Fatalf("%+v, %v", n, err)
	}
}
