package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// session is one client connection and its server connection. Two sides work on it:
//
//   - the frontend's reads the client, forwards to the server, and runs our own statements;
//   - the backend's reads the server and forwards to the client.
//
// They meet in the account of what the server owes (owed) and in the client's write lock. Lock order: endMu, then clientMu,
// then owed.mu, waitMu or a sock's lock, of which only one is held at a time, then a loop's.
//
// Where both connections are plain sockets an event loop runs the sides, see attach and type side. Otherwise each is a
// goroutine, see run.
//
// The connections are closed when both sides have ended: a Close of a net.Conn waits until nobody reads, and a goroutine
// does nearly all of its work while it reads. Who wants to end a session calls abort.
type session struct {
	srv    *Server
	log    zerolog.Logger
	client conn
	server conn
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

	startup *time.Timer  // ends the session if it does not start in time
	sides   atomic.Int32 // how many have not ended; of a session on an event loop

	waitMu     sync.Mutex
	terminated bool                    // nothing of the session may wait any more
	cancelWait context.CancelCauseFunc // ends the wait of the statement that runs now; nil when none waits
	harvesting bool                    // the server runs a statement of which rows are harvested
	passing    sync.WaitGroup          // cancel requests that are on their way to the server meanwhile
	cancelLeft atomic.Bool             // one of them may hit a later statement
}

var (
	errTerminated = errors.New("proxy: session ended")
	errServerGone = errors.New("proxy: cannot write to the server")
	// errCanceled is the cause of a statement context that a CancelRequest ended.
	errCanceled = errors.New("canceling statement due to user request")
)

func newSession(srv *Server, client, server conn, log zerolog.Logger) *session {
	s := &session{srv: srv, client: client, server: server, log: log}
	s.owed.init()
	s.calls = srv.initial()
	s.front.calls = s.calls
	s.front.s, s.front.side.s = s, s
	s.back.s, s.back.side.s = s, s
	s.back.side.server = true
	s.back.settings.standardConformingStrings = true
	return s
}

// run forwards in both directions until both sides are done, and closes both connections, which are those of the session.
func (s *session) run(client, server net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.endBack(s.guard(func() error { return readLoop(server, s.back.feed) }))
	}()
	s.endFront(s.guard(func() error { return readLoop(client, s.front.feed) }))
	<-done
	s.client.Close()
	s.server.Close()
}

// attach gives the session to an event loop, if both connections are plain sockets, and says whether it did. Then the
// connections are closed, and the session goes on with sockets of its own. finish is called when it has ended.
func (s *session) attach(l *loop, client, server net.Conn) bool {
	front, back := &s.front.side, &s.back.side
	// Until everything is in its place events find both sides claimed.
	front.state.Store(sideRunning)
	back.state.Store(sideRunning)
	if !front.watch(l, client) {
		return false
	}
	if !back.watch(l, server) {
		front.unwatch()
		return false
	}
	s.waitMu.Lock()
	terminated := s.terminated
	if !terminated { // or else somebody is about to shut the old ones down
		s.client, s.server = &front.sock, &back.sock
	}
	s.waitMu.Unlock()
	if terminated {
		front.unwatch()
		back.unwatch()
		return false
	}
	client.Close()
	server.Close()
	s.sides.Store(2)
	s.srv.wg.Add(1)
	// What came before now is read here and, as for the client it may take long, by another goroutine.
	if !front.release() {
		go front.runAlone()
	}
	if !back.release() {
		back.runAlone()
	}
	return true
}

// sideEnded ends the session with its second side.
func (s *session) sideEnded() {
	if s.sides.Add(-1) > 0 {
		return
	}
	for _, sd := range []*side{&s.front.side, &s.back.side} {
		sd.sock.loop.forget(&sd.sock)
		sd.sock.Close()
	}
	s.finish()
	s.srv.wg.Done()
}

// finish is what is left to do when both connections are closed.
func (s *session) finish() {
	if s.startup != nil {
		s.startup.Stop()
	}
	s.srv.leave(s)
}

// endFront ends the client's side.
func (s *session) endFront(err error) {
	s.front.end()
	s.logEnd("client", err)
	switch {
	case errors.Is(err, errServerGone):
		// The server may have said why: the other side passes it on, and ends with the server's end of file.
	case !errors.Is(err, io.EOF) || closeWrite(s.server) != nil:
		s.abort()
	default:
		// A client may close its sending side only and still wait for answers: the server has been told what it would see
		// without a proxy. It answers, then closes.
	}
}

// endBack ends the server's side.
func (s *session) endBack(err error) {
	s.back.end()
	s.logEnd("server", err)
	// Whatever the server said has been passed on, or cannot be; nothing more can come.
	s.closeNotify()
	s.abort()
}

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

// closeNotify tells a client with TLS that its stream ends here, and was not cut off, as postgres would. The TLS library
// bounds how long that takes.
func (s *session) closeNotify() {
	if _, ok := s.client.(*tls.Conn); ok && s.clientMu.TryLock() {
		_ = closeWrite(s.client)
		s.clientMu.Unlock()
	}
}

func closeWrite(c conn) error {
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
func (f *frontend) writeClient(b []byte) error {
	f.side.lockClient()
	defer f.s.clientMu.Unlock()
	return f.side.write(f.s.client, b)
}
