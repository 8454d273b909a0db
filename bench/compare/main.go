// Command compare measures raftproxy beside plain PostgreSQL, PgBouncer (session mode) and HAProxy (TCP mode), all in front of
// one throw-away PostgreSQL that they reach by unix socket, with pgbench as the client. It prints transactions per second
// and the proxy's own CPU time per transaction. Runs alternate between the candidates, so that a noisy machine is noisy for all.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

var (
	binary  = flag.String("raftproxy", "bin/raftproxy", "the binary to measure")
	seconds = flag.Int("seconds", 4, "length of a run")
	rounds  = flag.Int("rounds", 3, "runs of every row, of which the median counts")
	clients = flag.String("clients", "1,8,32", "numbers of clients")
	modes   = flag.String("modes", "simple,extended,prepared", "query modes of pgbench")
	suite   = flag.String("suite", "forward", "forward: pgbench's select-only script; local: a get from the table beside a primary key look-up")
)

// candidate is something that pgbench connects to.
type candidate struct {
	name   string
	port   int
	pid    int    // of the proxy; 0 for none
	script string // of pgbench; "" for the built-in one
}

// result is one run.
type result struct {
	tps float64
	cpu float64 // µs per transaction; 0 where there is no proxy
}

func main() {
	flag.Parse()
	log.SetFlags(0)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal("compare: ", err)
	}
}

func run(ctx context.Context) error {
	pg, err := pgtest.Start(ctx, pgtest.Options{Config: []string{"max_connections = 300", "shared_buffers = 256MB", "fsync = off"}})
	if err != nil {
		return err
	}
	defer pg.Close()
	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := prepare(ctx, pg); err != nil {
		return err
	}
	all, stop, err := start(ctx, pg, dir)
	defer stop()
	if err != nil {
		return err
	}
	if *suite == "local" {
		if all, err = localSuite(ctx, all, dir); err != nil {
			return err
		}
	}
	fmt.Println("| mode | clients |" + heads(all))
	fmt.Println("|---|---|" + strings.Repeat("---|", len(all)))
	for _, mode := range strings.Split(*modes, ",") {
		for _, n := range strings.Split(*clients, ",") {
			row, err := measure(ctx, all, mode, n)
			if err != nil {
				return err
			}
			fmt.Printf("| %s | %s |%s\n", mode, n, row)
		}
	}
	return nil
}

func heads(all []candidate) string {
	var b strings.Builder
	for _, c := range all {
		b.WriteString(" " + c.name + " |")
	}
	return b.String()
}

// measure fills one row of the table.
func measure(ctx context.Context, all []candidate, mode, n string) (string, error) {
	runs := make([][]result, len(all))
	for range *rounds {
		for i, c := range all {
			r, err := pgbench(ctx, c, mode, n)
			if err != nil {
				return "", fmt.Errorf("%s, %s, %s clients: %w", c.name, mode, n, err)
			}
			runs[i] = append(runs[i], r)
		}
	}
	var b strings.Builder
	for _, rs := range runs {
		tps, cpu := make([]float64, len(rs)), make([]float64, len(rs))
		for i, r := range rs {
			tps[i], cpu[i] = r.tps, r.cpu
		}
		fmt.Fprintf(&b, " %.1f k", median(tps)/1000)
		if c := median(cpu); c > 0 {
			fmt.Fprintf(&b, ", %.1f µs", c)
		}
		b.WriteString(" |")
	}
	return b.String(), nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) `)
var countLine = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)

func pgbench(ctx context.Context, c candidate, mode, n string) (result, error) {
	args := []string{"-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "postgres", "-n", "-M", mode, "-c", n, "-j", "1",
		"-T", strconv.Itoa(*seconds)}
	if c.script != "" {
		args = append(args, "-f", c.script)
	} else {
		args = append(args, "-S")
	}
	before := cpuTime(c.pid)
	out, err := exec.CommandContext(ctx, "pgbench", append(args, "postgres")...).CombinedOutput()
	used := cpuTime(c.pid) - before
	if err != nil {
		return result{}, fmt.Errorf("%w: %s", err, out)
	}
	tps, count := tpsLine.FindSubmatch(out), countLine.FindSubmatch(out)
	if tps == nil || count == nil {
		return result{}, fmt.Errorf("cannot read what pgbench says: %s", out)
	}
	var r result
	r.tps, _ = strconv.ParseFloat(string(tps[1]), 64)
	transactions, _ := strconv.ParseFloat(string(count[1]), 64)
	if c.pid != 0 {
		r.cpu = float64(used.Microseconds()) / transactions
	}
	return r, nil
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

func prepare(ctx context.Context, pg *pgtest.Server) error {
	out, err := exec.CommandContext(ctx, "pgbench", "-i", "-q", "-s", "5", "-h", "127.0.0.1", "-p", strconv.Itoa(pg.Port()),
		"-U", "postgres", "postgres").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return sql(ctx, pg.Port(), "CREATE TABLE kv (key varchar(64) PRIMARY KEY, value text); INSERT INTO kv SELECT 'k' || i, 'v' || i FROM generate_series(1, 1000) i; ANALYZE kv")
}

func sql(ctx context.Context, port int, text string) error {
	cmd, err := pgtest.Psql(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres", port), "-c", text)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
