package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// TestScopeOfSettings sets the time limit for a transaction, and looks at what limit the sets have that come behind its end, which has many
// forms: all at once in the extended protocol, in one query string, and one by one.
func TestScopeOfSettings(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{Config: []string{"max_prepared_transactions = 2"}})
	table := newMapTable()
	limits := make(chan time.Duration, 8)
	table.block = func(ctx context.Context) error {
		until, _ := ctx.Deadline()
		limits <- time.Until(until).Round(time.Hour)
		return nil
	}
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	const set = "SELECT raftable('k', 'v')"
	for _, c := range []struct {
		statements []string
		want       []int // hours
	}{
		{[]string{"BEGIN", "SET LOCAL raftable.timeout = '2h'", set, "COMMIT", set}, []int{2, 1}},
		{[]string{"BEGIN", "SET LOCAL raftable.timeout = '2h'", set, "ROLLBACK", set}, []int{2, 1}},
		{[]string{"BEGIN", "SET LOCAL raftable.timeout = '2h'", set, "COMMIT AND CHAIN", set, "COMMIT"}, []int{2, 1}},
		{[]string{"BEGIN", "SET LOCAL raftable.timeout = '2h'", set, "PREPARE TRANSACTION 'p'", set}, []int{2, 1}},
		{[]string{"BEGIN", "SET raftable.timeout = '2h'", set, "PREPARE TRANSACTION 'p'", set}, []int{2, 2}},
		{[]string{"BEGIN", "SET raftable.timeout = '2h'", "ROLLBACK", set}, []int{1}},
		{[]string{"BEGIN", "SAVEPOINT s", "SET LOCAL raftable.timeout = '2h'", set, "ROLLBACK TO s", set, "COMMIT"}, []int{2, 1}},
		{[]string{"BEGIN", "SAVEPOINT s", "SET LOCAL raftable.timeout = '2h'", "RELEASE s", set, "COMMIT", set}, []int{2, 1}},
		{[]string{"SET raftable.timeout = '2h'", set, "RESET raftable.timeout", set}, []int{2, 0}},
		{[]string{"BEGIN", "SELECT set_config('raftable.timeout', '2h', true)", set, "COMMIT", set}, []int{2, 1}},
	} {
		for _, way := range []string{"one by one", "pipeline", "query string"} {
			t.Run(way+": "+strings.Join(c.statements, "; "), func(t *testing.T) {
				w := dialWire(t, addr)
				w.expect("SET raftable.timeout = '1h'", "C SET")
				var s script
				for _, text := range c.statements {
					s.lines = append(s.lines, fmt.Sprintf("> parse %q %q", "", text), `> bind "" ""`, `> execute ""`)
					if way == "one by one" {
						s.lines = append(s.lines, "> sync", "> wait")
					}
				}
				switch way {
				case "pipeline":
					s.lines = append(s.lines, "> sync", "> wait")
				case "query string":
					s.lines = []string{"> query " + fmt.Sprintf("%q", strings.Join(c.statements, "; ")), "> wait"}
				}
				for _, line := range w.run(&s) {
					if strings.HasPrefix(line, "E ") {
						t.Error(line)
					}
				}
				w.expect("SELECT 1", "Z I")
				for i, want := range c.want {
					select {
					case got := <-limits:
						if got != time.Duration(want)*time.Hour {
							t.Errorf("set %d has %v", i, got)
						}
					default:
						t.Errorf("only %d sets have run", i)
					}
				}
				admin := dialWire(t, pg.Addr())
				for strings.Contains(admin.ask("SELECT count(*) FROM pg_prepared_xacts"), `D "1"`) {
					admin.expect("ROLLBACK PREPARED 'p'", "C ROLLBACK")
				}
			})
		}
	}
}
