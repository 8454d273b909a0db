package compat

import (
	"os"
	"strings"
	"testing"
)

// TestClients runs everything through one proxy, one after the other: the table is shared.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many programs")
	}
	w := newWorld(t)
	for _, p := range []struct {
		name string // as docs/compatibility.md has it
		f    func(*testing.T)
	}{
		{"psql", w.testPsql},
		{"pgbench", w.testPgbench},
		{"pg_dump", w.testDump},
		{"pg_basebackup", w.testBasebackup},
		{"pg_receivewal", w.testReceivewal},
		{"pg_recvlogical", w.testRecvlogical},
		{"createdb", w.testSmall},
		{"pgx", w.testPgx},
		{"lib/pq", w.testPq},
	} {
		t.Run(p.name, func(t *testing.T) {
			documented(t, p.name)
			p.f(t)
			w.idle(t)
		})
	}
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			documented(t, d.name)
			w.testDriver(t, d)
		})
	}
}

// documented makes sure that the page that lists what works lists what is tested.
func documented(t *testing.T, name string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n| `"+name+"`") {
		t.Errorf("docs/compatibility.md has no row for %s", name)
	}
}
