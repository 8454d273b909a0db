package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// turn is how long a candidate works until it is the next one's turn. What a machine does besides, and on which of its processors
// the scheduler has put whom, changes from second to second, so turns that are short and many have it even for all; they
// are long beside the time in which a proxy, or a processor's cache, finds into its work.
const turn = 200 * time.Millisecond

// longestRun is how long a candidate may work to come to the seconds that count.
const longestRun = time.Minute

// measure has the candidates take turns: in each round each of them has a pgbench of its own, of which one works at a time.
func (b *bench) measure(all []candidate, mode, clients string) ([]result, error) {
	out := make([]result, len(all))
	for range *rounds {
		workers, err := b.round(all, mode, clients)
		if err != nil {
			return nil, fmt.Errorf("%s, %s clients: %w", mode, clients, err)
		}
		for i, w := range workers {
			tps, cpu := w.result()
			out[i].tps, out[i].cpu = append(out[i].tps, tps), append(out[i].cpu, cpu)
		}
	}
	return out, nil
}

// round gives what the workers of a round came to, which have ended.
func (b *bench) round(all []candidate, mode, clients string) ([]*worker, error) {
	if err := b.endServers(); err != nil {
		return nil, err
	}
	var workers []*worker
	defer func() {
		for _, w := range workers {
			w.kill()
		}
	}()
	for _, c := range all {
		w, err := startWorker(b.ctx, c, mode, clients)
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
	}
	for enough := false; !enough; {
		enough = true
		for _, i := range rand.Perm(len(workers)) { // whom somebody follows is not always the same
			w := workers[i]
			if err := w.work(turn); err != nil {
				return nil, fmt.Errorf("%s: %w", w.c.name, err)
			}
			switch {
			case w.enough():
			case w.worked < longestRun:
				enough = false
			default:
				return nil, fmt.Errorf("%s: no transaction was done in a minute's work", w.c.name)
			}
		}
	}
	return workers, b.ctx.Err()
}

// endServers ends PostgreSQL's server processes, so that all candidates begin with new ones. PgBouncer would have those of the round
// before, which have by then found their way into the shared memory, a page fault for each page.
func (b *bench) endServers() error {
	postgres, _ := b.candidate(postgresName)
	return sql(b.ctx, postgres.port, "SELECT 1 / bool_and(pg_terminate_backend(pid, 5000))::int FROM pg_stat_activity "+ // fails if one stays
		"WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
}

// worker is a pgbench that works only when it is told to.
type worker struct {
	c    candidate
	cmd  *exec.Cmd
	told chan struct{} // closed when it has ended

	mu         sync.Mutex
	worked     time.Duration // in turns that are over
	used       time.Duration // the proxy's CPU time in these
	since      time.Time     // when the present one began; zero for none
	usedBefore time.Duration // the proxy's CPU time until then
	count      float64       // transactions
	at         float64       // the time of the last line of progress, in seconds
	begin, end moment        // between them it counts
	other      []string      // what else pgbench said
}

// moment is how far a worker was at some time.
type moment struct {
	worked, used time.Duration
	count        float64
}

// now is how far it is. The caller has mu.
func (w *worker) now() moment {
	m := moment{w.worked, w.used, w.count}
	if !w.since.IsZero() {
		m.worked += time.Since(w.since)
		m.used += cpuTime(w.c.pid) - w.usedBefore
	}
	return m
}

// startWorker starts a worker, which has to wait for its first turn.
func startWorker(ctx context.Context, c candidate, mode, clients string) (*worker, error) {
	path, err := pgtest.Program("pgbench")
	if err != nil {
		return nil, err
	}
	args := []string{"-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "postgres", "-n", "-M", mode, "-c", clients, "-j", "1",
		"-P", "1", "--progress-timestamp", "-T", "86400"} // it is ended when it has done enough
	if c.scripts == nil {
		args = append(args, "-S")
	} else {
		for _, file := range c.scripts(mode) {
			args = append(args, "-f", file)
		}
	}
	w := &worker{c: c, cmd: exec.CommandContext(ctx, path, append(args, "postgres")...), told: make(chan struct{})}
	said, err := w.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go w.listen(said)
	if err := w.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		w.kill()
		return nil, err
	}
	return w, nil
}

// work gives the worker a turn.
func (w *worker) work(d time.Duration) error {
	w.mu.Lock()
	w.usedBefore = cpuTime(w.c.pid)
	w.since = time.Now()
	w.mu.Unlock()
	if err := w.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
	case <-w.told:
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Errorf("pgbench has ended: %s", strings.Join(w.other, "; "))
	}
	err := w.cmd.Process.Signal(syscall.SIGSTOP)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	w.worked, w.used, w.since = now.worked, now.used, time.Time{}
	return err
}

var progressLine = regexp.MustCompile(`^progress: ([0-9.]+) s, ([0-9.]+) tps`)

// listen reads what pgbench says once a second: how many transactions it has done. It does not count before the warm-up is over:
// servers that have just been started are slow at first.
func (w *worker) listen(said io.Reader) {
	defer close(w.told)
	for lines := bufio.NewScanner(said); lines.Scan(); {
		w.mu.Lock()
		if found := progressLine.FindStringSubmatch(lines.Text()); found != nil {
			w.progress(found[1], found[2])
		} else {
			w.other = append(w.other, lines.Text())
		}
		w.mu.Unlock()
	}
}

// progress takes a line of it. The caller has mu.
func (w *worker) progress(at, rate string) {
	now, _ := strconv.ParseFloat(at, 64)
	tps, _ := strconv.ParseFloat(rate, 64)
	if w.at != 0 { // the first line is the first to say since when
		w.count += tps * (now - w.at)
	}
	w.at = now
	m := w.now()
	if m.worked < time.Duration(*warmUp)*time.Second || w.begin == (moment{}) {
		w.begin = m
	}
	w.end = m
}

// enough says whether the worker has done what counts.
func (w *worker) enough() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end.count > w.begin.count && w.end.worked-w.begin.worked >= time.Duration(*seconds)*time.Second
}

// result is transactions per second, and the proxy's CPU time for each of them in µs.
func (w *worker) result() (tps, cpu float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.end.count - w.begin.count
	return n / (w.end.worked - w.begin.worked).Seconds(), float64((w.end.used - w.begin.used).Nanoseconds()) / 1000 / n
}

// kill ends the worker.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	<-w.told
	_ = w.cmd.Wait()
}
