package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgprobe"
)

// psql runs one statement and gives its output or its error text.
func psql(t *testing.T, url, sql string) (string, error) {
	t.Helper()
	cmd, err := Psql(t.Context(), url, "-c", sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestAuthMethods(t *testing.T) {
	for _, tc := range []struct {
		auth        string
		stored      string // how the password is kept
		needsSecret bool
	}{
		{"", "SCRAM-SHA-256%", false},
		{"trust", "SCRAM-SHA-256%", false},
		{"md5", "md5%", true},
		{"scram-sha-256", "SCRAM-SHA-256%", true},
	} {
		t.Run("auth="+tc.auth, func(t *testing.T) {
			s := New(t, Options{Auth: tc.auth, Config: []string{"work_mem = 7MB"}})
			out, err := psql(t, s.URL(), "select rolpassword like '"+tc.stored+"', current_setting('work_mem'), version() like 'PostgreSQL%' from pg_authid where rolname = 'postgres'")
			if err != nil || out != "t|7MB|t" {
				t.Fatalf("with the password: %q, %v", out, err)
			}
			out, err = psql(t, URL(s.Addr(), "wrong"), "select 1")
			if (err != nil) != tc.needsSecret {
				t.Fatalf("with a wrong password: %q, %v", out, err)
			}
			bySocket := fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password='%s'", s.SocketDir(), s.Port(), s.Password())
			if out, err := psql(t, bySocket, "select 2"); err != nil || out != "2" {
				t.Fatalf("by unix socket: %q, %v", out, err)
			}
		})
	}
}

func TestStopKillRestart(t *testing.T) {
	s := New(t, Options{})
	if _, err := psql(t, s.URL(), "create table kept as select 1 as n"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name string
		do   func() error
	}{{"stop", s.Stop}, {"kill", s.Kill}} {
		pid, addr := s.Pid(), s.Addr()
		family := append(childrenOf(pid), pid)
		if len(family) < 3 {
			t.Fatalf("a server of %d processes", len(family))
		}
		if err := end.do(); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		for _, p := range family {
			if state, _, ok := processState(p); ok && state != 'Z' {
				t.Errorf("after %s process %d is alive", end.name, p)
			}
		}
		if err := end.do(); err != nil {
			t.Fatalf("second %s: %v", end.name, err)
		}
		if err := pgprobe.Ready(t.Context(), addr); err == nil {
			t.Fatalf("after %s the server answers", end.name)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Addr() != addr {
			t.Fatalf("restarted at %s, was at %s", s.Addr(), addr)
		}
		if out, err := psql(t, s.URL(), "select n from kept"); err != nil || out != "1" {
			t.Fatalf("after %s and restart: %q, %v", end.name, out, err)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	for _, killed := range []bool{false, true} {
		s := New(t, Options{Dir: shortDir(t)})
		segments := sysvSegments(t)
		if killed {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		dir, id := s.dir, interlockID(t, s.DataDir())
		if !strings.Contains(segments, id) {
			t.Fatalf("segment %s is not in /proc/sysvipc/shm", id)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("killed=%v: %s is left (%v)", killed, dir, err)
		}
		if strings.Contains(sysvSegments(t), id) {
			t.Errorf("killed=%v: System V segment %s is left", killed, id)
		}
		if err := s.Restart(t.Context()); err == nil {
			t.Error("a closed server was restarted")
		}
	}
}

// shortDir is a directory that the server's account can reach, unlike what t.TempDir gives to root.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func sysvSegments(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Skip(err)
	}
	return string(b)
}

func interlockID(t *testing.T, dataDir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	return " " + strings.Fields(strings.Split(string(b), "\n")[6])[1] + " "
}

func TestTemplateIsReused(t *testing.T) {
	dir := shortDir(t)
	templates := filepath.Join(dir, "templates")
	var made []os.FileInfo
	for range 2 {
		s := New(t, Options{Dir: dir, Templates: templates})
		if out, err := psql(t, s.URL(), "show data_directory"); err != nil || !strings.HasPrefix(out, dir) {
			t.Fatalf("%q, %v", out, err)
		}
		found, err := filepath.Glob(filepath.Join(templates, "*", "PG_VERSION"))
		if err != nil || len(found) != 1 {
			t.Fatalf("templates: %v, %v", found, err)
		}
		info, err := os.Stat(found[0])
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, info)
	}
	if !os.SameFile(made[0], made[1]) {
		t.Fatal("initdb ran twice for the same options")
	}
	if err := os.Chmod(templates, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Dir: dir, Templates: templates}); err == nil {
		t.Fatal("templates were taken from a directory that anybody can write to")
	}
}

func TestBadConfigSaysWhatTheServerSaid(t *testing.T) {
	_, err := Start(t.Context(), Options{Config: []string{"no_such_setting = 1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Fatalf("Start: %v", err)
	}
}

func TestRestartOnTakenPort(t *testing.T) {
	s := New(t, Options{})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Restart(ctx); err == nil {
		t.Fatal("started on a port that is taken")
	}
}

func TestEndsByItself(t *testing.T) {
	s := New(t, Options{})
	if err := syscall.Kill(s.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.proc.Wait(); err != nil {
		t.Fatalf("smart shutdown: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatalf("Stop of a server that has ended: %v", err)
	}
}

func TestPickBinDir(t *testing.T) {
	root := t.TempDir()
	add := func(dir string, programs ...string) string {
		path := filepath.Join(root, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			if err := os.WriteFile(filepath.Join(path, p), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	inPath := add("path/bin", "initdb", "postgres")
	clientOnly := add("client/bin", "psql")
	nine := add("lib/9.6/bin", "initdb", "postgres")
	fifteen := add("lib/15/bin", "initdb", "postgres")
	add("lib/17/bin", "initdb") // incomplete
	configured := add("configured", "initdb", "postgres")
	pattern := filepath.Join(root, "lib/*/bin")
	for _, tc := range []struct {
		name, path, pattern, pgConfig, want string
	}{
		{"PATH first", clientOnly + ":" + inPath, pattern, configured, inPath},
		{"newest complete version", clientOnly, pattern, configured, fifteen},
		{"old version names sort as numbers", "", filepath.Join(root, "lib/9.*/bin"), "", nine},
		{"pg_config last", clientOnly, filepath.Join(root, "none/*/bin"), configured, configured},
		{"nothing", clientOnly, filepath.Join(root, "none/*/bin"), "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := pickBinDir(tc.path, tc.pattern, func() string { return tc.pgConfig })
			if got != tc.want || (err != nil) != (tc.want == "") {
				t.Fatalf("got %q, %v; want %q", got, err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), "apt-get install postgresql") {
				t.Fatalf("the error does not say what to install: %v", err)
			}
		})
	}
}
