package oracle

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/internal/pgtest"
	"github.com/raftproxy/raftproxy/proxy"
)

var (
	timeout = flag.Duration("oracle.timeout", 10*time.Second, "how long to wait for an answer")
	self    = flag.Bool("oracle.self", false, "compare the oracle with another one instead of the proxy")

	//go:embed testdata/setup.sql
	setupSQL string
	//go:embed testdata/functions.sql
	functionsSQL string
)

// world is one server with two databases: plain has the functions, behind is what the proxy stands before.
type world struct {
	server        *pgtest.Server
	table         *mapTable
	plain, behind *side
	version       int // of the server, without the minor one
	end           func()
}

// side is one of the databases and the way to it.
type side struct {
	database, network, addr string
	functions               string // that the database has
	control                 *pgconn.PgConn
	session                 *conn // what statements are run on; nil before the first and after a mishap
	names                   *names
}

// shared is the world of all tests of a run. It is made when first asked for.
var shared *world

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if shared != nil {
		shared.end()
	}
	os.Exit(code)
}

func theWorld(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		w, err := newWorld()
		if err != nil {
			t.Fatal(err)
		}
		shared = w
	}
	return shared
}

func newWorld() (*world, error) {
	server, err := pgtest.Start(context.Background(), pgtest.Options{Config: []string{
		"log_min_messages = panic", "log_min_error_statement = panic", "autovacuum = off", "jit = off", "synchronous_commit = off",
		"max_parallel_workers_per_gather = 0", "timezone = UTC", "log_timezone = UTC", "full_page_writes = off",
	}})
	if err != nil {
		return nil, err
	}
	w := &world{server: server, table: &mapTable{rows: map[string]string{}}}
	w.end = func() { _ = server.Close() }
	addr, stop, err := serve(server.Socket(), w.table)
	if err != nil {
		w.end()
		return nil, err
	}
	w.end = func() {
		stop()
		_ = server.Close()
	}
	w.plain = &side{database: "plain", network: "unix", addr: server.Socket(), functions: functionsSQL}
	w.behind = &side{database: "behind", network: "unix", addr: addr}
	if *self {
		w.behind.addr, w.behind.functions = server.Socket(), functionsSQL
	}
	for _, s := range []*side{w.plain, w.behind} {
		if err := s.create(server); err != nil {
			w.end()
			return nil, err
		}
	}
	rows, err := w.plain.ask("SHOW server_version_num")
	if err != nil {
		w.end()
		return nil, err
	}
	n, err := strconv.Atoi(rows[0][0])
	w.version = n / 10000
	return w, err
}

// serve runs a proxy in front of upstream.
func serve(upstream string, table proxy.Table) (addr string, stop func(), err error) {
	srv, err := proxy.New(proxy.Config{Upstream: upstream, Table: table, Logger: zerolog.Nop()})
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return "", nil, err
	}
	addr = filepath.Join(dir, "s")
	l, err := net.Listen("unix", addr)
	if err != nil {
		return "", nil, err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return addr, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
		<-done
		_ = os.RemoveAll(dir)
	}, nil
}

// create makes the database.
func (s *side) create(server *pgtest.Server) error {
	ctx := context.Background()
	c, err := pgconn.Connect(ctx, server.URL())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	texts := []string{"CREATE DATABASE " + s.database}
	if s.functions != "" {
		// What the proxy's settings are to a server: placeholders.
		texts = append(texts,
			"ALTER DATABASE "+s.database+" SET raftable.consistency = 'local'",
			"ALTER DATABASE "+s.database+" SET raftable.timeout = '5s'")
	}
	for _, text := range texts {
		if _, err := c.Exec(ctx, text).ReadAll(); err != nil {
			return err
		}
	}
	s.control, err = pgconn.Connect(ctx, strings.Replace(server.URL(), "/postgres?", "/"+s.database+"?", 1))
	return err
}

// ask runs a text on the connection that the proxy does not see, and gives the rows of its last statement.
func (s *side) ask(text string) (rows [][]string, err error) {
	results, err := s.control.Exec(context.Background(), text).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w in %.300s", s.database, err, text)
	}
	for _, row := range results[len(results)-1].Rows {
		var words []string
		for _, v := range row {
			words = append(words, string(v))
		}
		rows = append(rows, words)
	}
	return rows, nil
}

// build empties the database and makes what a file's setup says.
func (s *side) build(setup string) error {
	s.hangUp()
	rows, err := s.ask(`SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
		WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
		UNION ALL SELECT 'SELECT lo_unlink(' || oid || ')' FROM pg_largeobject_metadata`)
	if err != nil {
		return err
	}
	text := "SET client_min_messages = error;"
	for _, row := range rows {
		text += row[0] + ";"
	}
	_, err = s.ask(text + "CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC;" + setupSQL + s.functions + ";" + setup + "; SELECT harness.keep()")
	if err != nil {
		return err
	}
	return s.learnNames()
}

// learnNames asks for the OIDs of what the setup made.
func (s *side) learnNames() error {
	rows, err := s.ask(`SELECT c.oid, n.nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid >= 16384
		UNION ALL SELECT t.oid, n.nspname || '.' || typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE t.oid >= 16384`)
	if err != nil {
		return err
	}
	s.names = &names{known: map[uint32]string{}, seen: map[uint32]string{}}
	for _, row := range rows {
		oid, err := strconv.ParseUint(row[0], 10, 32)
		if err != nil {
			return err
		}
		s.names.known[uint32(oid)] = strings.TrimPrefix(row[1], "public.")
	}
	return nil
}

func (w *world) build(setup string) error {
	return both(func(s *side) error { return s.build(setup) }, w.plain, w.behind)
}

// both does something on both sides at the same time.
func both(do func(*side) error, a, b *side) error {
	done := make(chan error)
	go func() { done <- do(a) }()
	err := do(b)
	return errors.Join(err, <-done)
}

// connect makes sure that there is a session.
func (s *side) connect() error {
	s.names.seen = map[uint32]string{}
	if s.session != nil {
		return nil
	}
	var err error
	s.session, err = dial(s.network, s.addr, s.database, s.names)
	return err
}

func (s *side) hangUp() {
	if s.session != nil {
		_ = s.session.c.Close()
		s.session = nil
	}
}

// restore brings the session and, if a statement may have changed it, the database back to where the setup left them.
func (s *side) restore(database bool) error {
	if s.session != nil {
		if s.session.status != 'I' {
			s.session.query("ROLLBACK")
		}
		s.session.query("DISCARD ALL")
		if s.session.err != nil || s.session.status != 'I' {
			s.hangUp()
		}
	}
	if !database {
		return nil
	}
	_, err := s.ask("SET lock_timeout = '5s'; SELECT harness.restore()")
	return err
}

// rows gives the content of the oracle's table.
func (s *side) rows() (map[string]string, error) {
	rows, err := s.ask("SELECT key, value FROM harness.rows")
	content := map[string]string{}
	for _, row := range rows {
		content[row[0]] = row[1]
	}
	return content, err
}

// fill gives both tables this content.
func (w *world) fill(rows map[string]string, stall bool) error {
	w.table.fill(rows, stall)
	if *self {
		return both(func(s *side) error { return s.fill(rows) }, w.plain, w.behind)
	}
	return w.plain.fill(rows)
}

func (s *side) fill(rows map[string]string) error {
	now, err := s.rows()
	if err != nil || maps.Equal(now, rows) {
		return err
	}
	var values []string
	for k, v := range rows {
		values = append(values, fmt.Sprintf("(%s, %s)", literal(k), literal(v)))
	}
	text := "SET lock_timeout = '5s'; DELETE FROM harness.rows;"
	if len(values) > 0 {
		text += "INSERT INTO harness.rows VALUES " + strings.Join(values, ",") + ";"
	}
	_, err = s.ask(text)
	return err
}

func literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
