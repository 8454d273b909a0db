package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	answerTimeout = 60 * time.Second // beyond the table's own time limit
	idleTimeout   = 2 * time.Minute
	checkTimeout  = 2 * time.Second
	maxHeader     = 16 << 10
)

// Table is the replicated table. All methods are safe for concurrent use. An error may have the methods of StateError.
type Table interface {
	// Get appends the value of key on this node's replica to dst.
	Get(dst, key []byte) (out []byte, found bool)
	// List yields everything on this node's replica, at one moment and by key, until yield returns false.
	List(yield func(key, value []byte) bool)
	// Set returns once key has the value on this node's replica and cannot be lost.
	Set(ctx context.Context, key, value []byte) error
	// Delete returns once key is gone from this node's replica; one that was not there is no error.
	Delete(ctx context.Context, key []byte) error
	// Barrier returns when this node's replica has all that was acknowledged anywhere before the call.
	Barrier(ctx context.Context) error
}

// StateError is an error that says what PostgreSQL would call it.
type StateError interface {
	error
	SQLState() string
	Detail() string
	Hint() string
}

// Check is one thing that a node needs to be ready. Probe returns nil, or what is missing; it must respect ctx.
type Check struct {
	Name  string
	Probe func(ctx context.Context) error
}

// Options of a Server.
type Options struct {
	Open         func() (Table, error) // the table, or why there is none yet; asked at every request
	Status       func() Status         // asked only when Open gives a table
	Checks       []Check
	MaxValueSize int64         // bytes of a request's body
	Timeout      time.Duration // of a set, a delete or a linearizable read
	Linearizable bool          // how to read where the request does not say
	Logger       zerolog.Logger
}

// Server is the HTTP endpoint.
type Server struct {
	o    Options
	mu   sync.Mutex
	http []*http.Server // one for each listener
	down bool
}

// New makes a server; Serve runs it.
func New(o Options) *Server { return &Server{o: o} }

// Serve answers requests from l until Shutdown, which is no error. It closes l.
func (s *Server) Serve(l net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler(isLoopback(l.Addr())),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      s.o.Timeout + answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(s.o.Logger, "", 0),
	}
	s.mu.Lock()
	down := s.down
	s.http = append(s.http, srv)
	s.mu.Unlock()
	if down {
		return l.Close()
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops listening, waits for the requests under way until ctx ends, and then cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.down = true
	servers := s.http
	s.mu.Unlock()
	var err error
	for _, srv := range servers {
		if e := srv.Shutdown(ctx); e != nil {
			err = errors.Join(err, srv.Close())
		}
	}
	return err
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// handler routes by hand: a mux would clean the path, and with it keys such as "a//b" or "..".
func (s *Server) handler(loopback bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if loopback && !localHost(r.Host) {
			// A web page could otherwise reach a loopback endpoint through a host name that it makes resolve to 127.0.0.1.
			fail(w, http.StatusForbidden, &Failure{Message: "host " + r.Host + " is not served here", Hint: "Use an address or localhost."})
			return
		}
		path := r.URL.EscapedPath()
		var table Table
		if strings.HasPrefix(path, "/v1/") {
			var err error
			if table, err = s.o.Open(); err != nil {
				failState(w, &Failure{SQLState: codeUnavailable, Message: err.Error(), Detail: "Nothing was set."})
				return
			}
		}
		key, isKey := strings.CutPrefix(path, "/v1/keys/")
		switch {
		case isKey:
			s.key(w, r, table, key)
		case path == "/v1/keys":
			s.only(w, r, func(w http.ResponseWriter, r *http.Request) { s.list(w, r, table) })
		case path == "/v1/status":
			s.only(w, r, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.o.Status()) })
		case path == "/healthz":
			s.only(w, r, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, map[string]bool{"alive": true}) })
		case path == "/readyz":
			s.only(w, r, s.ready)
		default:
			fail(w, http.StatusNotFound, &Failure{Message: "no such path: " + path})
		}
	})
}

// localHost says whether a Host header names this machine without the help of a name server.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// only lets GET and HEAD through.
func (s *Server) only(w http.ResponseWriter, r *http.Request, do http.HandlerFunc) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		notAllowed(w, r, "GET, HEAD")
		return
	}
	do(w, r)
}

func notAllowed(w http.ResponseWriter, r *http.Request, allowed string) {
	w.Header().Set("Allow", allowed)
	fail(w, http.StatusMethodNotAllowed, &Failure{Message: "method " + r.Method + " is not for this path", Hint: "Use one of: " + allowed + "."})
}

// ready asks all checks at once, so that the answer takes no longer than the slowest.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	all := Readiness{Ready: true, Checks: make([]CheckResult, len(s.o.Checks))}
	var wg sync.WaitGroup
	for i, c := range s.o.Checks {
		wg.Go(func() {
			all.Checks[i] = CheckResult{Name: c.Name, OK: true}
			if err := c.Probe(ctx); err != nil {
				all.Checks[i] = CheckResult{Name: c.Name, Reason: err.Error()}
			}
		})
	}
	wg.Wait()
	status := http.StatusOK
	for _, c := range all.Checks {
		if !c.OK {
			all.Ready, status = false, http.StatusServiceUnavailable
		}
	}
	answer(w, status, all)
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // a client that went away has nothing to be told
}

func fail(w http.ResponseWriter, status int, f *Failure) { answer(w, status, f) }
