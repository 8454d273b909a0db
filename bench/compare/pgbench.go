package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// candidate is something that clients connect to.
type candidate struct {
	name string
	port int
	pid  int // of the proxy; 0 for none

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

// measure runs pgbench against each of the candidates in turn.
func (b *bench) measure(all []candidate, mode, clients string) ([]result, error) {
	out := make([]result, len(all))
	for range *rounds {
		for i, c := range all {
			tps, cpu, err := pgbench(b.ctx, c, mode, clients, *seconds)
			for long := 2 * *seconds; errors.Is(err, errNothingDone) && long <= longestRun; long *= 2 {
				tps, cpu, err = pgbench(b.ctx, c, mode, clients, long)
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %s, %s clients: %w", c.name, mode, clients, err)
			}
			out[i].tps, out[i].cpu = append(out[i].tps, tps), append(out[i].cpu, cpu)
		}
	}
	return out, nil
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

var progressLine = regexp.MustCompile(`^progress: ([0-9.]+) s, ([0-9.]+) tps`)

// errNothingDone is that a run was over before its clients had done anything that counts, as happens on a machine that has much
// else to do. pgbench counts the time of the logins as well, so a longer run comes to something.
var errNothingDone = errors.New("no transaction was done in the time of the run")

// longestRun is how many seconds such a run may get.
const longestRun = 60

// pgbench is one run. It does not count before its warm-up is over: servers that have just been started are slow at first, and
// PgBouncer, for one, has those of the run before.
func pgbench(ctx context.Context, c candidate, mode, clients string, seconds int) (tps, cpu float64, err error) {
	path, err := pgtest.Program("pgbench")
	if err != nil {
		return 0, 0, err
	}
	args := []string{"-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "postgres", "-n", "-M", mode, "-c", clients, "-j", "1",
		"-P", "1", "-T", strconv.Itoa(*warmUp + seconds + 1)} // the last second may not be told
	if c.scripts == nil {
		args = append(args, "-S")
	} else {
		for _, file := range c.scripts(mode) {
			args = append(args, "-f", file)
		}
	}
	cmd := exec.CommandContext(ctx, path, append(args, "postgres")...)
	told, err := cmd.StderrPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	var begin, end, transactions float64 // seconds; what was done between
	var before, after time.Duration
	var other []string
	for lines := bufio.NewScanner(told); lines.Scan(); {
		found := progressLine.FindStringSubmatch(lines.Text())
		if found == nil {
			other = append(other, lines.Text())
			continue
		}
		now, _ := strconv.ParseFloat(found[1], 64)
		rate, _ := strconv.ParseFloat(found[2], 64)
		if now < float64(*warmUp)-0.5 || begin == 0 {
			begin, end, before, after = now, now, cpuTime(c.pid), 0
			continue
		}
		transactions += rate * (now - end)
		end, after = now, cpuTime(c.pid)
	}
	if err := cmd.Wait(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, strings.Join(other, "; "))
	}
	if transactions == 0 {
		return 0, 0, errNothingDone
	}
	if c.pid != 0 {
		cpu = float64((after - before).Nanoseconds()) / 1000 / transactions
	}
	return transactions / (end - begin), cpu, nil
}

// cpuTime is what a process has used, from the scheduler's own account.
func cpuTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	var sum time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		sum += time.Duration(ns)
	}
	return sum
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
