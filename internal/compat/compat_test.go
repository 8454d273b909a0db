package compat

import "testing"

// TestClients runs everything through one proxy, one after the other: the table is shared.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	w := newWorld(t)
	for _, p := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"psql", w.testPsql},
		{"pgbench", w.testPgbench},
		{"pg_dump", w.testDump},
		{"pg_basebackup", w.testBasebackup},
		{"pg_receivewal", w.testReceivewal},
		{"pg_recvlogical", w.testRecvlogical},
		{"administration", w.testSmall},
		{"pgx", w.testPgx},
		{"lib pq", w.testPq},
	} {
		t.Run(p.name, func(t *testing.T) { p.f(t); w.idle(t) })
	}
	t.Run("drivers", func(t *testing.T) {
		for _, d := range drivers {
			t.Run(d.name, func(t *testing.T) { w.testDriver(t, d) })
		}
	})
}
