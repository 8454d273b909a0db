package oracle

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	randomCount = flag.Int("oracle.n", 1500, "how many random statements to compare")
	randomSeed  = flag.Uint64("oracle.seed", 0, "seed of the random statements; 0 for another one in each run")
	randomOnly  = flag.Int("oracle.only", -1, "compare only the random statement of this number, and show it")
)

// maxDifferences is after how many differences there is no point in going on.
const maxDifferences = 5

// TestRandom compares random statements with calls in random places, in random modes.
func TestRandom(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	n := *randomCount
	if testing.Short() {
		n = min(n, 300)
	}
	t.Logf("-oracle.seed %d", seed)
	w := theWorld(t)
	if err := w.build(grammarSetup); err != nil {
		t.Fatal(err)
	}
	f := &caseFile{setup: grammarSetup, table: grammarTable}
	codes := map[string]int{}
	var differences []error
	for i := range n {
		if *randomOnly >= 0 && *randomOnly != i {
			continue
		}
		c, mode, ordered := randomCase(rand.New(rand.NewPCG(seed, uint64(i))))
		said, err := w.runRandom(f, c, mode, ordered)
		for _, lines := range said {
			codes[codeOf(lines)]++
		}
		if *randomOnly >= 0 {
			t.Logf("%s:\n%s\n%q", mode, showSteps(c), said)
		}
		if err != nil {
			differences = append(differences, fmt.Errorf("-oracle.seed %d -oracle.only %d, %s:\n%s\n%w", seed, i, mode, showSteps(c), err))
			if len(differences) == maxDifferences {
				break
			}
		}
	}
	t.Logf("the oracle said: %v", codes)
	settle(t, "TestRandom", errors.Join(differences...))
	if len(differences) == 0 && *randomOnly < 0 && n >= 1000 && codes["ok"]*3 < n {
		t.Errorf("too few statements succeed: %v", codes)
	}
}

func randomCase(r *rand.Rand) (c *testCase, mode string, ordered bool) {
	g := &grammar{r: r}
	texts, ordered := g.conversation()
	c = &testCase{}
	for _, text := range texts {
		s := &step{text: text, plan: strings.HasPrefix(text, "EXPLAIN")}
		for i := range g.params {
			if len(texts) == 1 || strings.Contains(strings.ReplaceAll(text, "'$1'", ""), "$1") {
				s.params = append(s.params, &g.params[i])
			}
		}
		c.steps = append(c.steps, s)
	}
	modes := allModes[:5]
	if !ordered {
		modes = allModes[:4]
	}
	if strings.Contains(texts[0], "; ") {
		modes = modes[:1] // several statements are one of the simple protocol's only
	} else if len(g.params) > 0 {
		modes = modes[1:] // without parameters there is only one error to be seen
	} else if len(texts) > 1 {
		modes = append(slices.Clone(modes), modePipeline)
	}
	return c, modes[r.IntN(len(modes))], ordered
}

// runRandom runs a case. Rows that may come in any order are compared as a set, and errors that depend on which row is
// read first only by their class.
func (w *world) runRandom(f *caseFile, c *testCase, mode string, ordered bool) ([][]string, error) {
	return w.runWith(f, c, mode, func(said []string) []string {
		var lines, rows []string
		for _, line := range said {
			switch {
			case !ordered && (strings.HasPrefix(line, "D") || strings.HasPrefix(line, "d ")):
				rows = append(rows, line)
			case strings.HasPrefix(line, `E S="ERROR" C="2`) && !strings.Contains(line, ` P="`):
				lines = append(lines, `E S="ERROR" C="2..."`)
			default:
				lines = append(lines, line)
			}
		}
		slices.Sort(rows)
		return append(lines, rows...)
	})
}

// codeOf is the SQLSTATE of an answer.
func codeOf(said []string) string {
	for _, line := range said {
		if code, ok := strings.CutPrefix(line, `E S="ERROR" C="`); ok {
			return code[:5]
		}
		if strings.HasPrefix(line, "end:") {
			return line
		}
	}
	return "ok"
}

func showSteps(c *testCase) string {
	var out strings.Builder
	for _, s := range c.steps {
		out.WriteString("\t" + s.text)
		for i, p := range s.params {
			fmt.Fprintf(&out, " -- $%d = %q", i+1, *p)
		}
		out.WriteString("\n")
	}
	return out.String()
}
