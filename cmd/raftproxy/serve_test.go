package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/raftproxy/raftproxy/internal/group"
	"github.com/raftproxy/raftproxy/internal/pgprobe"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// TestAuthThroughTheProxy logs in by every usual method, over every kind of address; the password is asked of the client by
// PostgreSQL, and a wrong one is its business too.
func TestAuthThroughTheProxy(t *testing.T) {
	for _, auth := range []string{"trust", "md5", "scram-sha-256"} {
		t.Run(auth, func(t *testing.T) {
			g := newGroup(t, group.Options{
				Nodes: 1, Postgres: pgtest.Options{Auth: auth},
				Args: func(n *group.Node) []string {
					args := []string{"--listen", socket(n)}
					if auth == "scram-sha-256" {
						args = append(args, "--upstream", n.Postgres.Socket())
					}
					return args
				},
			})
			n := g.Nodes()[0]
			// libpq finds a socket by its directory and the port in its name.
			bySocket := fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres password='%s'",
				filepath.Dir(socket(n)), strings.TrimPrefix(filepath.Base(socket(n)), ".s.PGSQL."), n.Postgres.Password())
			for i, url := range []string{n.URL(), bySocket} {
				key := strconv.Itoa(i)
				mustPsql(t, url, "select raftable('"+key+"', 'v')")
				if out := mustPsql(t, url, "select raftable('"+key+"')"); out != "v" {
					t.Errorf("get: %q", out)
				}
				if out := mustPsql(t, url, "select current_user"); out != "postgres" {
					t.Errorf("logged in as %q", out)
				}
			}
			_, err := psql(t.Context(), pgtest.URL(n.Listen, "wrong"), "select 1")
			if wrong := auth != "trust"; (err != nil) != wrong || wrong && !strings.Contains(err.Error(), "password authentication failed") {
				t.Errorf("with a wrong password: %v", err)
			}
		})
	}
}

// socket is a path for a node to listen on.
func socket(n *group.Node) string {
	return filepath.Join(n.Dir(), ".s.PGSQL.6543")
}

// TestSocketIsTakenOver restarts a node that left its socket when it was killed, and refuses one that somebody listens on.
func TestSocketIsTakenOver(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 1, Args: func(n *group.Node) []string { return []string{"--listen", socket(n)} }})
	n := g.Nodes()[0]
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket(n)); err != nil {
		t.Fatalf("a killed node leaves its socket: %v", err)
	}
	if err := errors.Join(n.Start(t.Context()), n.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := pgprobe.Ready(t.Context(), socket(n)); err != nil {
		t.Fatal(err)
	}
	runProgram(t, nil, "serve", "--node-id=1", "--peers=1=127.0.0.1:1", "--data-dir="+t.TempDir(), "--listen="+socket(n)).
		check(t, 1, "", "cannot listen for clients on "+socket(n)+": address already in use")
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket(n)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stopped node leaves its socket: %v", err)
	}
}

// TestStartFaults wants one line and exit code 1 for what only a start can find out.
func TestStartFaults(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, flag, complaint string
	}{
		{"listen", "--listen=" + taken.Addr().String(), "listen: cannot listen for clients on " + taken.Addr().String() + ": address already in use: "},
		{"admin", "--admin=" + taken.Addr().String(), "admin: cannot listen on " + taken.Addr().String() + ": address already in use: "},
		{"raft-listen", "--raft-listen=" + taken.Addr().String(), "address already in use"},
		{"data-dir", "--data-dir=" + filepath.Join(file, "data"), "not a directory"},
		{"shm-path", "--shm-path=" + filepath.Join(file, "table"), "not a directory"},
		{"listen socket", "--listen=" + filepath.Join(file, "socket"), "not a directory"},
		{"listen on a file", "--listen=" + file, "address already in use"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			raft := free.Addr().String()
			if err := free.Close(); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			args := []string{
				"serve", "--node-id=1", "--peers=1=" + raft, "--data-dir=" + dir, "--shm-path=" + filepath.Join(dir, "shm", "table"),
				"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-level=error", tc.flag,
			}
			runProgram(t, nil, args...).check(t, 1, "", tc.complaint)
		})
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file was taken for an abandoned socket: %v", err)
	}
}

// TestIdentity starts a node on the disk of another one, and one whose disk is gone.
func TestIdentity(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3})
	one, two := g.Nodes()[0], g.Nodes()[1]
	mustPsql(t, one.URL(), "select raftable('k', 'v')")
	if err := errors.Join(one.Stop(), two.Stop()); err != nil {
		t.Fatal(err)
	}
	args := append(one.Args(), "--data-dir", two.DataDir(), "--log-level=error")
	if r := runProgram(t, nil, args...); r.code != 1 || strings.Count(r.errOut, "\n") != 1 || !strings.HasPrefix(r.errOut, "raftproxy: ") {
		t.Errorf("on the disk of another member: %+v", r)
	} else {
		t.Log(r.errOut)
	}
	if err := errors.Join(one.Start(t.Context()), two.Start(t.Context()), one.WaitReady(t.Context()), two.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	waitForOutput(t, two.URL(), "select raftable('k')", "v")
}

// TestStopsInOrder sends SIGTERM while one session is in the middle of a statement and another one is idle.
func TestStopsInOrder(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			g := newGroup(t, group.Options{Nodes: 1})
			n := g.Nodes()[0]
			idle, err := pgx.Connect(t.Context(), n.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = idle.Close(t.Context()) }()
			busy, err := pgx.Connect(t.Context(), n.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = busy.Close(t.Context()) }()
			answer := make(chan error, 1)
			go func() {
				var got int
				err := busy.QueryRow(t.Context(), "select 7 from pg_sleep(1.5)").Scan(&got)
				if err == nil && got != 7 {
					err = fmt.Errorf("got %d", got)
				}
				answer <- err
			}()
			waitForOutput(t, n.Postgres.URL(), "select count(*) from pg_stat_activity where state = 'active' and query like '%7 from pg_sleep%' and pid <> pg_backend_pid()", "1")
			if err := n.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := <-answer; err != nil {
				t.Errorf("the statement under way: %v", err)
			}
			if code := n.ExitCode(); code != 0 {
				t.Errorf("exit code %d\n%s", code, n.LogTail())
			}
			if err := idle.Ping(t.Context()); err == nil {
				t.Error("the idle session lives on")
			}
			waitForOutput(t, n.Postgres.URL(), "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()", "0")
		})
	}
}

// TestStopDoesNotWaitForEver ends sessions that do not end by themselves, after the drain timeout or by a second signal.
func TestStopDoesNotWaitForEver(t *testing.T) {
	for _, tc := range []struct {
		name, timeout string
		signals       int
	}{{"drain timeout", "300ms", 1}, {"second signal", "10m", 2}} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGroup(t, group.Options{Nodes: 1, Args: func(*group.Node) []string { return []string{"--drain-timeout", tc.timeout} }})
			n := g.Nodes()[0]
			conn, err := pgx.Connect(t.Context(), n.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			if _, err := conn.Exec(t.Context(), "begin"); err != nil {
				t.Fatal(err)
			}
			if err := n.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if tc.signals == 2 {
				waitFor(t, "drain", func() error {
					if r, err := n.Client().Readiness(t.Context()); err != nil || r.Ready {
						return fmt.Errorf("%+v %v", r, err)
					}
					return nil
				})
				if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
					t.Errorf("in a transaction while draining: %v", err)
				}
				if err := n.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-n.Done():
			case <-time.After(limit):
				t.Fatal("the node does not end")
			}
			if code := n.ExitCode(); code != 0 {
				t.Errorf("exit code %d\n%s", code, n.LogTail())
			}
		})
	}
}

// TestHangup changes the file of a running node.
func TestHangup(t *testing.T) {
	var file string
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := newGroup(t, group.Options{Nodes: 1, Args: func(n *group.Node) []string {
		if file == "" {
			file = filepath.Join(n.Dir(), "node.yaml")
			write("log-level: info\nmax-clients: 10\n")
		}
		return []string{"--config", file}
	}})
	n := g.Nodes()[0]
	hangup := func(want string) {
		t.Helper()
		if err := n.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "reload", func() error {
			if !strings.Contains(n.Log(), want) {
				return fmt.Errorf("the log has no %s", want)
			}
			return nil
		})
	}
	write("log-level: error\nmax-clients: 10\nno-such-setting: 1\n")
	hangup(`settings were not reloaded`)
	write("log-level: debug\nmax-clients: 20\n")
	hangup(`"log_level":"debug"`)
	if !strings.Contains(n.Log(), `"setting":"max-clients"`) {
		t.Error("the log does not say that max-clients needs a restart")
	}
	// A failed admin request is logged at level debug only.
	if _, found, err := n.Client().Get(t.Context(), "nothing", false); found || err != nil {
		t.Fatal(found, err)
	}
	waitFor(t, "a line of level debug", func() error {
		if !strings.Contains(n.Log(), `"level":"debug"`) {
			return errors.New("none")
		}
		return nil
	})
	// Every line is JSON with a level, a time and a message.
	lines := bufio.NewScanner(strings.NewReader(n.Log()))
	for lines.Scan() {
		var line struct{ Level, Time, Message string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Level == "" || line.Time == "" || line.Message == "" {
			t.Errorf("log line %q: %v", lines.Text(), err)
		}
	}
}

// TestRunsAsOrdinaryUser is for root only; everybody else has run all other tests as an ordinary user.
func TestRunsAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	cmd := exec.Command(binary, "version")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "raftproxy ") {
		t.Errorf("%v: %s", err, out)
	}
}
