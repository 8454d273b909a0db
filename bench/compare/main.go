// Command compare measures raftproxy beside plain PostgreSQL, PgBouncer (session mode) and HAProxy (TCP mode), all in front of
// one throw-away PostgreSQL that the proxies reach by unix socket and all clients by TCP. It prints tables in Markdown: those
// of docs/performance.md, which says what they mean. The candidates take turns, so that a noisy machine is
// noisy for all, and the median counts.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

var (
	program = flag.String("raftproxy", "bin/raftproxy", "the binary to measure")
	seconds = flag.Int("seconds", 3, "seconds of a run of pgbench that count")
	warmUp  = flag.Int("warm-up", 2, "seconds before that, which do not count")
	rounds  = flag.Int("rounds", 5, "runs of every figure, of which the median counts")
	clients = flag.String("clients", "", "numbers of clients, such as 1,8,32; empty for the suite's own")
	modes   = flag.String("modes", "", "query modes of pgbench, of simple,extended,prepared; empty for the suite's own")
	rows    = flag.Int("rows", 1_000_000, "rows of the suites copy and result")
	which   = flag.String("suite", "forward", "suites to run, separated by commas, or all: "+strings.Join(suiteNames(), ", "))
	into    = flag.String("into", "", "a Markdown file whose figures, between the marks of docs/performance.md, are replaced")
)

// others are commands that run other raftproxies, to be measured beside the one that counts.
var others []string

// suite is one table.
type suite struct {
	name, title string
	run         func(b *bench) error
}

var suites = []suite{
	{"forward", "Forwarding: `pgbench -S`", (*bench).forward},
	{"copy", "Bulk: rows in", (*bench).copyIn},
	{"result", "Bulk: rows out", (*bench).results},
	{"local", "A get from the table beside a look-up by primary key", (*bench).local},
	{"rewrite", "A call in a condition beside the constant", (*bench).rewrite},
	{"idle", "Idle sessions", (*bench).idle},
}

func suiteNames() (names []string) {
	for _, s := range suites {
		names = append(names, s.name)
	}
	return names
}

// bench is what the suites share.
type bench struct {
	ctx context.Context
	dir string // for scripts and settings
	all []candidate
	out io.Writer
}

func main() {
	flag.Func("other", "another one to measure beside it, perhaps with settings, such as \"bin/raftproxy --io-uring off\"; may be repeated",
		func(command string) error {
			others = append(others, command)
			return nil
		})
	flag.Parse()
	log.SetFlags(0)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal("compare: ", err)
	}
}

// chosen is the suites that are asked for.
func chosen() ([]suite, error) {
	if *which == "all" {
		return suites, nil
	}
	var out []suite
	for _, name := range strings.Split(*which, ",") {
		i := slices.Index(suiteNames(), name)
		if i < 0 {
			return nil, fmt.Errorf("no suite is named %q", name)
		}
		out = append(out, suites[i])
	}
	return out, nil
}

func run(ctx context.Context) error {
	todo, err := chosen()
	if err != nil {
		return err
	}
	var figures bytes.Buffer
	b := &bench{ctx: ctx, out: io.MultiWriter(os.Stdout, &figures)}
	machine(b.out)
	stop, err := b.start()
	defer stop()
	if err != nil {
		return err
	}
	for _, s := range todo {
		b.say("\n### %s\n\n", s.title)
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if *into == "" {
		return nil
	}
	return replaceFigures(*into, figures.String())
}

// start brings up the server and the proxies. stop ends them, and may be called after an error.
func (b *bench) start() (stop func(), err error) {
	var ends []func()
	stop = func() {
		for _, end := range slices.Backward(ends) {
			end()
		}
	}
	pg, err := pgtest.Start(b.ctx, pgtest.Options{Config: []string{"max_connections = 300", "shared_buffers = 256MB", "max_wal_size = 2GB"}})
	if err != nil {
		return stop, err
	}
	ends = append(ends, func() { _ = pg.Close() })
	if b.dir, err = os.MkdirTemp("", "compare"); err != nil {
		return stop, err
	}
	ends = append(ends, func() { _ = os.RemoveAll(b.dir) })
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return stop, err
	}
	if err := prepare(b.ctx, pg); err != nil {
		return stop, err
	}
	all, end, err := startAll(b.ctx, pg, b.dir)
	ends = append(ends, end)
	b.all = all
	return stop, err
}

// The marks in a document between which the figures stand.
const (
	figuresBegin = "<!-- figures of bench/compare -->\n"
	figuresEnd   = "<!-- end of figures -->\n"
)

func replaceFigures(file, figures string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), figuresBegin)
	_, tail, ok2 := strings.Cut(rest, figuresEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks for figures", file)
	}
	return os.WriteFile(file, []byte(head+figuresBegin+"\n"+figures+"\n"+figuresEnd+tail), 0o644)
}

// list splits a flag, or the default if it is not given.
func list(value, otherwise string) []string {
	if value == "" {
		value = otherwise
	}
	return strings.Split(value, ",")
}

// candidate finds a candidate by name.
func (b *bench) candidate(name string) (candidate, bool) {
	i := slices.IndexFunc(b.all, func(c candidate) bool { return c.name == name })
	if i < 0 {
		return candidate{}, false
	}
	return b.all[i], true
}

// say prints.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, format, args...)
}

func (b *bench) head(cells ...string) {
	b.row(cells...)
	b.row(slices.Repeat([]string{"---"}, len(cells))...)
}

func (b *bench) row(cells ...string) {
	b.say("| %s |\n", strings.Join(cells, " | "))
}

func names(all []candidate) (out []string) {
	for _, c := range all {
		out = append(out, c.name)
	}
	return out
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v)) // a copy: others want to know which run was next to which
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
