package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// TestCatalogue takes statements that other people wrote, all definitions of system views, all bodies of functions in SQL
// and what psql asks for its \d commands, and puts calls in place of string constants. The value of a call is the constant
// that it is put for, so the statement must give what it gave before.
func TestCatalogue(t *testing.T) {
	w := theWorld(t)
	if err := w.build(grammarSetup); err != nil {
		t.Fatal(err)
	}
	texts := foundTexts(t, w)
	r := rand.New(rand.NewPCG(1, 2))
	var all []*variant
	for _, text := range texts {
		all = append(all, variantsOf(text)...)
	}
	if len(texts) < 200 || len(all) < 1500 {
		t.Fatalf("%d texts with %d variants is too few", len(texts), len(all))
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	checked := min(len(all), max(100, *randomCount/15))
	if testing.Short() {
		checked = 30
	}
	var differences []error
	unfit := 0
	for _, v := range all[:checked] {
		mode := []string{modeSimple, modeText, modeBinary, modePrepared, modeLimited}[r.IntN(5)]
		if v.params {
			mode = modeText
		}
		fit, diff, err := w.compareVariant(v, mode)
		if err != nil {
			t.Fatal(err)
		}
		if !fit {
			unfit++
		}
		if diff != "" {
			differences = append(differences, fmt.Errorf("%s:\n\t%s\n%s", mode, v.text, diff))
			if len(differences) == maxDifferences {
				break
			}
		}
	}
	t.Logf("%d of %d variants of %d texts, %d of them unfit for a call", checked, len(all), len(texts), unfit)
	if unfit*2 > checked {
		t.Error("most variants are unfit")
	}
	settle(t, "TestCatalogue", errors.Join(differences...))
}

// variant is a text with calls in place of some constants.
type variant struct {
	original, text string
	table          map[string]string
	params         bool // it has parameters, and can be described only
}

// foundTexts gives the statements, each once.
func foundTexts(t *testing.T, w *world) (texts []string) {
	t.Helper()
	for _, query := range []string{
		`SELECT pg_get_viewdef(c.oid) FROM pg_class c WHERE relkind = 'v' AND relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
			AND relname NOT IN ('pg_timezone_names', 'pg_timezone_abbrevs') ORDER BY relname`,
		`SELECT coalesce(nullif(prosrc, ''), regexp_replace(pg_get_function_sqlbody(oid), '^RETURN ', 'SELECT ')) FROM pg_proc
			WHERE prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql') AND oid < 16384 ORDER BY oid`,
	} {
		rows, err := w.plain.ask(query)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			texts = append(texts, strings.TrimSuffix(strings.TrimSpace(row[0]), ";"))
		}
	}
	texts = append(texts, psqlTexts(t, w)...)
	slices.Sort(texts)
	return slices.Compact(texts)
}

// psqlQuery is a query as psql shows it with -E.
var psqlQuery = regexp.MustCompile(`(?s)\*+ QUERY \*+\n(.*?);?\n\*{10,}`)

var quotedNumber = regexp.MustCompile(`'([1-9]\d{4,8})'`)

// hasOwnOID says whether a text has the OID of something that a user made: the other database has it not.
func hasOwnOID(text string) bool {
	for _, m := range quotedNumber.FindAllStringSubmatch(text, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && n >= 16384 {
			return true
		}
	}
	return false
}

// psqlTexts asks psql what it asks.
func psqlTexts(t *testing.T, w *world) (texts []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := []string{"-E", "--set=ON_ERROR_STOP=0"}
	for _, command := range []string{
		`\d`, `\d t`, `\d+ t`, `\d+ pg_class`, `\d+ pg_proc`, `\d+ pg_index`, `\d+ information_schema.columns`, `\d pg_class_oid_index`, `\d pg_views`, `\da`, `\dA+`, `\db+`, `\dc+`, `\dC+`, `\dd`, `\dD+`, `\ddp`, `\des+`, `\dew+`, `\deu+`, `\df+ public.*`,
		`\dF+`, `\dFd+`, `\dFp`, `\dFt+`, `\dg+`, `\di+`, `\dl+`, `\dL+`, `\dm+`, `\dn+`, `\do = `, `\dO+`, `\dp`, `\dP+`, `\drds`, `\dRp+`, `\dRs+`,
		`\ds+`, `\dt+ *.*`, `\dT+ public.*`, `\du+`, `\dv pg_catalog.*`, `\dx+`, `\dy+`, `\l+`, `\z`, `\sf raftable(varchar)`,
		`\sv pg_views`, `\dconfig`, `\dAc`, `\dAf`, `\dAo`, `\dAp`,
	} {
		args = append(args, "-c", command)
	}
	cmd, err := pgtest.Psql(ctx, strings.Replace(w.server.URL(), "/postgres?", "/plain?", 1), args...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run() // fails if a command of the list finds nothing, which is no harm
	for _, m := range psqlQuery.FindAllStringSubmatch(out.String(), -1) {
		if !hasOwnOID(m[1]) {
			texts = append(texts, m[1])
		}
	}
	if len(texts) < 40 {
		t.Fatalf("psql: %v\n%.2000s", err, out.String())
	}
	return texts
}

// constant is a place in a text.
type constant struct {
	start, end int
	value      string
}

// constantsOf finds the plain string constants of a text.
func constantsOf(text string) (list []constant) {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			i += 1 + strings.IndexByte(text[i+1:], '"')
		case strings.HasPrefix(text[i:], "--"):
			i += strings.IndexByte(text[i:]+"\n", '\n')
		case text[i] == '\'':
			start := i
			for i++; i < len(text) && (text[i] != '\'' || strings.HasPrefix(text[i:], "''")); i++ {
				if text[i] == '\'' {
					i++
				}
			}
			escapes := start > 0 && strings.ContainsRune("eEuU&bBxX", rune(text[start-1]))
			if i < len(text) && !escapes {
				list = append(list, constant{start, i + 1, strings.ReplaceAll(text[start+1:i], "''", "'")})
			}
		}
	}
	return list
}

var number = regexp.MustCompile(`^\d+$`)

var parameterSign = regexp.MustCompile(`\$\d`)

// variantsOf puts a call in place of each constant, of all of them, and of some. Numbers in quotes stay: they are OIDs, which
// the cast of a text would look up by name.
func variantsOf(text string) (list []*variant) {
	constants := slices.DeleteFunc(constantsOf(text), func(c constant) bool { return number.MatchString(c.value) })
	keys, table := map[string]string{}, map[string]string{}
	for _, c := range constants {
		if keys[c.value] == "" {
			keys[c.value] = fmt.Sprintf("c%d", len(keys)+1)
			table[keys[c.value]] = c.value
		}
	}
	put := func(which func(int) bool) {
		var b strings.Builder
		end := 0
		for i, c := range constants {
			if which(i) {
				fmt.Fprintf(&b, "%sraftable('%s')", text[end:c.start], keys[c.value])
				end = c.end
			}
		}
		b.WriteString(text[end:])
		list = append(list, &variant{original: text, text: b.String(), table: table, params: parameterSign.MatchString(text)})
	}
	for i := range constants {
		put(func(j int) bool { return i == j })
	}
	if len(constants) > 1 {
		put(func(int) bool { return true })
		put(func(j int) bool { return j%2 == 0 })
	}
	if len(constants) > 2 {
		put(func(j int) bool { return j%2 == 1 })
		put(func(j int) bool { return j%3 == 0 })
		put(func(j int) bool { return j >= len(constants)/2 })
	}
	return list
}

// changingView is one that has other rows each time.
var changingView = regexp.MustCompile(`pg_stat|pg_lock|pg_show|pg_cursor|pg_prepared|pg_get_backend|pg_get_shmem|pg_get_wal|random|clock|now\(\)`)

// compareVariant runs a variant on both sides. It is fit if the oracle takes it for the original.
func (w *world) compareVariant(v *variant, mode string) (fit bool, diff string, err error) {
	if err := w.fill(v.table, false); err != nil {
		return false, "", err
	}
	if err := both((*side).connect, w.plain, w.behind); err != nil {
		return false, "", err
	}
	run := func(s *side, text string) (shape, rows []string) {
		st := &step{text: text}
		if v.params {
			s.session.sendParse("", st)
			s.session.message('D', byte('S'), "")
			s.session.message('S')
			return s.session.until('Z'), nil
		}
		for _, line := range s.session.playStep(st, mode, nil) {
			if strings.HasPrefix(line, "D") {
				rows = append(rows, line)
			} else {
				shape = append(shape, line)
			}
		}
		slices.Sort(rows)
		return shape, rows
	}
	changes := changingView.MatchString(v.original) || mode == modeLimited
	wantShape, rows := run(w.plain, v.text)
	_, originalRows := run(w.plain, v.original)
	if codeOf(wantShape) == "ok" && (changes || slices.Equal(rows, originalRows)) {
		shape, rows := run(w.behind, v.text)
		_, originalRows := run(w.behind, v.original)
		if !v.params {
			// The tag has the number of rows, which the databases do not share.
			wantShape, shape = withoutTags(wantShape), withoutTags(shape)
		}
		diff = cmp.Diff(wantShape, shape)
		if diff == "" && !changes {
			diff = cmp.Diff(originalRows, rows)
		}
		fit = true
	}
	return fit, diff, both(func(s *side) error { return s.restore(false) }, w.plain, w.behind)
}

// withoutTags leaves out command tags, and how many times a portal was suspended.
func withoutTags(said []string) (out []string) {
	for _, line := range said {
		if !strings.HasPrefix(line, "C ") && line != "s" {
			out = append(out, line)
		}
	}
	return out
}
