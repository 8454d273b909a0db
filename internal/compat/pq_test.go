package compat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
)

func (w *world) testPq(t *testing.T) {
	for name, option := range map[string]string{
		"named and unnamed": "", "binary parameters": " binary_parameters=yes",
	} {
		t.Run(name, func(t *testing.T) {
			w.clear(t)
			db, err := sql.Open("postgres", w.dsn()+option)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			db.SetMaxOpenConns(1) // so that every statement is of the same session
			pqValues(t, db)
			pqTransaction(t, db)
			pqErrors(t, db)
			pqElsewhere(t, db)
			pqCopy(t, db)
			pqCancel(t, db)
		})
	}
	w.pqNotify(t)
}

func pqExec(t *testing.T, db interface {
	Exec(query string, args ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func pqOne(t *testing.T, db *sql.DB, query string, args ...any) sql.NullString {
	t.Helper()
	var v sql.NullString
	if err := db.QueryRow(query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func pqFails(t *testing.T, code string, err error) {
	t.Helper()
	var e *pq.Error
	if !errors.As(err, &e) || string(e.Code) != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}

func pqValues(t *testing.T, db *sql.DB) {
	set, err := db.Prepare("SELECT raftable($1, $2)")
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	get, err := db.Prepare("SELECT raftable($1)")
	if err != nil {
		t.Fatal(err)
	}
	defer get.Close()
	for key, value := range everyRows() {
		if _, err := set.Exec(key, value); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := get.QueryRow(key).Scan(&got); err != nil || got != value {
			t.Fatalf("%q, %v", got, err)
		}
		same(t, pqOne(t, db, "SELECT raftable($1)", key).String, value)
		same(t, pqOne(t, db, "SELECT $1::text || 'x'", value).String, value+"x")
	}
	pqExec(t, db, "SELECT raftable($1, $2)", "gone", "here")
	pqExec(t, db, "SELECT raftable($1, $2)", "gone", nil)
	same(t, pqOne(t, db, "SELECT raftable($1)", "gone").Valid, false)
	pqExec(t, db, "SELECT raftable('simple', 'of two'); SELECT raftable('simple', $$it's \\o/$$)")
	same(t, pqOne(t, db, "SELECT raftable('simple')").String, `it's \o/`)
	rows, err := db.Query("SELECT key, value FROM raftable()")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	want := everyRows()
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil || want[key] != value {
			t.Errorf("%q: %q, %v", key, value, err)
		}
		delete(want, key)
	}
	if rows.Err() != nil || len(want) > 0 {
		t.Errorf("%v; not listed: %q", rows.Err(), want)
	}
}

func pqTransaction(t *testing.T, db *sql.DB) {
	pqExec(t, db, "DROP TABLE IF EXISTS compat_pq")
	pqExec(t, db, "CREATE TABLE compat_pq (id int PRIMARY KEY, note text)")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	pqExec(t, tx, "INSERT INTO compat_pq VALUES ($1, 'gone')", 1)
	pqExec(t, tx, "SELECT raftable($1, $2)", "kept", "set in a transaction")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	same(t, pqOne(t, db, "SELECT count(*) FROM compat_pq").String, "0")
	same(t, pqOne(t, db, "SELECT raftable('kept')").String, "set in a transaction")
}

func pqErrors(t *testing.T, db *sql.DB) {
	long := strings.Repeat("x", 65)
	_, err := db.Exec("SELECT raftable($1, $2)", long, "v")
	pqFails(t, "22001", err)
	_, err = db.Exec("SELECT raftable(1)")
	pqFails(t, "42883", err)
	same(t, pqOne(t, db, "SELECT 1").String, "1")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec("SELECT raftable($1, $2)", long, "v")
	pqFails(t, "22001", err)
	_, err = tx.Exec("SELECT 1")
	pqFails(t, "25P02", err)
	_, err = tx.Exec("SELECT raftable('kept')")
	pqFails(t, "25P02", err)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
}

// pqElsewhere has calls in statements that PostgreSQL runs.
func pqElsewhere(t *testing.T, db *sql.DB) {
	same(t, pqOne(t, db, "SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL").String, "2")
	same(t, pqOne(t, db, "SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k").String, "value 03")
	some, err := db.Prepare("SELECT raftable($1) || i FROM generate_series(1, 2) AS i WHERE raftable($2) = $3")
	if err != nil {
		t.Fatal(err)
	}
	defer some.Close()
	for i := range 10 {
		var got string
		if err := some.QueryRow(fmt.Sprintf("n%02d", i), "simple", `it's \o/`).Scan(&got); err != nil || got != fmt.Sprintf("value %02d1", i) {
			t.Fatalf("%q, %v", got, err)
		}
		pqExec(t, db, "SELECT k, raftable(k, upper($1)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k", "set")
	}
	pqExec(t, db, "SELECT 1; SELECT raftable('row 1'), 2; SELECT raftable('row 2', 'SET')")
	same(t, pqOne(t, db, "SELECT raftable('row 1') || raftable('row 2')").String, "SETSET")
	_, err = db.Exec("SELECT 1 WHERE raftable('row 1', 'x') IS NULL")
	pqFails(t, "0A000", err)
}

func pqCopy(t *testing.T, db *sql.DB) {
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	copyIn, err := tx.Prepare("COPY compat_pq (id, note) FROM STDIN")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := copyIn.Exec(i, "raftable('k')"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(copyIn.Close(), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	same(t, pqOne(t, db, "SELECT count(*) FROM compat_pq").String, "100")
	same(t, pqOne(t, db, "SELECT raftable('kept')").String, "set in a transaction")
}

// pqCancel lets a deadline pass, at which the driver asks for a cancel.
func pqCancel(t *testing.T, db *sql.DB) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(ctx, "SELECT pg_sleep(600)"); err == nil {
		t.Error("pg_sleep came to its end")
	}
	same(t, pqOne(t, db, "SELECT raftable('kept')").String, "set in a transaction")
}

func (w *world) pqNotify(t *testing.T) {
	l := pq.NewListener(w.dsn(), time.Second, time.Minute, nil)
	defer l.Close()
	if err := l.Listen("compat_pq"); err != nil {
		t.Fatal(err)
	}
	w.sql(t, "postgres", "NOTIFY compat_pq, 'другой'")
	select {
	case n := <-l.Notify:
		if n.Extra != "другой" {
			t.Errorf("%+v", n)
		}
	case <-time.After(endLimit):
		t.Error("no notification")
	}
}
