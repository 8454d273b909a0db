package oracle

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var setPending = flag.Bool("oracle.pending", false, "write what fails into testdata/sql/oracle/pending.txt")

const pendingFile = "../../testdata/sql/oracle/pending.txt"

// readPending reads which cases and tests are known to fail.
func readPending(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(pendingFile)
	if err != nil {
		t.Fatal(err)
	}
	pending := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			pending[line] = true
		}
	}
	return pending
}

func writePending(t *testing.T, pending map[string]bool) {
	t.Helper()
	text := "# Cases and tests in which the proxy is not yet what it should be, one a line. See README.md.\n"
	for _, name := range slices.Sorted(maps.Keys(pending)) {
		text += name + "\n"
	}
	if err := os.WriteFile(pendingFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settle fails the test if something is wrong, unless that is known, and if something was wrong and is no more. It says
// whether the failure is a known one.
func settle(t *testing.T, name string, wrong error) (known bool) {
	t.Helper()
	pending := readPending(t)
	switch {
	case *self:
		if wrong != nil {
			t.Error(wrong)
		}
		return false
	case *setPending && pending[name] != (wrong != nil):
		pending[name] = true
		if wrong == nil {
			delete(pending, name)
		}
		writePending(t, pending)
	case pending[name] && wrong == nil:
		t.Errorf("passes, and is no longer to be listed in %s", pendingFile)
	}
	switch {
	case wrong != nil && (pending[name] || *setPending):
		t.Logf("pending:\n%v", wrong)
		return true
	case wrong != nil:
		t.Error(wrong)
	}
	return false
}
