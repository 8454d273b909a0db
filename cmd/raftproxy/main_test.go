package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/raftproxy/raftproxy/internal/group"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// These tests run the real program: built once, with the race detector, as processes of their own beside real PostgreSQL
// servers, with psql and a common client library as clients.

// binary is the path of the program under test.
var binary string

// limit bounds every wait. It is far beyond what a wait takes on a machine that is busy.
const limit = 90 * time.Second

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "raftproxy-e2e")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if err := os.Chmod(dir, 0o755); err != nil { // an ordinary user runs it too
			panic(err)
		}
		binary = filepath.Join(dir, "raftproxy")
		if out, err := exec.Command("go", "build", "-race", "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// slow skips a test of real groups where only the fast ones are wanted.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a group of real processes")
	}
}

// newGroup starts a group that ends with the test; the logs are shown when the test failed.
func newGroup(t *testing.T, o group.Options) *group.Group {
	t.Helper()
	slow(t)
	o.Binary = binary
	g, err := group.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range g.Nodes() {
			if n.Running() && !t.Failed() {
				if err := n.Stop(); err != nil {
					t.Error(err)
				}
			}
			checkLog(t, n)
			if t.Failed() {
				t.Logf("end of the log of node %d:\n%s", n.ID, n.LogTail())
			}
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// checkLog makes what the race detector or a panic wrote a failure of the test.
func checkLog(t *testing.T, n *group.Node) {
	t.Helper()
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		t.Error(err)
		return
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if i := bytes.Index(b, []byte(bad)); i >= 0 {
			t.Errorf("node %d: %.8000s", n.ID, b[i:])
		}
	}
}

// psql runs one statement and gives what it printed, or its complaint as an error.
func psql(ctx context.Context, url, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd, err := pgtest.Psql(ctx, url, "-c", sql)
	if err != nil {
		return "", err
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// mustPsql is psql for a statement that has to succeed.
func mustPsql(t *testing.T, url, sql string) string {
	t.Helper()
	out, err := psql(t.Context(), url, sql)
	if err != nil {
		t.Fatalf("%.100s: %v", sql, err)
	}
	return out
}

// waitFor asks until there is no error, which a replica that lags behind may need.
func waitFor(t *testing.T, what string, ask func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// waitForOutput waits until psql prints this.
func waitForOutput(t *testing.T, url, sql, want string) {
	t.Helper()
	waitFor(t, sql, func() error {
		out, err := psql(t.Context(), url, sql)
		if err == nil && out != want {
			err = fmt.Errorf("got %.200q, want %.200q", out, want)
		}
		return err
	})
}

// table reads everything through a node, in the order it comes.
func table(ctx context.Context, url string) ([][2]string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "select key, value from raftable()")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (kv [2]string, err error) {
		return kv, row.Scan(&kv[0], &kv[1])
	})
}

// result is how a run of the program ended.
type result struct {
	code        int
	out, errOut string
}

// runProgram runs the program to its end, without any RAFTPROXY_ variable but those in env.
func runProgram(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RAFTPROXY_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// check compares a result: the exit code, the output in full, and the one line on standard error by a part of it ("": none).
func (r result) check(t *testing.T, code int, out, complaint string) {
	t.Helper()
	if r.code != code || r.out != out {
		t.Errorf("exit code %d, output %q; want %d, %q", r.code, r.out, code, out)
	}
	switch lines := strings.Count(r.errOut, "\n"); {
	case complaint == "" && r.errOut != "":
		t.Errorf("standard error: %s", r.errOut)
	case complaint != "" && (lines != 1 || !strings.HasPrefix(r.errOut, "raftproxy: ") || !strings.Contains(r.errOut, complaint)):
		t.Errorf("standard error is not one line with %q: %s", complaint, r.errOut)
	}
}
