package proxy

import (
	"context"
	"flag"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

var rewrite = flag.Bool("rewrite", false, "write what the oracle says into testdata/wire")

// oracle is the yardstick: the functions in SQL over an ordinary table.
const oracle = `
CREATE TABLE public.raftable_rows (key varchar(64) COLLATE "C" PRIMARY KEY, value text NOT NULL);
CREATE FUNCTION public.raftable(key varchar(64)) RETURNS text LANGUAGE sql VOLATILE
	AS 'SELECT r.value FROM public.raftable_rows r WHERE r.key = $1';
CREATE FUNCTION public.raftable() RETURNS TABLE (key varchar(64), value text) LANGUAGE sql VOLATILE
	AS 'SELECT r.key, r.value FROM public.raftable_rows r ORDER BY r.key';
CREATE FUNCTION public.raftable(key varchar(64), value text, timeout_ms int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF $1 IS NULL THEN
		RAISE EXCEPTION 'raftable: the key must not be NULL' USING ERRCODE = '22004', DETAIL = 'Nothing was set.';
	END IF;
	IF $3 <= 0 THEN
		RAISE EXCEPTION 'raftable: the timeout must be positive' USING ERRCODE = '22023',
			DETAIL = 'Nothing was set.', HINT = 'Give the timeout in milliseconds.';
	END IF;
	DELETE FROM public.raftable_rows r WHERE r.key = $1;
	IF $2 IS NOT NULL THEN
		INSERT INTO public.raftable_rows VALUES ($1, $2);
	END IF;
END $$;
CREATE FUNCTION public.raftable(key varchar(64), value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM public.raftable($1, $2, NULL::int); END $$;
`

// startProxy serves a proxy on loopback until the test ends.
func startProxy(t testing.TB, cfg Config) (srv *Server, addr string) {
	t.Helper()
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
		if err := <-done; err != ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv, l.Addr().String()
}

func testLogger(t testing.TB) zerolog.Logger {
	return zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel)
}

// manyBytes is how many bytes of one write are sent one by one.
const manyBytes = 5000

// cuts are the ways in which the client's writes are cut.
var cuts = map[string]func([]byte) [][]byte{
	"whole": nil,
	"single bytes": func(b []byte) [][]byte {
		var out [][]byte
		for i := range min(len(b), manyBytes) {
			out = append(out, b[i:i+1])
		}
		if len(b) > manyBytes {
			out = append(out, b[manyBytes:])
		}
		return out
	},
	"random borders": func(b []byte) [][]byte {
		var out [][]byte
		for len(b) > 0 {
			n := 1 + rand.IntN(min(len(b), 40))
			if len(b) > manyBytes {
				n = 1 + rand.IntN(len(b))
			}
			out, b = append(out, b[:n]), b[n:]
		}
		return out
	},
}

// TestWire plays the scripts of testdata/wire against a plain PostgreSQL and against the proxy: the answers are equal.
func TestWire(t *testing.T) {
	files, err := filepath.Glob("../testdata/wire/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	options := pgtest.Options{Config: []string{"wal_level = logical", "max_prepared_transactions = 5"}}
	plain := pgtest.New(t, options)
	behind := pgtest.New(t, options)
	control := dialWire(t, plain.Addr())
	control.run(&script{lines: []string{"> query " + quote(oracle), "> wait"}})
	table := newMapTable()
	_, addr := startProxy(t, Config{Upstream: behind.Addr(), Table: table, Logger: testLogger(t)})
	for _, file := range files {
		scripts := readScripts(t, file)
		for _, s := range scripts {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+s.name, func(t *testing.T) {
				control.run(&script{lines: []string{`> query "TRUNCATE public.raftable_rows"`, "> wait"}})
				said := play(t, plain.Addr(), nil, s)
				if *rewrite {
					s.want = said
				} else if diff := cmp.Diff(s.want, said); diff != "" {
					t.Fatalf("the script is not what PostgreSQL says (-script +postgres):\n%s", diff)
				}
				for name, cut := range cuts {
					table.clear()
					if diff := cmp.Diff(s.want, play(t, addr, cut, s)); diff != "" {
						t.Errorf("%s: the proxy says otherwise (-postgres +proxy):\n%s", name, diff)
					}
				}
			})
		}
		if *rewrite {
			writeScripts(t, file, scripts)
		}
	}
}

func quote(s string) string {
	return "\"" + strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "\n", "\\n", "\t", "\\t").Replace(s) + "\""
}
