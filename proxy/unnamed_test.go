package proxy

import (
	"strings"
	"testing"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// TestQueryTakesUnnamed shows that a query takes the unnamed statement and the unnamed portal away, as it does in PostgreSQL, whoever
// answers it and however it ends.
func TestQueryTakesUnnamed(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: newMapTable(), Logger: testLogger(t)})
	w := dialWire(t, addr)
	for _, c := range []struct{ query, code string }{
		{"SELECT 1", ""},
		{"SELECT raftable(1)", "42883"},
		{"SELECT raftable('a')", "22023"},
		{"SELECT raftable('a'), 1", "22023"},
		{"COPY (SELECT raftable('a')) TO STDOUT", "22023"},
		{"EXECUTE p(raftable('a'))", "22023"},
		{"SELECT 1 WHERE raftable('a', 'b') IS NULL", "0A000"},
		{"SELECT 1; SELECT raftable('a')", "22023"},
		{"SELECT 1; SELECT raftable('a'); SELECT 1/0", "22012"},
		{"SELECT 1; SELECT raftable('a'); SELECT 1", ""},
		{"SELECT raftable('a'); SELECT $1", "42P02"},
		{"DECLARE c CURSOR FOR SELECT 1; SELECT raftable('a'); SELECT $1", "42P02"},
		{"DECLARE c CURSOR FOR SELECT 1; SELECT raftable('a'); SELECT 1/0", "22012"},
		{"SELECT raftable('a'); SAVEPOINT s", "25P01"},
	} {
		timeout := "5s"
		if c.code == "22023" {
			timeout = "-1" // which calls find only when they run
		}
		w.expect("SELECT set_config('raftable.timeout', '"+timeout+"', false)", "C SELECT 1")
		for _, text := range []string{"SELECT 7", "SHOW work_mem", "SELECT raftable('a'), 7"} {
			w.run(&script{lines: []string{`> parse "" ` + quote(text), "> sync", "> wait"}})
			got := strings.Join(w.run(&script{lines: []string{"> query " + quote(c.query), `> bind "" ""`, "> sync", "> wait"}}), "\n")
			query, bind, _ := strings.Cut(got, "Z I\n")
			if strings.Contains(query, "E S=") != (c.code != "") || !strings.Contains(query, c.code) {
				t.Errorf("%s: got %s", c.query, query)
			}
			if want := "E S=\"ERROR\" C=\"26000\" M=\"unnamed prepared statement does not exist\"\nZ I"; bind != want {
				t.Errorf("%s behind %s: Bind got %s", c.query, text, bind)
			}
		}
	}
}
