package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// conversationTexts are what random conversations say. None of them sets anything, since runs share the tables.
var conversationTexts = []string{
	"SELECT 1", "SELECT $1::text", "SELECT n FROM generate_series(1, 3) n", "SELECT 1; SELECT 2", "",
	"SELECT raftable('k')", "SELECT raftable($1)", "SELECT raftable('k'); SELECT raftable('l')",
	"SELECT * FROM raftable()", "SELECT raftable()", "SELECT raftable('k') AS r, raftable()",
	"BEGIN", "BEGIN; SELECT 1", "COMMIT", "ROLLBACK", "SAVEPOINT x", "ROLLBACK TO x", "RELEASE x", "START TRANSACTION READ ONLY",
	"SELECT 1/0", "SELECT nothing", "SELEKT", "SELECT raftable(", "SELECT raftable(7)", "SELECT raftable(NULL, 'v')",
	"DEALLOCATE ALL", "DEALLOCATE a", "DISCARD ALL",
	"SET application_name = 'x'", "LISTEN c", "NOTIFY c", "SELECT pg_notify('c', 'x')",
	"CREATE TEMP TABLE IF NOT EXISTS t (a int)", "INSERT INTO t VALUES (1) RETURNING a",
}

// newConversation makes lines of a script of a random client that does not look at answers.
func newConversation(r *rand.Rand) (lines []string) {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	name := func() string { return pick("", "", "a", "b") }
	for range 3 + r.IntN(14) {
		switch r.IntN(12) {
		case 0, 1:
			lines = append(lines, fmt.Sprintf("query %q", pick(conversationTexts...)))
		case 2, 3:
			lines = append(lines, fmt.Sprintf("parse %q %q", name(), pick(conversationTexts...)))
		case 4, 5:
			lines = append(lines, fmt.Sprintf("bind %q %q%s", name(), name(), pick("", "", " k")))
		case 6:
			lines = append(lines, fmt.Sprintf("describe %s %q", pick("S", "P"), name()))
		case 7, 8, 9:
			lines = append(lines, fmt.Sprintf("execute %q %d", name(), r.IntN(3)))
		case 10:
			lines = append(lines, fmt.Sprintf("close %s %q", pick("S", "P"), name()))
		case 11:
			lines = append(lines, pick("sync", "sync", "flush"))
		}
	}
	return append(lines, "sync", "terminate")
}

// sayAll says all at once and returns all answers.
func sayAll(t *testing.T, addr string, cut func([]byte) [][]byte, lines []string) (said []string) {
	t.Helper()
	w := dialWire(t, addr)
	defer w.c.Close()
	w.cut = cut
	var all []byte
	for _, l := range lines {
		all = append(all, message(t, splitWords(l))...)
	}
	w.send(all)
	for {
		typ, body, err := w.read()
		if err != nil {
			if err != io.EOF {
				said = append(said, "end: "+err.Error())
			}
			return said
		}
		said = append(said, transcribe(typ, body))
	}
}

// TestConversationsPostgres compares random conversations with PostgreSQL through the proxy and without it, to the letter.
func TestConversationsPostgres(t *testing.T) {
	n := 200
	switch {
	case *faultRuns > 0:
		n = max(1, *faultRuns/20)
	case testing.Short():
		n = 40
	}
	seed := faultSeedOf(t, n)
	options := pgtest.Options{Config: []string{"log_min_messages = panic"}}
	plain, behind := pgtest.New(t, options), pgtest.New(t, options)
	dialWire(t, plain.Socket()).ask(oracle)
	_, addr := startProxy(t, Config{Upstream: behind.Socket(), Table: newMapTable()})
	for i := range n {
		lines := newConversation(rand.New(rand.NewPCG(seed, uint64(i))))
		want := sayAll(t, plain.Addr(), nil, lines)
		if diff := cmp.Diff(want, sayAll(t, addr, cuts["random borders"], lines)); diff != "" {
			t.Fatalf("run %d: the proxy says otherwise (-postgres +proxy):\n%s\nto\n%s", i, diff, strings.Join(lines, "\n"))
		}
	}
}
