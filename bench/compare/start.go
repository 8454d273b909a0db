package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// Names of candidates, as they stand in the tables.
const (
	postgresName  = "PostgreSQL"
	raftproxyName = "raftproxy"
	pgbouncerName = "PgBouncer"
	haproxyName   = "HAProxy"
)

// otherName is the name of a raftproxy that others runs.
func otherName(command string) string {
	program, settings, _ := strings.Cut(command, " ")
	return "`" + strings.TrimSpace(filepath.Base(program)+" "+settings) + "`"
}

// startAll runs the proxies. Those that are not installed are left out. stop ends them all.
func startAll(ctx context.Context, pg *pgtest.Server, dir string) (all []candidate, stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, c := range running {
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait()
		}
	}
	all = []candidate{{name: postgresName, port: pg.Port()}}
	type starter struct {
		name  string
		begin func(pg *pgtest.Server, dir string, port int) (*exec.Cmd, error)
		other bool
	}
	starters := []starter{{raftproxyName, raftproxy(*program), false}, {pgbouncerName, pgbouncer, false}, {haproxyName, haproxy, false}}
	for _, command := range others {
		starters = append(starters, starter{otherName(command), raftproxy(command), true})
	}
	for i, p := range starters {
		port, err := freePort()
		if err != nil {
			return all, stop, err
		}
		cmd, err := p.begin(pg, dir, port)
		if errors.Is(err, exec.ErrNotFound) {
			fmt.Fprintf(os.Stderr, "%s is not installed and is left out: apt-get install %s\n", p.name, strings.ToLower(p.name))
			continue
		}
		if err != nil {
			return all, stop, fmt.Errorf("%s: %w", p.name, err)
		}
		out, err := os.Create(filepath.Join(dir, strconv.Itoa(i)+".log"))
		if err != nil {
			return all, stop, err
		}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			return all, stop, fmt.Errorf("%s: %w", p.name, err)
		}
		running = append(running, cmd)
		if err := ready(ctx, port); err != nil {
			said, _ := os.ReadFile(out.Name())
			return all, stop, fmt.Errorf("%s: %w: %s", p.name, err, said)
		}
		all = append(all, candidate{name: p.name, port: port, pid: cmd.Process.Pid, other: p.other})
	}
	return all, stop, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// ready waits until a statement comes back.
func ready(ctx context.Context, port int) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := sql(ctx, port, "SELECT 1")
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond) // the pace of the polling
	}
}

// raftproxy runs a node that is its own group. command is a binary, with settings of its own behind it.
func raftproxy(command string) func(pg *pgtest.Server, dir string, port int) (*exec.Cmd, error) {
	return func(pg *pgtest.Server, dir string, port int) (*exec.Cmd, error) {
		dir, err := os.MkdirTemp(dir, "node")
		if err != nil {
			return nil, err
		}
		raft, err := freePort()
		if err != nil {
			return nil, err
		}
		admin, err := freePort()
		if err != nil {
			return nil, err
		}
		words := strings.Fields(command)
		args := []string{"serve", "--node-id", "1", "--listen", fmt.Sprintf("127.0.0.1:%d", port),
			"--upstream", pg.Socket(), "--raft-address", fmt.Sprintf("127.0.0.1:%d", raft),
			"--peers", fmt.Sprintf("1=127.0.0.1:%d", raft), "--data-dir", filepath.Join(dir, "data"),
			"--shm-path", filepath.Join(dir, "table"), "--admin", fmt.Sprintf("127.0.0.1:%d", admin), "--log-level", "warn"}
		return exec.Command(words[0], append(args, words[1:]...)...), nil
	}
}

func pgbouncer(pg *pgtest.Server, dir string, port int) (*exec.Cmd, error) {
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`[databases]
* = host=%s port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = session
default_pool_size = 200
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
logfile = %s
`, pg.SocketDir(), pg.Port(), port, filepath.Join(dir, "pgbouncer.txt"))
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return exec.Command(path, "-q", file), nil
	}
	// It refuses to run as root.
	if err := os.Chmod(dir, 0o777); err != nil {
		return nil, err
	}
	return exec.Command(path, "-q", "-u", "postgres", file), nil
}

func haproxy(pg *pgtest.Server, dir string, port int) (*exec.Cmd, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`global
  maxconn 2000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend f
  bind 127.0.0.1:%d
  default_backend b
backend b
  server s unix@%s
`, port, pg.Socket())
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return exec.Command(path, "-db", "-f", file), nil
}
