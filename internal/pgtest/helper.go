package pgtest

import (
	"context"
	"os"
	"os/exec"
	"strings"
)

// TB is what the helpers below need of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
	Failed() bool
}

// New starts a server for a test: it ends with the test, and its log is shown when the test failed.
func New(t TB, o Options) *Server {
	t.Helper()
	s, err := Start(context.Background(), o)
	if err != nil {
		t.Fatalf("throw-away PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of PostgreSQL at %s:\n%s", s.Addr(), s.LogTail())
		}
		if err := s.Close(); err != nil {
			t.Errorf("end of PostgreSQL at %s: %v", s.Addr(), err)
		}
	})
	return s
}

// Psql prepares psql for the connection string url, without the caller's psqlrc and PG… variables: unaligned output,
// tuples only, the first error ends it with exit code 3 (1 for a statement given with -c).
func Psql(ctx context.Context, url string, args ...string) (*exec.Cmd, error) {
	path, err := Program("psql")
	if err != nil {
		return nil, err
	}
	args = append([]string{"--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", url}, args...)
	cmd := exec.CommandContext(ctx, path, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "PGCONNECT_TIMEOUT=20", "LC_ALL=C.UTF-8")
	return cmd, nil
}
