package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// fakeTable is a map. It fails with err where that is set, and counts barriers.
type fakeTable struct {
	mu       sync.Mutex
	m        map[string]string
	err      error
	barriers int
	block    bool // Set waits for the end of its time
}

func (f *fakeTable) Get(dst, key []byte) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.m[string(key)]
	return append(dst, v...), ok
}

func (f *fakeTable) List(yield func(key, value []byte) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(f.m)) {
		if !yield([]byte(k), []byte(f.m[k])) {
			return
		}
	}
}

func (f *fakeTable) Set(ctx context.Context, key, value []byte) error {
	if f.block {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.m[string(key)] = string(value)
	}
	return f.err
}

func (f *fakeTable) Delete(_ context.Context, key []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		delete(f.m, string(key))
	}
	return f.err
}

func (f *fakeTable) Barrier(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.barriers++
	return f.err
}

type stateError struct{ state string }

func (e stateError) Error() string    { return "message of " + e.state }
func (e stateError) SQLState() string { return e.state }
func (e stateError) Detail() string   { return "not applied" }
func (e stateError) Hint() string     { return "wait" }

// serve runs a server on loopback for the test and gives its address.
func serve(t *testing.T, o Options) (address string) {
	t.Helper()
	o.Logger = zerolog.Nop()
	if o.Open == nil {
		o.Open = open(newTable())
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if o.MaxValueSize == 0 {
		o.MaxValueSize = 1 << 20
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// raw sends a request as it is written and gives the status and the body.
func raw(t *testing.T, address, request string) (status int, header http.Header, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(b), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	var minor int
	if _, err := fmt.Sscanf(lines[0], "HTTP/1.%d %d", &minor, &status); err != nil {
		t.Fatalf("answer %q", b)
	}
	header = http.Header{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		header.Set(name, value)
	}
	return status, header, body
}

func newTable(kv ...string) *fakeTable {
	f := &fakeTable{m: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		f.m[kv[i]] = kv[i+1]
	}
	return f
}

// open gives the table at every request.
func open(t Table) func() (Table, error) {
	return func() (Table, error) { return t, nil }
}

// TestAnyKey takes keys that HTTP software likes to spoil there and back.
func TestAnyKey(t *testing.T) {
	table := newTable()
	c := NewClient(serve(t, Options{Open: open(table)}))
	defer c.Close()
	for _, key := range []string{
		"k", "", "/", "//", "a/b", "a//b", "/a/", ".", "..", "../..", "a/../b", "%", "%2F", "%zz", "a b", "a+b", "?", "a?b=c", "#", ";",
		"ключ", "é", "\t\n", `"`, `\`, "keys", strings.Repeat("k", 64),
	} {
		value := "value of " + key
		if err := c.Set(t.Context(), key, []byte(value)); err != nil {
			t.Errorf("set %q: %v", key, err)
			continue
		}
		if table.m[key] != value {
			t.Errorf("set %q: the table has %q", key, table.m)
		}
		got, found, err := c.Get(t.Context(), key, false)
		if err != nil || !found || string(got) != value {
			t.Errorf("get %q: %q %v %v", key, got, found, err)
		}
		if err := c.Delete(t.Context(), key); err != nil || len(table.m) != 0 {
			t.Errorf("delete %q: %v, left %q", key, err, table.m)
		}
		if got, found, err := c.Get(t.Context(), key, false); err != nil || found {
			t.Errorf("get of deleted %q: %q %v %v", key, got, found, err)
		}
	}
}

func TestValues(t *testing.T) {
	table := newTable()
	c := NewClient(serve(t, Options{Open: open(table), MaxValueSize: 100}))
	defer c.Close()
	for _, tc := range []struct {
		value, state string
	}{
		{"", ""}, {"v", ""}, {"line\r\nline\n", ""}, {"<&>\u2028 ключ", ""}, {strings.Repeat("x", 100), ""},
		{strings.Repeat("x", 101), "54000"}, {"a\x00b", "22021"}, {"\xff", "22021"},
	} {
		table.m = map[string]string{}
		err := c.Set(t.Context(), "k", []byte(tc.value))
		var f *Failure
		if tc.state != "" {
			if !errors.As(err, &f) || f.SQLState != tc.state || len(table.m) != 0 {
				t.Errorf("set %.10q: %v, table %q", tc.value, err, table.m)
			}
			continue
		}
		if err != nil {
			t.Errorf("set %.10q: %v", tc.value, err)
			continue
		}
		var listed []Entry
		err = c.List(t.Context(), false, func(e Entry) error { listed = append(listed, e); return nil })
		if want := []Entry{{"k", tc.value}}; err != nil || !slices.Equal(listed, want) {
			t.Errorf("list: %q, %v; want %q", listed, err, want)
		}
	}
}

func TestList(t *testing.T) {
	table := newTable("b", "2", "a", "1", "", "0")
	address := serve(t, Options{Open: open(table)})
	status, header, body := raw(t, address, "GET /v1/keys HTTP/1.0\r\nHost: localhost\r\n\r\n")
	want := "{\"keys\":[\n{\"key\":\"\",\"value\":\"0\"}\n,{\"key\":\"a\",\"value\":\"1\"}\n,{\"key\":\"b\",\"value\":\"2\"}\n]}\n"
	if status != 200 || header.Get("Content-Type") != "application/json" || body != want {
		t.Fatalf("%d %v %s", status, header, body)
	}
	c := NewClient(address)
	defer c.Close()
	enough := errors.New("enough")
	n := 0
	if err := c.List(t.Context(), false, func(Entry) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Fatalf("after %d entries: %v", n, err)
	}
	table.mu.Lock()
	table.m = map[string]string{}
	table.mu.Unlock()
	if err := c.List(t.Context(), false, func(Entry) error { return enough }); err != nil {
		t.Fatalf("empty: %v", err)
	}
}

// TestListCutOff makes sure that half a list is never taken for the whole.
func TestListCutOff(t *testing.T) {
	var whole bytes.Buffer
	if err := WriteList(&whole, newTable("a", "1", "b", "2").List); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() - 2 { // without the closing brace and the line's end the list is complete
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole.Bytes()[:n]) })}
		go func() { _ = srv.Serve(l) }()
		c := NewClient(l.Addr().String())
		if err := c.List(t.Context(), false, func(Entry) error { return nil }); err == nil {
			t.Errorf("%q was taken for a whole list", whole.Bytes()[:n])
		}
		c.Close()
		_ = srv.Close()
	}
}

func TestConsistency(t *testing.T) {
	for _, tc := range []struct {
		linearizable bool // the server's default
		query        string
		barriers     int
		status       int
	}{
		{false, "", 0, 200}, {true, "", 1, 200}, {true, "?consistency=local", 0, 200}, {false, "?consistency=linearizable", 1, 200},
		{false, "?consistency=strong", 0, 400},
	} {
		for _, path := range []string{"/v1/keys", "/v1/keys/k"} {
			table := newTable("k", "v")
			address := serve(t, Options{Open: open(table), Linearizable: tc.linearizable})
			status, _, body := raw(t, address, "GET "+path+tc.query+" HTTP/1.0\r\nHost: localhost\r\n\r\n")
			if status != tc.status || table.barriers != tc.barriers {
				t.Errorf("default linearizable=%v, %s: %d with %d barriers: %s", tc.linearizable, path+tc.query, status, table.barriers, body)
			}
		}
	}
}

func TestTableErrors(t *testing.T) {
	for state, status := range map[string]int{
		"22001": 400, "22004": 400, "22021": 400, "54000": 413, "53400": 507, "53100": 507, "53000": 429, "55000": 503, "57014": 503,
		"40003": 504, "42501": 403, "XX001": 500, "": 500,
	} {
		table := newTable()
		table.err = fmt.Errorf("wrapped: %w", stateError{state})
		want := Failure{SQLState: state, Message: "message of " + state, Detail: "not applied", Hint: "wait"}
		if state == "" {
			table.err = errors.New("broken")
			want = Failure{SQLState: "XX000", Message: "broken", Detail: "Whether anything was set is not known."}
		}
		address := serve(t, Options{Open: open(table)})
		for _, request := range []string{
			"PUT /v1/keys/k HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv",
			"DELETE /v1/keys/k HTTP/1.0\r\nHost: localhost\r\n\r\n",
			"GET /v1/keys/k?consistency=linearizable HTTP/1.0\r\nHost: localhost\r\n\r\n",
			"GET /v1/keys?consistency=linearizable HTTP/1.0\r\nHost: localhost\r\n\r\n",
		} {
			got, _, body := raw(t, address, request)
			var f Failure
			if err := json.Unmarshal([]byte(body), &f); err != nil || got != status || f != want {
				t.Errorf("%s, %.20s: %d %s, want %d", state, request, got, body, status)
			}
		}
	}
}

func TestTimeLimit(t *testing.T) {
	table := newTable()
	table.block = true
	c := NewClient(serve(t, Options{Open: open(table), Timeout: 30 * time.Millisecond}))
	defer c.Close()
	if err := c.Set(t.Context(), "k", nil); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Fatalf("set: %v", err)
	}
}

func TestRequests(t *testing.T) {
	address := serve(t, Options{Open: open(newTable("k", "v")), Status: func() Status { return Status{} }})
	const host = " HTTP/1.0\r\nHost: localhost\r\n\r\n"
	for _, tc := range []struct {
		request string
		status  int
		allow   string
		body    string // part of it
	}{
		{"GET /healthz" + host, 200, "", `{"alive":true}`},
		{"HEAD /healthz" + host, 200, "", ""},
		{"GET /v1/keys/k" + host, 200, "", "v"},
		{"HEAD /v1/keys/k" + host, 200, "", ""},
		{"GET /v1/keys/none" + host, 404, "", `there is no key \"none\"`},
		{"GET /v1/keys/%zz" + host, 400, "", ""},
		{"GET /v1/keys/%00" + host, 400, "", "22021"},
		{"GET /v1/keys/%ff" + host, 400, "", "22021"},
		{"POST /v1/keys/k" + host, 405, "GET, HEAD, PUT, DELETE", "POST"},
		{"POST /v1/keys" + host, 405, "GET, HEAD", "POST"},
		{"DELETE /readyz" + host, 405, "GET, HEAD", "DELETE"},
		{"GET /" + host, 404, "", "no such path"},
		{"GET /v1" + host, 404, "", "no such path"},
		{"GET /v1/keysk" + host, 404, "", "no such path"},
		{"GET /healthz HTTP/1.0\r\nHost: " + address + "\r\n\r\n", 200, "", ""},
		{"GET /healthz HTTP/1.0\r\nHost: [::1]:80\r\n\r\n", 200, "", ""},
		{"GET /v1/keys HTTP/1.0\r\nHost: evil.example:8001\r\n\r\n", 403, "", "evil.example"},
		{"GET /healthz HTTP/1.0\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431, "", ""},
	} {
		status, header, body := raw(t, address, tc.request)
		if status != tc.status || header.Get("Allow") != tc.allow || !strings.Contains(body, tc.body) {
			t.Errorf("%.60q: %d %v %s", tc.request, status, header, body)
		}
		if status != 431 && status != 400 && header.Get("Cache-Control") != "no-store" {
			t.Errorf("%.60q may be cached: %v", tc.request, header)
		}
	}
}

func TestReadiness(t *testing.T) {
	broken := errors.New("no leader")
	for _, tc := range []struct {
		name   string
		errs   map[string]error
		status int
		want   Readiness
	}{
		{"all good", map[string]error{"a": nil, "b": nil}, 200, Readiness{true, []CheckResult{{"a", true, ""}, {"b", true, ""}}}},
		{"one bad", map[string]error{"a": nil, "b": broken}, 503, Readiness{false, []CheckResult{{"a", true, ""}, {"b", false, "no leader"}}}},
		{"nothing to check", nil, 200, Readiness{true, []CheckResult{}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var checks []Check
			for _, name := range slices.Sorted(maps.Keys(tc.errs)) {
				checks = append(checks, Check{name, func(context.Context) error { return tc.errs[name] }})
			}
			address := serve(t, Options{Checks: checks})
			status, _, _ := raw(t, address, "GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
			c := NewClient(address)
			defer c.Close()
			got, err := c.Readiness(t.Context())
			if err != nil || status != tc.status {
				t.Fatalf("%d, %v", status, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestReadinessOfASlowCheck(t *testing.T) {
	c := NewClient(serve(t, Options{Checks: []Check{{"slow", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}}))
	defer c.Close()
	r, err := c.Readiness(t.Context())
	if err != nil || r.Ready || r.Checks[0].Reason != context.DeadlineExceeded.Error() {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestStatusThereAndBack(t *testing.T) {
	lag, yes := uint64(3), true
	want := Status{
		Version: "1", Sessions: 2, ReplicaID: 3, RaftAddress: "a:1", LeaderID: 4, Term: 5, AppliedIndex: 6, CommitIndex: 9, CommitLag: &lag, Keys: 7,
		Bytes: 8, Quota: 9, InFlight: 10, DiskFree: 12, StateHash: "h", Generation: 11, ShmPath: "/s", Ready: true, ReadyReason: "r",
		Members: []Member{{ID: 1, Address: "a:1", Reachable: &yes, Self: true}, {ID: 2, Address: "b:1"}},
	}
	c := NewClient(serve(t, Options{Status: func() Status { return want }}))
	defer c.Close()
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestClientOfSomethingElse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = srv.Serve(l) }()
	c := NewClient(l.Addr().String())
	defer c.Close()
	if _, _, err := c.Get(t.Context(), "k", false); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("get: %v", err)
	}
	if _, err := c.Readiness(t.Context()); err == nil {
		t.Error("readiness of something else")
	}
	_ = srv.Close()
	c.Close()
	err = c.Set(t.Context(), "k", nil)
	if err == nil || strings.Contains(err.Error(), "http://") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("set on nobody: %v", err)
	}
}

func TestShutdownBeforeServe(t *testing.T) {
	s := New(Options{Logger: zerolog.Nop()})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Fatal("the listener is open")
	}
}

// TestBeforeTheTable asks a node that has no table yet: only what needs none is answered.
func TestBeforeTheTable(t *testing.T) {
	var table Table
	address := serve(t, Options{Open: func() (Table, error) {
		if table == nil {
			return nil, errors.New("not yet")
		}
		return table, nil
	}})
	const host = " HTTP/1.0\r\nHost: localhost\r\n\r\n"
	for request, want := range map[string]int{
		"GET /healthz": 200, "GET /readyz": 200, "GET /v1/status": 503, "GET /v1/keys": 503, "GET /v1/keys/k": 503, "DELETE /v1/keys/k": 503,
	} {
		if status, _, body := raw(t, address, request+host); status != want || want == 503 && !strings.Contains(body, `"not yet"`) {
			t.Errorf("%s: %d %s", request, status, body)
		}
	}
}
