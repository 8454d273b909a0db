package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// candidate is something that clients connect to.
type candidate struct {
	name string
	port int
	pid  int // of the proxy; 0 for none

	other   bool                       // a raftproxy, but not the one that counts
	scripts func(mode string) []string // of pgbench, as file names; nil for the built-in select-only one
}

// result is what a candidate's runs came to.
type result struct{ tps, cpu []float64 } // cpu: µs per transaction; 0 where there is no proxy

func (r result) String() string {
	tps, cpu := median(r.tps)/1000, median(r.cpu)
	if cpu == 0 {
		return fmt.Sprintf("%.1f k", tps)
	}
	return fmt.Sprintf("%.1f k, %.1f µs", tps, cpu)
}

// table measures every mode with every number of clients. last makes the last column.
func (b *bench) table(all []candidate, otherModes, otherClients, heading string, last func(mode string, r []result) string) error {
	b.head(append(append([]string{"mode", "clients"}, names(all)...), heading)...)
	for _, mode := range list(*modes, otherModes) {
		for _, n := range list(*clients, otherClients) {
			r, err := b.measure(all, mode, n)
			if err != nil {
				return err
			}
			cells := []string{mode, n}
			for _, one := range r {
				cells = append(cells, one.String())
			}
			b.row(append(cells, last(mode, r))...)
		}
	}
	return nil
}

// cpuTime is what a process has used, from the scheduler's own account: 0 if there is none. It is asked for during turns, so it must not
// take much longer for a process with more threads.
func cpuTime(pid int) time.Duration {
	var used unix.Timespec
	const schedulerClock = 2 // CPUCLOCK_SCHED of the kernel
	if pid == 0 || unix.ClockGettime(int32(^pid<<3|schedulerClock), &used) != nil {
		return 0
	}
	return time.Duration(used.Nano())
}

// keys is how many keys the replicated table has. kv has more rows, so that they are looked up by its indexes.
const keys = 100

// prepare makes the tables.
func prepare(ctx context.Context, pg *pgtest.Server) error {
	path, err := pgtest.Program("pgbench")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, path, "-i", "-q", "-s", "5", "-h", "127.0.0.1", "-p", strconv.Itoa(pg.Port()),
		"-U", "postgres", "postgres").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return sql(ctx, pg.Port(), fmt.Sprintf("CREATE TABLE kv (key varchar(64) PRIMARY KEY, value text); "+
		"INSERT INTO kv SELECT i::text, 'value ' || i FROM generate_series(1, %d) i; CREATE INDEX ON kv (value); "+
		"CREATE UNLOGGED TABLE bulk (a int, b text); VACUUM ANALYZE kv", 100*keys))
}

// sql runs statements with psql, each as a message of its own.
func sql(ctx context.Context, port int, text string) error {
	args := []string{"--set=VERBOSITY=verbose"}
	for _, s := range strings.Split(text, "; ") {
		args = append(args, "-c", s)
	}
	cmd, err := pgtest.Psql(ctx, pgtest.URL(fmt.Sprintf("127.0.0.1:%d", port), ""), args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return nil
}
