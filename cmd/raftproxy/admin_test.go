package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/raftproxy/raftproxy/internal/admin"
	"github.com/raftproxy/raftproxy/internal/group"
)

// TestCommandsAndSQLAgree uses the table by the commands, by SQL and from shared memory.
func TestCommandsAndSQLAgree(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3})
	n, other := g.Nodes()[0], g.Nodes()[1]
	ask := func(args ...string) result {
		t.Helper()
		return runProgram(t, []string{"RAFTPROXY_ADMIN=" + n.Admin}, args...)
	}
	ask("list").check(t, 0, "", "")
	ask("list", "--json").check(t, 0, "{\"keys\":[]}\n", "")
	ask("set", "by/command", "a b").check(t, 0, "", "")
	mustPsql(t, n.URL(), `select raftable('by SQL', E'tab\there\nline \\ end')`)
	ask("set", "..", "é").check(t, 0, "", "")

	if out := mustPsql(t, n.URL(), "select raftable('by/command'), raftable('..')"); out != "a b|é" {
		t.Errorf("SQL sees %q", out)
	}
	ask("get", "by/command").check(t, 0, "a b\n", "")
	ask("get", "..").check(t, 0, "é\n", "")
	ask("get", "by SQL").check(t, 0, "tab\there\nline \\ end\n", "")
	ask("get", "none").check(t, 1, "", `there is no key "none"`)
	runProgram(t, nil, "get", "--linearizable", "by/command", "--admin", other.Admin).check(t, 0, "a b\n", "")

	lines := "..\té\nby SQL\ttab\\there\\nline \\\\ end\nby/command\ta b\n"
	asJSON := `{"keys":[
{"key":"..","value":"é"}
,{"key":"by SQL","value":"tab\there\nline \\ end"}
,{"key":"by/command","value":"a b"}
]}
`
	ask("list").check(t, 0, lines, "")
	ask("list", "--json").check(t, 0, asJSON, "")
	ask("list", "--linearizable").check(t, 0, lines, "")
	ask("list", "--shm", n.ShmPath()).check(t, 0, lines, "")
	ask("list", "--shm", n.ShmPath(), "--json").check(t, 0, asJSON, "")

	ask("delete", "by/command").check(t, 0, "", "")
	ask("delete", "by/command").check(t, 0, "", "")
	ask("list", "--shm", n.ShmPath()).check(t, 0, "..\té\nby SQL\ttab\\there\\nline \\\\ end\n", "")
	ask("set", strings.Repeat("k", 65), "v").check(t, 1, "", "SQLSTATE 22001")
	ask("set", "k", strings.Repeat("v", 100_000)).check(t, 0, "", "")
	checkStdinSet(t, n)
	checkStatus(t, g)
}

// checkStdinSet sets a value that is longer than a command line may be, and then one that is too long for the table.
func checkStdinSet(t *testing.T, n *group.Node) {
	t.Helper()
	for _, tc := range []struct {
		size  int
		state string
	}{{1 << 20, ""}, {1<<20 + 1, "54000"}} {
		cmd := exec.CommandContext(t.Context(), binary, "set", "long", "-", "--admin", n.Admin)
		value := strings.Repeat("x", tc.size)
		cmd.Stdin = strings.NewReader(value)
		out, err := cmd.CombinedOutput()
		if (err != nil) != (tc.state != "") || !strings.Contains(string(out), tc.state) {
			t.Errorf("set of %d bytes: %v %s", tc.size, err, out)
		}
		if tc.state == "" {
			if got := mustPsql(t, n.URL(), "select raftable('long')"); got != value {
				t.Errorf("got %d bytes of %d", len(got), tc.size)
			}
		}
	}
}

// checkStatus compares what the nodes say of themselves, as JSON and for people.
func checkStatus(t *testing.T, g *group.Group) {
	t.Helper()
	leader, err := g.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the same state on all nodes", func() error {
		var all []admin.Status
		for _, n := range g.Nodes() {
			r := runProgram(t, nil, "status", "--json", "--admin", n.Admin)
			var s admin.Status
			d := json.NewDecoder(strings.NewReader(r.out))
			d.DisallowUnknownFields()
			if err := d.Decode(&s); err != nil || r.code != 0 {
				t.Fatalf("%+v: %v", r, err)
			}
			if s.ReplicaID != n.ID || len(s.Members) != 3 || !s.Members[n.ID-1].Self || s.Members[n.ID-1].Address != n.Raft ||
				!s.Ready || s.LeaderID != leader.ID || s.Term == 0 || s.ShmPath != n.ShmPath() || len(s.StateHash) != 16 {
				t.Fatalf("status of node %d: %s", n.ID, r.out)
			}
			all = append(all, s)
		}
		for _, s := range all {
			if s.AppliedIndex != all[0].AppliedIndex || s.StateHash != all[0].StateHash || s.Keys != all[0].Keys || s.Bytes != all[0].Bytes {
				return fmt.Errorf("%+v", all)
			}
		}
		return nil
	})
	r := runProgram(t, nil, "status", "--admin", leader.Admin)
	for _, want := range []string{
		fmt.Sprintf("node        %d of 3, ", leader.ID), "replica     ready\n", fmt.Sprintf("leader      node %d, term ", leader.ID),
		"table       4 keys, ", " bytes of 256MiB\n", fmt.Sprintf("member %d    %s, this node\n", leader.ID, leader.Raft), "reachable\n",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("status has no %q:\n%s", want, r.out)
		}
	}
}

// TestHealthAndReadiness stops the PostgreSQL of a node, and then most of its group.
func TestHealthAndReadiness(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3})
	n := g.Nodes()[0]
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + n.Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(bytes.TrimSpace(b))
	}
	wait := func(status int, parts ...string) {
		t.Helper()
		waitFor(t, "readiness", func() error {
			got, body := get("/readyz")
			for _, p := range parts {
				if got != status || !strings.Contains(body, p) {
					return fmt.Errorf("%d %s", got, body)
				}
			}
			return nil
		})
		if got, body := get("/healthz"); got != 200 || body != `{"alive":true}` {
			t.Errorf("health: %d %s", got, body)
		}
	}
	const replica, serving = `{"name":"replica","ok":true}`, `{"name":"serving","ok":true}`
	wait(200, `"ready":true`, `{"name":"postgres","ok":true}`, replica, serving)
	runProgram(t, nil, "status", "--ready", "--admin", n.Admin).check(t, 0, "ready\n", "")
	if err := n.Postgres.Stop(); err != nil {
		t.Fatal(err)
	}
	wait(503, `"ready":false`, `{"name":"postgres","ok":false,"reason":"`, replica, serving)
	runProgram(t, nil, "status", "--ready", "--admin", n.Admin).check(t, 1, "", "not ready: postgres: ")
	// The table needs no PostgreSQL.
	runProgram(t, nil, "set", "k", "v", "--admin", n.Admin).check(t, 0, "", "")
	if err := n.Postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(200, `"ready":true`)
	for _, other := range g.Nodes()[1:] {
		if err := other.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	wait(503, `"ready":false`, `{"name":"postgres","ok":true}`, `{"name":"replica","ok":false,"reason":"`, serving)
	r := runProgram(t, nil, "set", "k", "v", "--admin", n.Admin)
	if r.code != 1 || !strings.Contains(r.errOut, "SQLSTATE 55000") && !strings.Contains(r.errOut, "SQLSTATE 40003") {
		t.Errorf("set without a quorum: %+v", r)
	}
	checkWithoutQuorum(t, n)
	for _, other := range g.Nodes()[1:] {
		if err := other.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wait(200, `"ready":true`)
}

// checkWithoutQuorum uses one session: a set fails without breaking it, local reads and PostgreSQL go on.
func checkWithoutQuorum(t *testing.T, n *group.Node) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), n.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), "select raftable('k', 'w')")
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55000" && pg.Code != "40003" {
		t.Errorf("set without a quorum: %v", err)
	}
	for sql, want := range map[string]string{"select raftable('k')": "v", "select 'postgres'": "postgres"} {
		var got string
		if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
			t.Errorf("%s without a quorum: %q, %v", sql, got, err)
		}
	}
}
