package proxy

import (
	"testing"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// TestQuestionsThatFail has the server fail what the proxy asks it behind the client's back: the client sees the error, in
// place of an answer made of old settings, and the session goes on.
func TestQuestionsThatFail(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	table := newMapTable()
	table.put("k", "v")
	_, addr := startProxy(t, Config{Upstream: pg.Addr(), Table: table, Logger: testLogger(t)})
	// No function of this name works for what the proxy asks.
	const spoil = "ALTER FUNCTION pg_catalog.current_setting(text, boolean) RENAME TO current_setting_away"
	const mend = "ALTER FUNCTION pg_catalog.current_setting_away(text, boolean) RENAME TO current_setting"
	admin := dialWire(t, pg.Addr())
	w := dialWire(t, addr)
	w.expect("SET raftable.consistency = 'local'", "C SET")
	admin.expect("SET allow_system_table_mods = on", "C SET")
	admin.expect(spoil, "C ALTER")
	w.expect("SELECT raftable('k')", `C="42883"`)
	w.expect("SELECT raftable('k'), 1", `C="42883"`)
	w.expect("SELECT 1; SELECT raftable('k')", `C="42883"`)
	w.expect("BEGIN", "Z T")
	w.expect("SELECT raftable('k'), 1", `C="42883"`)
	w.expect("SELECT 1", `C="25P02"`)
	w.expect("ROLLBACK", "Z I")
	w.expect("SELECT 1", `D "1"`)
	admin.expect(mend, "C ALTER")
	w.expect("SELECT raftable('k')", `D "v"`)
	w.expect("SELECT raftable('k'), 1", `D "v" "1"`)
}
