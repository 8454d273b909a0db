package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// Config says how a Server works. Zero durations and limits take the default given with each.
type Config struct {
	// Upstream is the PostgreSQL server: host:port, or the absolute path of a unix socket.
	Upstream string
	// Table answers the calls.
	Table  Table
	Logger zerolog.Logger
	// MaxClients bounds the sessions; beyond it a client gets 53300. Default 10,000.
	MaxClients int
	// StartupTimeout bounds the time from a client's connect to its session's first ReadyForQuery. Default 30 s.
	StartupTimeout time.Duration
	// SetTimeout bounds a set, and the wait of a linearizable read, unless the call says otherwise. Default 5 s.
	SetTimeout time.Duration
	// InspectLimit is the size in bytes of a Query or Parse message up to which it is looked into. Default 16 MiB.
	InspectLimit int
	// NoIOUring has event loops wait with epoll even where there is io_uring.
	NoIOUring bool
	// NoSchedBatch leaves the threads of event loops in the scheduling class that they have.
	NoSchedBatch bool
	// PlanCache is how many bytes of memory the cache of plans may take, roughly. Default 16 MiB.
	PlanCache int
	// Linearizable makes gets and lists see all that was acknowledged anywhere.
	Linearizable bool
	// Access says who may connect and how; see also Server.SetAccess.
	Access Access
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	defInt := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	defInt(&c.MaxClients, 10_000)
	defInt(&c.InspectLimit, 16<<20)
	defInt(&c.PlanCache, 16<<20)
	def(&c.StartupTimeout, 30*time.Second)
	def(&c.SetTimeout, 5*time.Second)
}

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("proxy: server closed")

// Server accepts clients and proxies each to the upstream. All methods are safe for concurrent use.
type Server struct {
	cfg         Config
	network     string // of the upstream, for net.Dial
	access      atomic.Pointer[access]
	ctx         context.Context
	cancel      context.CancelFunc
	plans       *planCache // with standard_conforming_strings on
	escapePlans *planCache // with it off
	cancels     cancelRegistry
	cancelWait  time.Duration // bounds how long a cancel request that is passed on may take

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{} // clients in startup
	spare     int                   // how many of them came beyond MaxClients
	sessions  map[*session]struct{}
	draining  bool
	loops     []*loop // none until Serve
	nextLoop  int
	hotAfter  int            // of them
	wg        sync.WaitGroup // connections
}

// New makes a server. It reads the files of Config.Access, and fails on a Config that cannot work.
func New(cfg Config) (*Server, error) {
	if cfg.Table == nil {
		return nil, errors.New("proxy: no table")
	}
	network := "unix"
	if !filepath.IsAbs(cfg.Upstream) {
		network = "tcp"
		if _, _, err := net.SplitHostPort(cfg.Upstream); err != nil {
			return nil, fmt.Errorf("proxy: upstream %q is neither host:port nor the absolute path of a unix socket", cfg.Upstream)
		}
	}
	cfg.setDefaults()
	s := &Server{
		cfg: cfg, network: network,
		plans:       newPlanCache(cfg.PlanCache, sqlrewrite.Options{StandardConformingStrings: true}),
		escapePlans: newPlanCache(cfg.PlanCache/8, sqlrewrite.Options{}),
		listeners:   map[net.Listener]struct{}{},
		conns:       map[net.Conn]struct{}{},
		sessions:    map[*session]struct{}{},
		hotAfter:    hotAfter,
		cancelWait:  min(cancelWait, cfg.StartupTimeout),
	}
	if err := s.SetAccess(cfg.Access); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts clients from l until Shutdown, and closes l. Several listeners may be served at the same time. It returns
// ErrServerClosed after Shutdown and the listener's error otherwise.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	if len(s.loops) == 0 {
		s.startLoops()
	}
	s.mu.Unlock()
	for {
		c, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			delete(s.listeners, l)
			draining := s.draining
			s.mu.Unlock()
			if draining {
				return ErrServerClosed
			}
			if isTemporary(err) {
				s.cfg.Logger.Error().Err(err).Msg("cannot accept a client")
				if s.pause(l) {
					continue
				}
				return ErrServerClosed
			}
			return err
		}
		s.admit(c)
	}
}

// acceptPause is how long Serve waits after a failure that may pass, such as having no descriptors left.
const acceptPause = 100 * time.Millisecond

// pause waits before the next accept and says whether to go on.
func (s *Server) pause(l net.Listener) bool {
	select {
	case <-s.ctx.Done():
	case <-time.After(acceptPause):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[l] = struct{}{}
	return !s.draining
}

func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// spareClients is how many clients there may be beyond MaxClients, to be told that they are too many, or to cancel.
const spareClients = 256

// admit starts a goroutine for a client.
func (s *Server) admit(c net.Conn) {
	s.mu.Lock()
	clients := len(s.sessions) + len(s.conns)
	if s.draining || clients >= s.cfg.MaxClients+spareClients {
		s.mu.Unlock()
		c.Close()
		return
	}
	// Those that will be turned away take nobody's place.
	tooMany := clients-s.spare >= s.cfg.MaxClients
	if tooMany {
		s.spare++
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer s.forget(c, tooMany)
		s.serve(c, tooMany)
	}()
}

func (s *Server) forget(c net.Conn, spare bool) {
	c.Close()
	s.mu.Lock()
	if spare {
		s.spare--
	}
	delete(s.conns, c)
	s.mu.Unlock()
}

// serve brings a client through startup and runs its session.
func (s *Server) serve(c net.Conn, tooMany bool) {
	log := s.cfg.Logger.With().Str("client", c.RemoteAddr().String()).Logger()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive})
	}
	deadline := time.Now().Add(s.cfg.StartupTimeout)
	if c.SetDeadline(deadline) != nil {
		return
	}
	access := s.access.Load()
	startup, err := readStartup(c, access)
	client := startup.conn
	defer client.Close()
	if err != nil {
		log.Debug().Err(err).Msg("client did not finish its startup packet")
		return
	}
	if !s.mayStart(c, startup, access, tooMany, &log) {
		return
	}
	server, err := s.dial(deadline)
	if err != nil {
		log.Error().Err(err).Str("upstream", s.cfg.Upstream).Msg("cannot connect to postgres")
		reject(client, s.unreachable(err))
		return
	}
	sess := newSession(s, client, server, log)
	sess.front.noSQL = startup.physicalReplication()
	if mentionsSetting(startup.raw) {
		sess.front.useSettings()
	}
	if client.SetDeadline(time.Time{}) != nil || !s.enter(sess, c) {
		server.Close()
		return
	}
	attached := false
	defer func() {
		if !attached {
			sess.finish()
		}
	}()
	if _, err := server.Write(startup.raw); err != nil {
		server.Close()
		return
	}
	sess.startup = time.AfterFunc(time.Until(deadline), sess.startupExpired)
	if err := sess.login(startup, server, access); err != nil {
		sess.logEnd("login", err)
		return
	}
	if l := s.loop(); l != nil {
		attached = sess.attach(l, client, server)
	}
	if !attached {
		sess.run(client, server)
	}
}

// mayStart says whether a client may have a session. If not, it has been told why, or asked for a cancellation and got that.
func (s *Server) mayStart(c net.Conn, startup *startup, access *access, tooMany bool, log *zerolog.Logger) bool {
	if startup.cancelKey != nil {
		if access.permits(c.RemoteAddr()) {
			s.cancelRequest(startup)
		}
		return false
	}
	refusal := access.admission(c, startup.tls() != nil)
	if refusal == nil && tooMany {
		refusal = &pgError{code: codeTooManyConnections, message: "sorry, too many clients already"}
	}
	if refusal != nil {
		log.Warn().Int("max_clients", s.cfg.MaxClients).Msg("client refused: " + refusal.message)
		reject(startup.conn, refusal)
		return false
	}
	return true
}

// startLoops starts the event loops: as many as can be busy while the rest of the process still gets its share.
func (s *Server) startLoops() {
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		l, err := s.newLoop()
		if err != nil {
			s.cfg.Logger.Warn().Err(err).Msg("no event loop, sessions cost more")
			return
		}
		s.loops = append(s.loops, l)
	}
}

// newLoop starts another loop.
func (s *Server) newLoop() (*loop, error) {
	way := giveWay{off: true}
	if !s.cfg.NoSchedBatch {
		if err := way.open(); err != nil {
			s.cfg.Logger.Info().Err(err).Msg("no SCHED_BATCH, forwarding takes more processor time")
		}
	}
	return newLoop(s.newRing(), way, s.hotAfter)
}

// newRing is the io_uring of another loop, nil for none.
func (s *Server) newRing() *uring {
	if s.cfg.NoIOUring {
		return nil
	}
	ring, err := newUring()
	if err != nil {
		s.cfg.Logger.Info().Err(err).Msg("no io_uring, forwarding takes more processor time")
		return nil
	}
	return ring
}

// loop is the event loop for a new session, nil if there is none. Sessions take turns.
func (s *Server) loop() *loop {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.loops) == 0 {
		return nil
	}
	s.nextLoop = (s.nextLoop + 1) % len(s.loops)
	return s.loops[s.nextLoop]
}

const keepAlive = time.Minute

// unreachable says that there is no connection to postgres.
func (s *Server) unreachable(err error) *pgError {
	e := &pgError{
		code:    codeConnectionFailure,
		message: "raftproxy could not connect to postgres at " + s.cfg.Upstream,
		detail:  err.Error(),
		hint:    "Check that this PostgreSQL server is running and that raftproxy's upstream setting names it.",
	}
	var failed *upstreamTLSError
	if errors.As(err, &failed) {
		e.hint = "Check the ssl settings of this PostgreSQL server and the upstream-tls settings of raftproxy."
	}
	return e
}

// enter makes a client in startup a session.
func (s *Server) enter(sess *session, c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	delete(s.conns, c)
	s.sessions[sess] = struct{}{}
	return true
}

func (s *Server) leave(sess *session) {
	s.mu.Lock()
	delete(s.sessions, sess)
	s.mu.Unlock()
}

// What a client that is turned away may still send, and for how long. A connection that is closed with something unread
// is reset, and the client may then never see why.
const (
	rejectWait   = time.Second
	rejectUnread = 1 << 20
)

// reject tells a client in startup why there will be no session, and lets it take that in.
func reject(c net.Conn, e *pgError) {
	_ = c.SetDeadline(time.Now().Add(rejectWait))
	if _, err := c.Write(e.append(nil, "FATAL")); err == nil && closeWrite(c) == nil {
		_, _ = io.CopyN(io.Discard, c, rejectUnread)
	}
}

// Sessions is the number of sessions.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// tooLarge counts and logs a statement that is forwarded unread because of its size.
func (s *Server) tooLarge(sess *session, size int) {
	sess.log.Warn().Int("bytes", size).Int("inspect_limit", s.cfg.InspectLimit).
		Msg("statement too large to be looked into, forwarded as it is")
}

// Shutdown stops accepting, ends sessions as they become idle (57P01), and closes what is left when ctx ends. It returns
// when all connections are closed; the error is ctx's if some had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.Close()
	}
	var sessions []*session
	for sess := range s.sessions {
		sessions = append(sessions, sess)
	}
	s.mu.Unlock()
	for _, sess := range sessions {
		sess.drain()
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		s.mu.Lock()
		for _, l := range s.loops {
			l.stop()
		}
		s.loops = nil
		s.mu.Unlock()
		close(done)
	}()
	select {
	case <-done:
		s.cancel()
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for sess := range s.sessions {
		sess.abort()
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	<-done
	return ctx.Err()
}
