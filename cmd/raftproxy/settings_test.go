package main

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/raftproxy/raftproxy/internal/group"
)

// TestLimitsHaveEffect sets every limit low and runs into it.
func TestLimitsHaveEffect(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 1, Args: func(*group.Node) []string {
		return []string{"--max-value-size=100", "--quota=150", "--max-clients=2", "--inspect-limit=1000"}
	}})
	n := g.Nodes()[0]
	conn, err := pgx.Connect(t.Context(), n.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	padding := "/*" + strings.Repeat(" ", 1000) + "*/"
	for _, tc := range []struct {
		name, sql, code string
	}{
		{"value of the largest size", "select raftable('a', '" + strings.Repeat("x", 100) + "')", ""},
		{"value past it", "select raftable('a', '" + strings.Repeat("x", 101) + "')", "54000"},
		{"up to the quota", "select raftable('b', '" + strings.Repeat("x", 48) + "')", ""},
		{"past the quota", "select raftable('c', '')", "53400"},
		{"delete with a full quota", "select raftable('a', null)", ""},
		{"set after that", "select raftable('c', '')", ""},
		{"statement past the inspect limit goes to the server", "select raftable('b')" + padding, "42883"},
	} {
		_, err := conn.Exec(t.Context(), tc.sql, pgx.QueryExecModeSimpleProtocol)
		var pg *pgconn.PgError
		if tc.code == "" && err != nil || tc.code != "" && (!errors.As(err, &pg) || pg.Code != tc.code) {
			t.Errorf("%s: %v, want code %q", tc.name, err, tc.code)
		}
	}
	second, err := pgx.Connect(t.Context(), n.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close(t.Context()) }()
	_, err = pgx.Connect(t.Context(), n.URL())
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "53300" {
		t.Errorf("one client too many: %v", err)
	}
}

// TestSetTimeoutHasEffect waits for a set without a quorum.
func TestSetTimeoutHasEffect(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 2, Args: func(*group.Node) []string { return []string{"--set-timeout=100ms"} }})
	n := g.Nodes()[0]
	if err := g.Nodes()[1].Kill(); err != nil {
		t.Fatal(err)
	}
	_, err := psql(t.Context(), n.URL(), "select raftable('k', 'v')")
	if err == nil || strings.Contains(err.Error(), "canceling") {
		t.Errorf("a set of a member without the other: %v", err)
	}
	r := runProgram(t, nil, "set", "k", "v", "--admin", n.Admin, "--timeout=1m")
	if r.code != 1 || strings.Contains(r.errOut, "deadline exceeded") {
		t.Errorf("the same by the admin endpoint: %+v", r)
	}
}

// TestLinearizableReads reads through one node what was just set through another, without any patience.
func TestLinearizableReads(t *testing.T) {
	g := newGroup(t, group.Options{Nodes: 3, Args: func(*group.Node) []string { return []string{"--consistency=linearizable"} }})
	var conns []*pgx.Conn
	for _, n := range g.Nodes() {
		conn, err := pgx.Connect(t.Context(), n.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		conns = append(conns, conn)
	}
	for i := range 100 {
		want := strconv.Itoa(i)
		if _, err := conns[i%3].Exec(t.Context(), "select raftable('k', $1)", want); err != nil {
			t.Fatal(err)
		}
		for at, conn := range conns {
			var get, list string
			if err := conn.QueryRow(t.Context(), "select raftable('k')").Scan(&get); err != nil {
				t.Fatal(err)
			}
			if err := conn.QueryRow(t.Context(), "select value from raftable()").Scan(&list); err != nil {
				t.Fatal(err)
			}
			if get != want || list != want {
				t.Fatalf("node %d: get %s, list %s, set before was %s", at+1, get, list, want)
			}
		}
	}
}
