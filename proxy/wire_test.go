package proxy

import (
	"context"
	"crypto/tls"
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
	srv.waits(*wayFlag)
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

// wireWay is a way in which scripts are played to the proxy.
type wireWay struct {
	name  string
	to    wireTarget
	cut   string // of cuts: how the client cuts its writes, and its records where there is TLS
	every int    // plays one script of so many
}

// wireWays starts proxies with and without TLS in front of one server. Without TLS the scripts are played in all cuts, with TLS on
// both sides as well, with records cut on the socket besides. TLS on one side only concerns a part of the scripts.
func wireWays(t *testing.T, options pgtest.Options, table Table) []wireWay {
	t.Helper()
	ca := newAuthority(t)
	cert := ca.issue("both", "127.0.0.1")
	behind := newTLSPostgres(t, cert, options)
	client := Access{ClientTLS: cert.clientTLS(ClientTLSRequire)}
	upstream := Access{UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file}}
	proxy := func(a Access) wireTarget {
		to := wireTarget{}
		_, to.addr = startProxy(t, Config{Upstream: behind.Addr(), Table: table, Logger: testLogger(t), Access: a})
		if a.ClientTLS.Mode != "" {
			to.tls = &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"}
		}
		return to
	}
	plain, both := proxy(Access{}), proxy(Access{ClientTLS: client.ClientTLS, UpstreamTLS: upstream.UpstreamTLS})
	ragged := both
	ragged.cut = cuts["random borders"]
	all, part := 1, 4
	if testing.Short() {
		all, part = 5, 20
	}
	return []wireWay{
		{"whole", plain, "whole", 1},
		{"single bytes", plain, "single bytes", 1},
		{"random borders", plain, "random borders", 1},
		{"TLS, whole", both, "whole", all},
		{"TLS, single bytes", both, "single bytes", all},
		{"TLS, random borders", both, "random borders", all},
		{"TLS, cut records", ragged, "whole", all},
		{"TLS of the client, whole", proxy(client), "whole", part},
		{"TLS of the client, random borders", proxy(client), "random borders", part},
		{"TLS to the server, whole", proxy(upstream), "whole", part},
		{"TLS to the server, random borders", proxy(upstream), "random borders", part},
	}
}

// TestWire plays the scripts of testdata/wire against a plain PostgreSQL and against the proxy: the answers are equal.
func TestWire(t *testing.T) {
	files, err := filepath.Glob("../testdata/wire/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	options := pgtest.Options{Config: []string{"wal_level = logical", "max_prepared_transactions = 5"}}
	plain := pgtest.New(t, options)
	control := dialWire(t, plain.Addr())
	control.run(&script{lines: []string{"> query " + quote(oracle), "> wait"}})
	table := newMapTable()
	ways := wireWays(t, options, table)
	number := 0
	for _, file := range files {
		scripts := readScripts(t, file)
		for _, s := range scripts {
			number++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+s.name, func(t *testing.T) {
				control.run(&script{lines: []string{`> query "TRUNCATE public.raftable_rows"`, "> wait"}})
				said := play(t, wireTarget{addr: plain.Addr()}, nil, s)
				if *rewrite {
					s.want = said
				} else if diff := cmp.Diff(s.want, said); diff != "" {
					t.Fatalf("the script is not what PostgreSQL says (-script +postgres):\n%s", diff)
				}
				for i, way := range ways {
					if (number+i)%way.every != 0 {
						continue
					}
					table.clear()
					if diff := cmp.Diff(s.want, play(t, way.to, cuts[way.cut], s)); diff != "" {
						t.Errorf("%s: the proxy says otherwise (-postgres +proxy):\n%s", way.name, diff)
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
