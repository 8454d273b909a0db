package oracle

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

var (
	regressDir   = flag.String("oracle.regress", "../../bin/regress", "where the folders sql and data of PostgreSQL's regression tests are")
	regressCount = flag.Int("oracle.regress.n", 4000, "how many statements with calls in place of constants to compare in these")
	regressFiles = flag.String("oracle.regress.files", "", "names of such tests, separated by commas; empty for all that fit")
)

// unfitFiles are regression tests that two databases of one server cannot run one beside the other, or that take long and have no
// queries to speak of.
var unfitFiles = []string{
	"alter_generic", "alter_operator", "async", "cluster", "collate.icu.utf8", "collate.linux.utf8", "collate.windows.win1252",
	"compression", "create_am", "create_operator", "create_role", "database", "dependency", "event_trigger",
	"hs_primary_extremes", "hs_primary_setup", "hs_standby_allowed", "hs_standby_check", "hs_standby_disallowed",
	"hs_standby_functions", "index_including_gist", "init_privs", "largeobject", "lock", "object_address", "password",
	"prepared_xacts", "privileges", "psql", "psql_crosstab", "publication", "roleattributes", "rolenames", "rowsecurity",
	"rules", "sanity_check", "security_label", "select_parallel", "select_views", "stats", "stats_ext", "subscription",
	"sysviews", "tablespace", "txid", "vacuum", "vacuum_parallel", "write_parallel",
}

// TestRegress runs PostgreSQL's own regression tests on both sides, and behind each query the same with calls in place of string
// constants, whose values are the constants. The answers are equal, errors included. Every other difference between the sides, such as an OID,
// leaves the query out.
func TestRegress(t *testing.T) {
	names := regressTests(t)
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.end()
	if err := w.build(""); err != nil {
		t.Fatal(err)
	}
	count := *regressCount
	if testing.Short() {
		count = 100
	}
	r := regress{w: w, rand: rand.New(rand.NewPCG(1, 2)), vars: map[string]string{}, srcdir: readable(t, *regressDir)}
	if err := r.file("test_setup"); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, name := range names {
		total += len(r.variants(name))
	}
	r.share = float64(count) / float64(max(total, 1))
	var differences []error
	for _, name := range names {
		if err := r.file(name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, diff := range r.differences {
			differences = append(differences, fmt.Errorf("%s: %w", name, diff))
		}
		if r.differences = nil; len(differences) > maxDifferences {
			break
		}
	}
	t.Logf("%d of about %d statements with calls compared, %d of them run without an error; %d queries are not the same on both sides",
		r.compared, total, r.fit, r.unstable)
	if r.fit*3 < r.compared || r.unstable > r.compared {
		t.Error("most are unfit")
	}
	settle(t, "TestRegress", errors.Join(differences...))
}

// regressTests gives the names of the tests in the order in which they depend on each other.
func regressTests(t *testing.T) (names []string) {
	t.Helper()
	schedule, err := os.ReadFile(filepath.Join(*regressDir, "parallel_schedule"))
	if err != nil {
		t.Skipf("PostgreSQL's regression tests are not here: %v", err)
	}
	for _, line := range strings.Split(string(schedule), "\n") {
		if list, ok := strings.CutPrefix(line, "test:"); ok {
			names = append(names, strings.Fields(list)...)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "test_setup" || slices.Contains(unfitFiles, name) })
	if *regressFiles != "" {
		names = strings.Split(*regressFiles, ",")
	}
	return names
}

// readable copies data to where a server may read it that has another user.
func readable(t *testing.T, dir string) string {
	t.Helper()
	to, err := os.MkdirTemp("", "regress")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(to) })
	if err := errors.Join(os.CopyFS(filepath.Join(to, "data"), os.DirFS(filepath.Join(dir, "data"))), os.Chmod(to, 0o755)); err != nil {
		t.Fatal(err)
	}
	return to
}

// regress is a run of regression tests.
type regress struct {
	w     *world
	rand  *rand.Rand
	vars  map[string]string // of psql
	share float64           // of the variants that is compared

	srcdir string // where data is

	compared, fit, unstable int
	differences             []error // of one test
}

// command is a statement, and the data of a COPY.
type command struct{ text, data string }

var (
	variable  = regexp.MustCompile(`(^|[^:\w]):('?)(\w+)('?)`)
	copyStdin = regexp.MustCompile(`(?is)^\s*copy\b.*\bfrom\s+stdin\b`)
)

// expand puts psql's variables in.
func (r *regress) expand(s string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		p := variable.FindStringSubmatch(m)
		value, ok := r.vars[p[3]]
		switch {
		case !ok || p[2] != p[4]:
			return m
		case p[2] != "":
			value = literal(value)
		}
		return p[1] + value
	})
}

// commands reads a test.
func (r *regress) commands(name string) (list []command, err error) {
	b, err := os.ReadFile(filepath.Join(*regressDir, "sql", name+".sql"))
	if err != nil {
		return nil, err
	}
	var sql strings.Builder
	add := func() {
		text := sql.String()
		sql.Reset()
		texts, err := pg_query.SplitWithScanner(text, true)
		if err != nil {
			texts = []string{text}
		}
		for _, text := range texts {
			list = append(list, command{text: r.expand(text)})
		}
	}
	for lines := strings.Split(string(b), "\n"); len(lines) > 0; lines = lines[1:] {
		line := lines[0]
		if words := strings.Fields(line); strings.HasPrefix(line, `\`) && len(words) > 0 {
			add()
			r.meta(words)
			continue
		}
		if at := strings.Index(line, `\g`); at >= 0 {
			line = line[:at] + ";"
		}
		sql.WriteString(line + "\n")
		if copyStdin.MatchString(lastStatement(sql.String())) && strings.HasSuffix(strings.TrimSpace(line), ";") {
			add()
			end := slices.Index(lines, `\.`)
			if end < 0 {
				continue
			}
			list[len(list)-1].data = strings.Join(lines[1:end], "\n") + "\n"
			lines = lines[end:]
		}
	}
	add()
	return list, nil
}

// lastStatement is what stands behind the last semicolon but the one at the end.
func lastStatement(sql string) string {
	sql = strings.TrimRight(sql, "; \n\t")
	return sql[strings.LastIndexByte(sql, ';')+1:]
}

// meta runs those of psql's own commands that set variables.
func (r *regress) meta(words []string) {
	switch {
	case words[0] == `\getenv` && words[1] == "abs_srcdir":
		r.vars["abs_srcdir"] = r.srcdir
	case words[0] == `\set` && len(words) > 2:
		var value string
		for _, word := range words[2:] {
			if word[0] == '\'' {
				value += strings.Trim(word, "'")
			} else {
				value += r.expand(word)
			}
		}
		r.vars[words[1]] = value
	}
}

// mayVary says whether a statement has variants: not one with parameters, with rows that are others each time, or with SQL in a
// string.
func mayVary(text string) bool {
	return query.MatchString(text) && !parameterSign.MatchString(text) && !changingView.MatchString(text) && !strings.Contains(text, "$$")
}

var query = regexp.MustCompile(`(?is)^(\s|--[^\n]*\n|/\*.*?\*/)*\(*\s*(select|with|values|table|insert|update|delete|merge)\b`)

// variants are the statements with calls of a test.
func (r *regress) variants(name string) (all []*variant) {
	list, _ := r.commands(name)
	for _, c := range list {
		if mayVary(c.text) {
			all = append(all, variantsOf(c.text)...)
		}
	}
	return all
}

// file runs a test.
func (r *regress) file(name string) error {
	list, err := r.commands(name)
	if err != nil {
		return err
	}
	r.w.plain.hangUp()
	r.w.behind.hangUp()
	for _, c := range list {
		plain, behind, err := r.both(c.text, c.data)
		if err != nil {
			return err
		}
		if !mayVary(c.text) || name == "test_setup" {
			continue
		}
		if !slices.Equal(plain, behind) {
			r.unstable++
			continue
		}
		for _, v := range variantsOf(c.text) {
			if r.rand.Float64() >= r.share || r.w.plain.session.status == 'E' {
				continue
			}
			if err := r.compare(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// both runs a text on both sides.
func (r *regress) both(text, data string) (plain, behind []string, err error) {
	said := map[*side][]string{}
	for _, s := range []*side{r.w.plain, r.w.behind} {
		if s.session == nil || s.session.err != nil {
			s.hangUp()
			if err := s.connect(); err != nil {
				return nil, nil, err
			}
			s.session.query("SET statement_timeout = '5s'; SET extra_float_digits = 0; SET datestyle = 'Postgres, MDY'; " +
				"SET timezone = 'PST8PDT'; SET intervalstyle = 'postgres_verbose'")
		}
		s.names.seen = map[uint32]string{}
		s.session.message('Q', text)
		if data != "" {
			s.session.message('d', []byte(data))
			s.session.message('c')
		}
		said[s] = inOrder(s.session.until('Z'))
	}
	return said[r.w.plain], said[r.w.behind], nil
}

// inOrder sorts rows, since plans may differ.
func inOrder(said []string) []string {
	first := slices.IndexFunc(said, func(line string) bool { return strings.HasPrefix(line, "D") })
	if first < 0 {
		return said
	}
	end := first
	for end < len(said) && strings.HasPrefix(said[end], "D") {
		end++
	}
	slices.Sort(said[first:end])
	return said
}

// compare runs a variant on both sides, in a transaction that is undone.
func (r *regress) compare(v *variant) error {
	if err := r.w.fill(v.table, false); err != nil {
		return err
	}
	begin, undo := "BEGIN", "ROLLBACK"
	if r.w.plain.session.status == 'T' {
		begin, undo = "SAVEPOINT raftproxy", "ROLLBACK TO raftproxy; RELEASE raftproxy"
	}
	if _, _, err := r.both(begin, ""); err != nil {
		return err
	}
	mode := []string{modeSimple, modeText, modeBinary, modePrepared}[r.rand.IntN(4)]
	if mode == modeBinary {
		if a, b := r.play(v.original, mode); !slices.Equal(a, b) { // what is a name in text form is an OID
			mode = modeText
		}
		if _, _, err := r.both(undo+"; "+begin, ""); err != nil {
			return err
		}
	}
	plain, behind := r.play(v.text, mode)
	if slices.ContainsFunc(plain, hidden.MatchString) {
		_, _, err := r.both(undo, "")
		return err
	}
	r.compared++
	if codeOf(plain) == "ok" {
		r.fit++
	}
	diff := cmp.Diff(plain, behind)
	if _, _, err := r.both(undo, ""); err != nil {
		return err
	}
	if diff != "" {
		r.differences = append(r.differences, fmt.Errorf("%s:\n\t%s\n%s", mode, v.text, diff))
	}
	return nil
}

// hidden is what the oracle says where the search path does not lead to its functions, which the proxy does without.
var hidden = regexp.MustCompile(`function raftable\(unknown\) does not exist`)

// play runs a text on both sides in one of the modes.
func (r *regress) play(text, mode string) (plain, behind []string) {
	run := func(s *side) []string {
		s.names.seen = map[uint32]string{}
		return inOrder(s.session.playStep(&step{text: text}, mode, nil))
	}
	return run(r.w.plain), run(r.w.behind)
}
