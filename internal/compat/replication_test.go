package compat

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testBasebackup copies the whole server through the proxy, with its log over a second connection.
func (w *world) testBasebackup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copy")
	w.postgres(t, w.through(), "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast", "--no-sync")
	w.postgres(t, w.through(), "pg_verifybackup", dir)
	tar := t.TempDir()
	w.postgres(t, w.through(), "pg_basebackup", "-D", tar, "-Ft", "-z", "-X", "fetch", "-c", "fast", "--no-sync")
	if info, err := os.Stat(filepath.Join(tar, "base.tar.gz")); err != nil || info.Size() < 1<<20 {
		t.Errorf("the archive: %v, %v", info, err)
	}
}

// testReceivewal streams the log up to a place in it and compares it with the server's.
func (w *world) testReceivewal(t *testing.T) {
	dir := t.TempDir()
	w.sql(t, "postgres", "SELECT pg_create_physical_replication_slot('compat', true)")
	w.postgres(t, w.through(), "pg_receivewal", "--slot", "compat", "--create-slot", "--if-not-exists")
	t.Cleanup(func() { w.postgres(t, w.through(), "pg_receivewal", "--slot", "compat", "--drop-slot") })
	// The table's rows stand in one file of the log.
	w.sql(t, "postgres", "SELECT pg_switch_wal()", "CREATE TABLE compat_wal AS SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i")
	end := w.sql(t, "postgres", "SELECT pg_switch_wal()")
	file := w.sql(t, "postgres", "SELECT pg_walfile_name('"+end+"')")
	w.sql(t, "postgres", "DROP TABLE compat_wal")
	w.postgres(t, w.through(), "pg_receivewal", "-D", dir, "--slot", "compat", "--endpos", end, "--no-loop", "--no-sync")
	got, err := os.ReadFile(filepath.Join(dir, file))
	if os.IsNotExist(err) {
		got, err = os.ReadFile(filepath.Join(dir, file+".partial"))
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(w.pg.DataDir(), "pg_wal", file))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got, bytes.Repeat([]byte("x"), 100)) || !bytes.HasPrefix(want, bytes.TrimRight(got, "\x00")) {
		t.Errorf("the received log of %d bytes is not the server's", len(got))
	}
}

// testRecvlogical decodes changes up to a place in the log.
func (w *world) testRecvlogical(t *testing.T) {
	const slot = "compat_logical"
	w.postgres(t, w.through(), "pg_recvlogical", "-d", "postgres", "--slot", slot, "--create-slot", "-P", "test_decoding")
	t.Cleanup(func() { w.postgres(t, w.through(), "pg_recvlogical", "-d", "postgres", "--slot", slot, "--drop-slot") })
	w.sql(t, "postgres", "CREATE TABLE compat_logical (id int PRIMARY KEY, note text)",
		"INSERT INTO compat_logical SELECT i, 'SELECT raftable(''k'')' FROM generate_series(1, 100) i", "DELETE FROM compat_logical WHERE id = 7")
	end := w.sql(t, "postgres", "SELECT pg_current_wal_insert_lsn()")
	// A change beyond the end, without which nobody could tell that it has been reached.
	w.sql(t, "postgres", "DROP TABLE compat_logical")
	out := w.postgres(t, w.through(), "pg_recvlogical", "-d", "postgres", "--slot", slot, "--start", "--endpos", end, "--no-loop", "-f", "-")
	const insert = "table public.compat_logical: INSERT: id[integer]:"
	if n := strings.Count(out, insert); n != 100 || !strings.Contains(out, insert+"7 note[text]:'SELECT raftable(''k'')'") ||
		!strings.Contains(out, "table public.compat_logical: DELETE: id[integer]:7\n") {
		t.Errorf("%d inserts in\n%s", n, out)
	}
}
