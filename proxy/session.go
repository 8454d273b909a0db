package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// session is one client connection and its server connection. Two goroutines work on it:
//
//   - the frontend's reads the client, forwards to the server, and runs our own statements;
//   - the backend's reads the server and forwards to the client.
//
// They meet in the account of what the server owes (owed) and in the client's write lock. Lock order: endMu, then clientMu,
// then owed.mu or waitMu, of which only one is held at a time.
//
// Only run closes the connections: a Close waits until nobody reads, and both goroutines do nearly all of their work while
// they read. Who wants to end a session calls abort.
type session struct {
	srv    *Server
	log    zerolog.Logger
	client net.Conn
	server net.Conn
	owed   owed

	// clientMu is held while a message to the client is incomplete on the wire, so that nothing is written between
	// its parts.
	clientMu sync.Mutex

	front frontend
	back  backend

	// calls are the settings that calls of harvested rows depend on; the frontend's own, given on before such rows come.
	calls callSettings

	// cancelKey is the server's process number and secret key as BackendKeyData carries them. Written once, before the
	// first ReadyForQuery.
	cancelKey string

	draining atomic.Bool // the session is to end when it is idle
	busy     atomic.Bool // the frontend works on something the client sent

	endMu sync.Mutex // taken before the other locks; held while the session is being ended
	ended bool       // the client was told to go

	waitMu     sync.Mutex
	terminated bool                    // nothing of the session may wait any more
	cancelWait context.CancelCauseFunc // ends the wait of the statement that runs now; nil when none waits
}

var (
	errTerminated = errors.New("proxy: session ended")
	errServerGone = errors.New("proxy: cannot write to the server")
	// errCanceled is the cause of a statement context that a CancelRequest ended.
	errCanceled = errors.New("canceling statement due to user request")
)

func newSession(srv *Server, client, server net.Conn, log zerolog.Logger) *session {
	s := &session{srv: srv, client: client, server: server, log: log}
	s.owed.init()
	s.calls = srv.initial()
	s.front.calls = s.calls
	s.front.s = s
	s.back.s = s
	s.back.settings.standardConformingStrings = true
	return s
}

// run forwards in both directions until both sides are done, and closes both connections.
func (s *session) run() {
	done := make(chan struct{})
	serverWatch, clientWatch := s.srv.hangups.watch(s.server), s.srv.hangups.watch(s.client)
	defer serverWatch.stop()
	defer clientWatch.stop()
	go func() {
		defer close(done)
		err := s.guard(func() error { return readLoop(s.server, serverWatch, s.back.feed) })
		s.back.end()
		s.logEnd("server", err)
		// Whatever the server said has been passed on, or cannot be; nothing more can come.
		s.abort()
	}()
	err := s.guard(func() error { return readLoop(s.client, clientWatch, s.front.feed) })
	s.front.end()
	s.logEnd("client", err)
	switch {
	case errors.Is(err, errServerGone):
		// The server may have said why: the other goroutine passes it on, and ends with the server's end of file.
	case !errors.Is(err, io.EOF) || closeWrite(s.server) != nil:
		s.abort()
	default:
		// A client may close its sending side only and still wait for answers: the server has been told what it would see
		// without a proxy. It answers, then closes.
	}
	<-done
	s.client.Close()
	s.server.Close()
}

// mayBlock is called before something that may take long.
func (s *session) mayBlock() {}

// guard keeps a defect in one session from ending the process, and with it all others.
func (s *session) guard(loop func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Msg("a session failed, please report this")
			err = errTerminated
		}
	}()
	return loop()
}

func (s *session) logEnd(side string, err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, errTerminated) {
		return
	}
	s.log.Debug().Err(err).Str("side", side).Msg("connection ended")
}

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// statementContext gives the context of a statement that may wait. done must be called when it has ended.
func (s *session) statementContext() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(s.srv.ctx)
	s.waitMu.Lock()
	s.cancelWait = cancel
	if s.terminated {
		cancel(errTerminated)
	}
	s.waitMu.Unlock()
	return ctx, func() {
		s.waitMu.Lock()
		s.cancelWait = nil
		s.waitMu.Unlock()
		cancel(nil)
	}
}

// interrupt ends the wait of the running statement and says whether there was one.
func (s *session) interrupt(cause error) bool {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	s.terminated = s.terminated || cause == errTerminated
	if s.cancelWait == nil {
		return false
	}
	s.cancelWait(cause)
	return true
}

// writeClient writes whole messages of our own, between two messages of the server's.
func (s *session) writeClient(b []byte) error {
	s.clientMu.Lock()
	defer s.clientMu.Unlock()
	_, err := s.client.Write(b)
	return err
}
