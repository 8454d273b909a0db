package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// postgres runs one of PostgreSQL's programs.
func (w *world) postgres(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	path, err := pgtest.Program(name)
	if err != nil {
		// Debian keeps some programs out of PATH, where a server that was found in PATH does not lead to.
		paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if len(paths) == 0 {
			t.Fatal(err)
		}
		path = paths[len(paths)-1]
	}
	return w.program(t, env, append([]string{path}, args...)...)
}

// sql runs statements past the proxy and gives what they say, without alignment.
func (w *world) sql(t *testing.T, database string, statements ...string) string {
	t.Helper()
	args := []string{"-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	return strings.TrimSpace(w.postgres(t, w.direct(), "psql", args...))
}

// changing is what differs from run to run, or from one version of the server to the next, in psql's output.
var changing = regexp.MustCompile(`PID \d+|LOCATION: .*`)

// testPsql runs a script of ordinary statements with and without the proxy, which must say the same, and one with calls.
func (w *world) testPsql(t *testing.T) {
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	script := func(env []string, file string) string {
		// Both outputs go to one stream, so that errors and notices keep their place.
		out := w.program(t, env, "sh", "-c", `exec "$0" -X -a -f "$1" 2>&1`, psql, file)
		return changing.ReplaceAllString(out, "…")
	}
	direct, through := script(w.direct(), "psql/ordinary.sql"), script(w.through(), "psql/ordinary.sql")
	if direct != through {
		t.Errorf("psql says\n%s\nand through the proxy\n%s", direct, through)
	}
	if !strings.Contains(direct, "-- the end") || strings.Count(direct, "\n") < 100 {
		t.Errorf("the script did not run:\n%s", direct)
	}
	w.clear(t)
	want, err := os.ReadFile("testdata/psql/raftable.want")
	if err != nil {
		t.Fatal(err)
	}
	got := script(w.through(), "psql/raftable.sql")
	if got != string(want) {
		t.Errorf("psql says\n%s\nwant\n%s", got, want)
	}
	if k := w.rows()["k"]; k != "set in a transaction" {
		t.Errorf("k is %q", k)
	}
	if _, _, err := w.attempt(t, append(w.through(), "PGPASSWORD=wrong"), "", psql, "-c", "SELECT 1"); err == nil {
		t.Error("a wrong password was accepted")
	}
}

var processed = regexp.MustCompile(`number of transactions actually processed: 200/200\n`)

func (w *world) testPgbench(t *testing.T) {
	w.clear(t)
	const clients = 4
	w.postgres(t, w.through(), "pgbench", "-i", "-q", "-s", "1")
	scripts := map[string][]string{
		"tpc-b":    {"simple", "extended", "prepared"},
		"mixed":    {"simple", "extended", "prepared"},
		"pipeline": {"extended", "prepared"},
	}
	for script, modes := range scripts {
		for _, mode := range modes {
			args := []string{"-n", "-c", fmt.Sprint(clients), "-j", "2", "-t", "50", "-M", mode}
			if script != "tpc-b" {
				args = append(args, "-f", "pgbench/"+script+".sql")
			}
			out := w.postgres(t, w.through(), "pgbench", args...)
			if !processed.MatchString(out) || !strings.Contains(out, "number of failed transactions: 0 ") {
				t.Errorf("%s, %s:\n%s", script, mode, out)
			}
		}
	}
	if got := w.sql(t, "postgres", "SELECT count(*) FROM pgbench_history"); got != fmt.Sprint(8*200) {
		t.Errorf("%s transactions left a row, want %d", got, 8*200)
	}
	if rows := w.rows(); len(rows) != 2*clients+1 || rows["client 3"] != "done" || rows["'client 3'"] != "done" || rows["pipeline"] != "done" {
		t.Errorf("the table holds %q", rows)
	}
}

// testDump takes a database through the proxy into three new ones.
func (w *world) testDump(t *testing.T) {
	dir := t.TempDir()
	w.sql(t, "postgres", "CREATE DATABASE dumped")
	w.postgres(t, w.through(), "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "dumped", "-f", "psql/dumped.sql")
	plain := filepath.Join(dir, "plain.sql")
	w.postgres(t, w.through(), "pg_dump", "-f", plain, "dumped")
	if direct, through := w.postgres(t, w.direct(), "pg_dump", "dumped"), read(t, plain); restricted(direct) != restricted(through) {
		t.Errorf("pg_dump says\n%.2000s\nand through the proxy\n%.2000s", direct, through)
	}
	want := w.sql(t, "dumped", contents)
	if !strings.Contains(want, "20000|") {
		t.Fatalf("the database to dump holds %s", want)
	}
	restore := map[string]func(name string){
		"plain": func(name string) {
			w.postgres(t, w.through(), "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", name, "-f", plain)
		},
		"custom": func(name string) {
			w.postgres(t, w.through(), "pg_dump", "-Fc", "-f", filepath.Join(dir, "custom"), "dumped")
			w.postgres(t, w.through(), "pg_restore", "--exit-on-error", "-d", name, filepath.Join(dir, "custom"))
		},
		"parallel": func(name string) {
			w.postgres(t, w.through(), "pg_dump", "-Fd", "-j", "2", "-f", filepath.Join(dir, "directory"), "dumped")
			w.postgres(t, w.through(), "pg_restore", "--exit-on-error", "-j", "2", "-d", name, filepath.Join(dir, "directory"))
		},
	}
	for name, f := range restore {
		w.sql(t, "postgres", "CREATE DATABASE "+name)
		f(name)
		if got := w.sql(t, name, contents); got != want {
			t.Errorf("%s: restored\n%s\nwant\n%s", name, got, want)
		}
	}
	if out := w.postgres(t, w.through(), "pg_dumpall", "--globals-only"); !strings.Contains(out, "CREATE ROLE postgres") {
		t.Errorf("pg_dumpall says\n%s", out)
	}
}

// contents sums up what psql/dumped.sql makes.
const contents = `SELECT count(*), sum(id), md5(string_agg(id || note, ',' ORDER BY id)) FROM things
	UNION ALL SELECT count(*), sum(thing), md5(string_agg(data::text, ',' ORDER BY thing)) FROM others
	UNION ALL SELECT sum(length(lo_get(oid))), count(*), '' FROM pg_largeobject_metadata`

// restricted drops the lines with a random word that newer versions of pg_dump write.
func restricted(dump string) string {
	lines := strings.Split(dump, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, `\restrict`) || strings.HasPrefix(l, `\unrestrict`)
	}), "\n")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// testSmall runs the small programs for administrators; each line is one, and what it must say.
func (w *world) testSmall(t *testing.T) {
	for _, c := range [][]string{
		{"accepting connections", "pg_isready"},
		{"", "createdb", "small", "a comment"},
		{"", "createuser", "--createdb", "a user"},
		{"", "vacuumdb", "--analyze", "--jobs", "2", "small"},
		{"", "vacuumdb", "--analyze-only", "--all"},
		{"", "reindexdb", "--concurrently", "--jobs", "2", "small"},
		{"", "reindexdb", "--system", "small"},
		{"", "clusterdb", "small"},
		{"", "pg_amcheck", "--install-missing", "small"},
		{"All databases", "oid2name"},
		{"", "dropuser", "a user"},
		{"", "dropdb", "--force", "small"},
	} {
		if out := w.postgres(t, w.through(), c[1], c[2:]...); !strings.Contains(out, c[0]) {
			t.Errorf("%q says\n%s", c[1:], out)
		}
	}
	if got := w.sql(t, "postgres", "SELECT count(*) FROM pg_database WHERE datname = 'small'", "SELECT count(*) FROM pg_roles WHERE rolname = 'a user'"); got != "0\n0" {
		t.Errorf("left over: %q", got)
	}
}
