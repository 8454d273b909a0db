package compat

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// driver is a client program in testdata that uses one driver. It prints "ok NAME" for each check that held and
// "version …" once; it ends with another exit code than 0 at the first check that did not hold.
type driver struct {
	name     string
	packages string     // Debian's, for those who lack them
	probe    []string   // a command that succeeds where the driver is installed
	build    []string   // a command that makes the program, {} is a directory for it; nil for none
	run      []string   // relative paths are below testdata
	checks   []string   // beyond everyChecks
	rows     [][]string // key and value that the checks leave behind, beyond everyRows
	plane0   bool       // it knows no characters beyond U+FFFF
}

// everyChecks are what each driver is put to.
var everyChecks = []string{"connect", "simple", "parameters", "null", "empty", "unicode", "transaction", "error", "list", "elsewhere"}

const (
	unicodeKey   = "ключ 🔑 'é' \\x \"q\""
	unicodeValue = "значение 🗝\t'ü' \\ \"x\"\nend $1 ? :a %s"
)

// everyRows is what each program leaves in the table.
func everyRows() map[string]string {
	rows := map[string]string{
		"simple": `it's \o/`, "empty": "", unicodeKey: unicodeValue, strings.Repeat("🔑", 64): "64", "kept": "rollback or not",
		"row 1": "SET", "row 2": "SET",
	}
	for i := range 50 {
		rows[fmt.Sprintf("n%02d", i)] = fmt.Sprintf("value %02d", i)
	}
	return rows
}

// withoutAstral puts a snowman where a character beyond U+FFFF is.
func withoutAstral(rows map[string]string) map[string]string {
	snowman := func(r rune) rune {
		if r > 0xffff {
			return '☃'
		}
		return r
	}
	out := map[string]string{}
	for key, value := range rows {
		out[strings.Map(snowman, key)] = strings.Map(snowman, value)
	}
	return out
}

const python = "/usr/bin/python3" // Debian's, which its packages are for

var drivers = []driver{
	{
		name: "psycopg2", packages: "python3-psycopg2",
		probe: []string{python, "-c", "import psycopg2"}, run: []string{python, "-B", "python/with_psycopg2.py"},
		checks: []string{"cursor", "batch", "copy", "cancel", "notify"}, rows: [][]string{{"batch", "19"}},
	},
	{
		name: "psycopg 3", packages: "python3-psycopg",
		probe: []string{python, "-c", "import psycopg"}, run: []string{python, "-B", "python/with_psycopg3.py"},
		checks: []string{"binary", "cursor", "batch", "copy", "cancel", "notice", "notify"},
		rows:   [][]string{{"batch", "pipeline"}, {"binary", "bïnär"}},
	},
	{
		name: "ODBC", packages: "odbc-postgresql unixodbc python3-pyodbc",
		probe:  []string{python, "-c", odbcProbe},
		run:    []string{python, "-B", "python/with_pyodbc.py"},
		checks: []string{"cursor", "batch", "cancel"}, rows: [][]string{{"batch", "19"}},
	},
	{
		name: "DBD::Pg", packages: "libdbd-pg-perl",
		probe: []string{"perl", "-MDBD::Pg", "-e", "1"}, run: []string{"perl", "perl/dbdpg.pl"},
		checks: []string{"batch", "copy", "cancel", "notify"}, rows: [][]string{{"batch", "19"}},
	},
	{
		name: "ruby-pg", packages: "ruby-pg",
		probe: []string{"/usr/bin/ruby", "-rpg", "-e", "1"}, run: []string{"/usr/bin/ruby", "ruby/pg.rb"},
		checks: []string{"binary", "batch", "copy", "cancel", "notify"}, rows: [][]string{{"batch", "1"}, {"binary", "bïnär"}},
	},
	{
		name: "PHP", packages: "php-cli php-pgsql",
		probe: []string{"php", "-r", "exit(extension_loaded('pdo_pgsql') && extension_loaded('pgsql') ? 0 : 1);"},
		run:   []string{"php", "php/pdo.php"}, checks: []string{"cursor", "batch", "copy", "cancel", "notify"},
		rows: [][]string{{"batch", "3"}},
	},
	{
		name: "node-postgres", packages: "nodejs node-pg",
		probe: []string{"env", nodePath, "node", "-e", "require('pg'), require('pg-cursor')"},
		run:   []string{"env", nodePath, "node", "node/nodepg.js"}, checks: []string{"binary", "cursor", "batch", "cancel", "notify"},
		rows: [][]string{{"batch", "2"}, {"binary", "bïnär"}},
	},
	{
		name: "JDBC", packages: "default-jdk-headless libpostgresql-jdbc-java",
		probe:  []string{"sh", "-c", "command -v javac && test -e " + jdbc},
		build:  []string{"javac", "-cp", jdbc, "-d", "{}", "java/Jdbc.java"},
		run:    []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", "{}:" + jdbc, "Jdbc"},
		checks: []string{"binary", "fetch size", "batch", "copy", "cancel", "notify", "simple mode"},
		rows:   [][]string{{"batch", "2"}},
	},
	{
		name: "tdbc", packages: "tcl8.6 tcl8.6-tdbc-postgres",
		probe: []string{"sh", "-c", "! echo 'package require tdbc::postgres' | tclsh8.6 2>&1 | grep ."},
		run:   []string{"tclsh8.6", "-encoding", "utf-8", "tcl/tdbc.tcl"}, plane0: true,
	},
	{
		name: "libpq", packages: "gcc libc6-dev libpq-dev",
		probe: []string{"sh", "-c", "command -v gcc && pg_config --includedir | xargs -I DIR test -e DIR/libpq-fe.h"},
		build: []string{"sh", "-c", "gcc -Wall -Wextra -Werror -O1 -I$(pg_config --includedir) -o {}/libpq c/libpq.c -lpq"},
		run:   []string{"{}/libpq"}, checks: []string{"binary", "single row", "pipeline", "copy", "cancel", "notify"},
		rows: [][]string{{"batch", "19"}, {"binary", "bïnär"}},
	},
}

const (
	nodePath  = "NODE_PATH=/usr/share/nodejs:node/node_modules" // Debian's, or what npm made of node/package.json
	jdbc      = "/usr/share/java/postgresql.jar"
	odbcProbe = "import pyodbc, sys; sys.exit('PostgreSQL Unicode' not in pyodbc.drivers())"
)

func (w *world) testDriver(t *testing.T, d driver) {
	need(t, d.packages, d.probe...)
	w.clear(t)
	dir := t.TempDir()
	in := func(args []string) (out []string) {
		for _, a := range args {
			out = append(out, strings.ReplaceAll(a, "{}", dir))
		}
		return out
	}
	if d.build != nil {
		w.program(t, nil, in(d.build)...)
	}
	out := w.program(t, w.through(), in(d.run)...)
	var got []string
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "ok "); ok {
			got = append(got, strings.TrimSpace(name))
		} else if strings.HasPrefix(line, "version ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if want := slices.Concat(everyChecks, d.checks); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("checks that held:\n%q\nwant\n%q\noutput:\n%s", got, want, out)
	}
	want := everyRows()
	if d.plane0 {
		want = withoutAstral(want)
	}
	for _, row := range d.rows {
		want[row[0]] = row[1]
	}
	if rows := w.rows(); !maps.Equal(rows, want) {
		t.Errorf("the table holds\n%q\nwant\n%q", rows, want)
	}
	w.idle(t)
}

// idle waits for the sessions of programs that have ended to end.
func (w *world) idle(t *testing.T) {
	t.Helper()
	eventually(t, endLimit, "all sessions ended", func() bool { return w.proxy.Sessions() == 0 })
}

// need skips the test where a probe fails, but not in CI.
func need(t *testing.T, packages string, probe ...string) {
	t.Helper()
	cmd := exec.Command(probe[0], probe[1:]...)
	cmd.Dir = "testdata"
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	text := fmt.Sprintf("not installed: %s (Debian's packages; \"make setup\" as root installs them): %v\n%s", packages, err, out)
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// program runs a program in testdata to its end and gives its standard output.
func (w *world) program(t *testing.T, env []string, args ...string) string {
	t.Helper()
	out, errs, err := w.attempt(t, env, "", args...)
	if err != nil {
		t.Fatalf("%q: %v\n%s\n%s", args, err, out, errs)
	}
	return out
}

// attempt is program for one that may fail.
func (w *world) attempt(t *testing.T, env []string, stdin string, args ...string) (out, errs string, err error) {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = "testdata", env, strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return "", "", err
	}
	timer := time.AfterFunc(runLimit, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	return stdout.String(), stderr.String(), err
}
