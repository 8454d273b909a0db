package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// session is one client connection and its server connection. Two goroutines work on it:
//
//   - the frontend's reads the client, forwards to the server, and runs our own statements;
//   - the backend's reads the server and forwards to the client.
//
// They meet in the account of what the server owes (owed) and in the client's write lock. Lock order: owed.mu and
// clientMu are never held together.
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

	// cancelKey is the server's process number and secret key as BackendKeyData carries them. Written once, before the
	// first ReadyForQuery.
	cancelKey string

	draining atomic.Bool // the session is to end when it is idle
	busy     atomic.Bool // the frontend works on something the client sent
	ended    atomic.Bool // the client was told to go

	waitMu     sync.Mutex
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
		err := readLoop(s.server, serverWatch, s.back.feed)
		s.back.end()
		s.logEnd("server", err)
		s.owed.close()
		s.interrupt(errTerminated)
		// The server is gone: whatever it said has been passed on, nothing more can come.
		s.client.Close()
	}()
	err := readLoop(s.client, clientWatch, s.front.feed)
	s.front.end()
	s.logEnd("client", err)
	switch {
	case errors.Is(err, errServerGone):
		// The server may have said why: the other goroutine passes it on, and ends with the server's end of file.
		err = nil
	case errors.Is(err, io.EOF):
		// A client may close its sending side only and still wait for answers: let the server see what it would see
		// without a proxy. It answers, then closes.
		err = closeWrite(s.server)
	}
	if err != nil {
		s.server.Close()
	}
	<-done
	s.client.Close()
	s.server.Close()
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
