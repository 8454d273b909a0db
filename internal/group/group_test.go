package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/internal/admin"
)

// The tests run a stand-in for the program: this test binary, which then only has an admin endpoint. What it does is chosen
// by a file for each node, GROUP_TEST_DIR/ID: a line is taken from it at each start, "taken" ends it as if a port were
// taken, "broken" as if something else were wrong, and no line lets it run.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		standIn(os.Args[2:])
	}
	os.Exit(m.Run())
}

func standIn(args []string) {
	flags := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	file := filepath.Join(os.Getenv("GROUP_TEST_DIR"), flags["--node-id"])
	script, _ := os.ReadFile(file)
	line, rest, _ := strings.Cut(string(script), "\n")
	_ = os.WriteFile(file, []byte(rest), 0o600)
	switch line {
	case "taken":
		exit("listen: address already in use")
	case "broken":
		exit("something else is wrong")
	}
	// What a node that took part leaves behind must be gone when the group is made anew.
	if err := os.Mkdir(flags["--data-dir"], 0o700); err != nil && line != "again" {
		exit(err.Error())
	}
	http.HandleFunc("/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.Status{LeaderID: 2})
	})
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(admin.Readiness{Ready: true})
	})
	l, err := net.Listen("tcp", flags["--admin"])
	if err != nil {
		exit(err.Error())
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { _ = http.Serve(l, nil) }()
	<-stop
	os.Exit(0)
}

func exit(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}

// script says what the starts of a node do.
func script(t *testing.T, dir, id string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, id), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dirs are a directory for the scripts and one for the group.
func dirs(t *testing.T) (scripts, root string) {
	t.Helper()
	scripts = t.TempDir()
	t.Setenv("GROUP_TEST_DIR", scripts)
	root, err := os.MkdirTemp("/tmp", "rpgroup") // the server's account can reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	return scripts, root
}

func closeGroup(t *testing.T, g *Group, root string) {
	t.Helper()
	shm := g.shm
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	for _, n := range g.Nodes() {
		if n.Running() {
			t.Errorf("node %d runs", n.ID)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(shm); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %s", shm)
	}
}

func TestTriesOtherPorts(t *testing.T) {
	scripts, root := dirs(t)
	script(t, scripts, "2", "taken", "taken")
	g, err := Start(t.Context(), Options{Binary: os.Args[0], Nodes: 3, Dir: root})
	if err != nil {
		t.Fatal(err)
	}
	defer closeGroup(t, g, root)
	var addresses []string
	for _, n := range g.Nodes() {
		addresses = append(addresses, n.Raft, n.Listen, n.Admin)
		if args := strings.Join(n.Args(), " "); !strings.Contains(args, "--peers 1="+g.Nodes()[0].Raft+",2=") {
			t.Errorf("arguments: %s", args)
		}
	}
	slices.Sort(addresses)
	if unique := slices.Compact(slices.Clone(addresses)); len(unique) != 9 {
		t.Errorf("addresses: %v", addresses)
	}
	leader, err := g.Leader(t.Context())
	if err != nil || leader.ID != 2 {
		t.Errorf("leader: %v, %v", leader, err)
	}
}

func TestGivesUpOnOtherFaults(t *testing.T) {
	scripts, root := dirs(t)
	script(t, scripts, "2", "broken")
	_, err := Start(t.Context(), Options{Binary: os.Args[0], Nodes: 2, Dir: root})
	if err == nil || !strings.Contains(err.Error(), "node 2 is not ready") || !strings.Contains(err.Error(), "something else is wrong") {
		t.Errorf("Start: %v", err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestStartsAgainOnItsPorts has somebody else on a node's port for a time.
func TestStartsAgainOnItsPorts(t *testing.T) {
	scripts, root := dirs(t)
	g, err := Start(t.Context(), Options{Binary: os.Args[0], Nodes: 1, Dir: root})
	if err != nil {
		t.Fatal(err)
	}
	defer closeGroup(t, g, root)
	n := g.Nodes()[0]
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", n.Admin)
	if err != nil {
		t.Fatal(err)
	}
	script(t, scripts, "1", slices.Repeat([]string{"again"}, 10_000)...)
	started := make(chan error, 1)
	go func() { started <- n.Start(t.Context()) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(n.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(b), "address already in use") > 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not try: %s", b)
		}
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-started, n.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
}
