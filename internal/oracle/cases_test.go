package oracle

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write what the oracle says into testdata/sql/oracle")

// changing is a word of statements that may leave a database changed.
var changing = regexp.MustCompile(`(?i)\b(insert|update|delete|merge|create|into|alter|drop|truncate|copy|do|call|nextval|setval|comment|grant|refresh|lo_\w+)\b`)

// TestCases runs the cases of testdata/sql/oracle on both sides in every mode.
func TestCases(t *testing.T) {
	w := theWorld(t)
	pending := readPending(t)
	found, left := map[string]bool{}, 0
	for _, f := range readCaseFiles(t) {
		if err := w.build(f.setup); err != nil {
			t.Fatalf("%s: setup: %v", f.name, err)
		}
		for _, c := range f.cases {
			name := f.name + "/" + c.title
			found[name] = true
			t.Run(name, func(t *testing.T) {
				if settle(t, name, w.runCase(t, f, c)) {
					left++
				}
			})
		}
		if *rewrite {
			if err := f.write(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pending)) {
		if strings.Contains(name, "/") && !found[name] {
			t.Errorf("%s lists %q, which is no case", pendingFile, name)
		}
	}
	t.Logf("%d of %d cases are pending", left, len(found))
}

// runCase runs a case in its modes. What is wrong with the case itself, and not with the proxy, fails the test at once.
func (w *world) runCase(t *testing.T, f *caseFile, c *testCase) error {
	t.Helper()
	var wrong error
	for i, mode := range modesOf(c) {
		said, err := w.runMode(f, c, mode)
		for j, s := range c.steps {
			if i > 0 || s.ours || s.refused || mode == modePipeline || j >= len(said) {
				continue
			}
			if *rewrite {
				s.want = said[j]
			} else if diff := cmp.Diff(s.want, said[j]); diff != "" && w.version == 15 {
				t.Errorf("the file is not what PostgreSQL says (-file +postgres):\n%s", diff)
			}
		}
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %w", mode, err))
		}
	}
	return wrong
}

// runMode runs a case on both sides in one mode. It gives what the oracle said to each step.
func (w *world) runMode(f *caseFile, c *testCase, mode string) (said [][]string, err error) {
	return w.runWith(f, c, mode, nil)
}

// runWith does the same, and compares what normal makes of the answers.
func (w *world) runWith(f *caseFile, c *testCase, mode string, normal func([]string) []string) (said [][]string, err error) {
	if err := w.fill(f.table, c.stall); err != nil {
		return nil, err
	}
	if err := both((*side).connect, w.plain, w.behind); err != nil {
		return nil, err
	}
	p := &play{w: w, c: c, mode: mode, normal: normal}
	for _, text := range p.before() {
		for _, s := range []*side{w.plain, w.behind} {
			if answer := s.session.query(text); strings.HasPrefix(answer[0], "E") {
				return nil, fmt.Errorf("%s: %q: %s", s.database, text, answer)
			}
		}
	}
	if mode == modePipeline {
		p.pipeline()
	} else {
		for _, s := range c.steps {
			p.step(s, f.table)
		}
	}
	p.compareTables()
	if err := w.restore(f.setup, c); err != nil {
		return nil, errors.Join(p.wrong, err)
	}
	return p.said, p.wrong
}

// restore leaves both sides as the setup made them.
func (w *world) restore(setup string, c *testCase) error {
	changed := slices.ContainsFunc(c.steps, func(s *step) bool { return changing.MatchString(s.text) }) ||
		slices.ContainsFunc(c.before, changing.MatchString)
	err := both(func(s *side) error { return s.restore(changed) }, w.plain, w.behind)
	if c.rebuild {
		err = errors.Join(err, w.build(setup))
	}
	return err
}

// play is one run of a case.
type play struct {
	w     *world
	c     *testCase
	mode  string
	said  [][]string
	wrong error
	// normal, if set, takes out of an answer what may differ.
	normal func([]string) []string
	// failed says that an error was seen: what was set before is undone on one side only.
	failed bool
}

func (p *play) before() []string {
	if p.c.encoding != "" {
		return append([]string{"SET client_encoding = " + p.c.encoding}, p.c.before...)
	}
	return p.c.before
}

// step runs a step.
func (p *play) step(s *step, table map[string]string) {
	e, err := p.encode(s)
	if err != nil {
		p.fault(err)
		return
	}
	mode := p.mode
	if (s.refused || s.ours) && mode != modeSimple {
		mode = modeText
	}
	switch {
	case *self && (s.ours || s.refused):
		if s.refused {
			p.w.onBoth(func(c *conn) []string { return c.query("SELECT 1/0") })
		}
		p.said = append(p.said, nil)
		return
	case s.ours:
		said := p.w.behind.session.playStep(e, mode, nil)
		p.said = append(p.said, said)
		if mode == modeSimple {
			p.compare(s.want, shortened(said, s.want))
		} else {
			p.compare(essence(s.want), shortened(essence(said), essence(s.want)))
		}
		return
	case s.refused:
		p.failed = true
		said := p.w.behind.session.playStep(e, mode, nil)
		p.said = append(p.said, said)
		if err := checkRefused(said, s.position); err != nil {
			p.fault(err)
		}
		p.w.plain.session.query("SELECT 1/0")
		if a, b := p.w.plain.session.status, p.w.behind.session.status; a != b {
			p.fault(fmt.Errorf("the transaction's status is %c and should be %c", b, a))
		}
		return
	}
	var between func() error
	if len(p.c.steps) == 1 && mode == modePrepared {
		between = meeting(func() error { return p.w.fill(changed(table), p.c.stall) })
	}
	plain, behind := p.w.onBoth(func(c *conn) []string { return c.playStep(e, mode, between) })
	p.said = append(p.said, plain)
	p.compare(plain, behind)
}

// onBoth talks on both sessions at the same time.
func (w *world) onBoth(talk func(*conn) []string) (plain, behind []string) {
	done := make(chan []string)
	go func() { done <- talk(w.plain.session) }()
	behind = talk(w.behind.session)
	return <-done, behind
}

// meeting gives what two goroutines call: the first to come waits until the second has done what is to be done.
func meeting(do func() error) func() error {
	arrived, over := make(chan struct{}, 1), make(chan error, 1)
	return func() error {
		select {
		case arrived <- struct{}{}:
			return <-over
		default:
			err := do()
			over <- err
			return err
		}
	}
}

// changed is the table that a prepared statement finds when it runs for the second time.
func changed(table map[string]string) map[string]string {
	rows := map[string]string{"zz new": "новое"}
	for i, k := range slices.Sorted(maps.Keys(table)) {
		switch i % 3 {
		case 0:
			rows[k] = table[k] + "'"
			if number.MatchString(table[k]) {
				rows[k] = table[k] + "1"
			}
		case 1:
			rows[k] = table[k]
		}
	}
	return rows
}

func (p *play) pipeline() {
	var steps []*step
	for _, s := range p.c.steps {
		e, err := p.encode(s)
		if err != nil {
			p.fault(err)
			return
		}
		steps = append(steps, e)
	}
	plain, behind := p.w.onBoth(func(c *conn) []string { return c.playPipeline(steps) })
	p.said = append(p.said, plain)
	if slices.ContainsFunc(steps, func(s *step) bool { return s.plan }) {
		plain, behind = withoutRows(plain), withoutRows(behind)
	}
	p.compare(plain, behind)
}

// encode gives the step in the client's encoding.
func (p *play) encode(s *step) (*step, error) {
	if p.c.encoding == "" {
		return s, nil
	}
	e := *s
	var err error
	if e.text, err = p.convert(s.text); err != nil {
		return nil, err
	}
	e.params = nil
	for _, v := range s.params {
		if v != nil {
			text, err := p.convert(*v)
			if err != nil {
				return nil, err
			}
			v = &text
		}
		e.params = append(e.params, v)
	}
	return &e, nil
}

func (p *play) convert(text string) (string, error) {
	rows, err := p.w.plain.ask(fmt.Sprintf("SELECT encode(convert_to(%s, %s), 'hex')", literal(text), literal(p.c.encoding)))
	if err != nil {
		return "", err
	}
	b, err := hex.DecodeString(rows[0][0])
	return string(b), err
}

func (p *play) fault(err error) { p.wrong = errors.Join(p.wrong, err) }

func (p *play) compare(want, said []string) {
	isError := func(line string) bool { return strings.HasPrefix(line, "E") || strings.HasPrefix(line, "end:") }
	p.failed = p.failed || slices.ContainsFunc(want, isError) || slices.ContainsFunc(said, isError)
	if p.wrong != nil {
		return // what comes after a difference tells nothing
	}
	if p.normal != nil {
		want, said = p.normal(want), p.normal(said)
	}
	if slices.Equal(want, said) {
		return
	}
	if diff := cmp.Diff(want, said); diff != "" {
		p.fault(fmt.Errorf("the proxy says otherwise (-postgres +proxy):\n%s", diff))
	}
}

// shortened cuts lines where a wanted line ends with dots.
func shortened(said, want []string) (out []string) {
	for i, line := range said {
		if i < len(want) {
			if head, ok := strings.CutSuffix(want[i], "..."); ok && strings.HasPrefix(line, head) {
				line = want[i]
			}
		}
		out = append(out, line)
	}
	return out
}

// essence leaves out how a statement is described and how it came to be.
func essence(said []string) (out []string) {
	for _, line := range said {
		if strings.IndexByte("DCENZ", line[0]) >= 0 {
			out = append(out, line)
		}
	}
	return out
}

var undoing = regexp.MustCompile(`(?i)\b(rollback|abort)\b`)

// compareTables compares what the tables hold, unless the oracle had to undo something, which the proxy never does.
func (p *play) compareTables() {
	if *self {
		return
	}
	rows := p.w.table.content()
	for i := 0; i+1 < len(p.c.then); i += 2 {
		key, want := p.c.then[i], p.c.then[i+1]
		if got, ok := rows[*key]; ok != (want != nil) || ok && got != *want {
			p.fault(fmt.Errorf("the table has %q for %q", got, *key))
		}
	}
	special := func(s *step) bool { return s.ours || s.refused || undoing.MatchString(s.text) }
	if p.failed || p.wrong != nil || slices.ContainsFunc(p.c.steps, special) {
		return
	}
	want, err := p.w.plain.rows()
	if err != nil {
		p.fault(err)
	} else if diff := cmp.Diff(want, rows); diff != "" {
		p.fault(fmt.Errorf("the tables differ afterwards (-postgres +proxy):\n%s", diff))
	}
}
