package proxy

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// terminateWait bounds how long a session that is told to go may take to take it in.
const terminateWait = time.Second

// startupExpired ends a session that has not seen its first ReadyForQuery in time.
func (s *session) startupExpired() {
	s.owed.mu.Lock()
	started := s.owed.started
	s.owed.mu.Unlock()
	if !started {
		s.log.Info().Dur("startup_timeout", s.srv.cfg.StartupTimeout).Msg("session ended: startup took too long")
		s.abort()
	}
}

// abort makes both sides of the session end. It does not wait for them, and may be called by either: closing a
// connection could wait until nobody reads it, so it is shut down, and closed when both sides have ended.
func (s *session) abort() {
	s.owed.close()
	s.interrupt(errTerminated)
	shutdown(s.client)
	shutdown(s.server)
}

// shutdown ends a connection in both directions: who reads or writes it is woken.
func shutdown(c conn) {
	if k, ok := c.(*sock); ok {
		_ = k.shutdown(unix.SHUT_RDWR)
		return
	}
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // of TLS
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		if d, ok := c.(net.Conn); ok {
			_ = d.SetDeadline(time.Unix(1, 0))
		}
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// drain ends the session as soon as it has no transaction and nothing under way.
func (s *session) drain() {
	s.draining.Store(true)
	s.endIfDraining()
}

// mayWork says, at the start of what the client sent, whether the session has not been ended. From then on busy keeps it
// from being ended.
func (s *session) mayWork() bool {
	s.busy.Store(true)
	if !s.draining.Load() {
		return true // who sets it later finds busy
	}
	s.endMu.Lock()
	defer s.endMu.Unlock()
	return !s.ended
}

// endIfDraining tells an idle client to go. It is called whenever the session may have become idle.
func (s *session) endIfDraining() {
	if !s.draining.Load() {
		return
	}
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.ended || s.busy.Load() || !s.owed.idle() || !s.clientMu.TryLock() {
		return
	}
	defer s.clientMu.Unlock()
	if k, ok := s.client.(*sock); ok && !k.allSent() {
		return // it is called again when there is room
	}
	s.ended = true
	e := &pgError{code: codeAdminShutdown, message: "terminating connection due to administrator command"}
	lastWords(s.client, e.append(nil, "FATAL"))
	if _, ok := s.client.(*tls.Conn); ok {
		_ = closeWrite(s.client)
	}
	lastWords(s.server, []byte{'X', 0, 0, 0, 4})
	s.abort()
}

// lastWords writes to a connection that is to be ended. A sock takes what it has room for, others get some time.
func lastWords(c conn, b []byte) {
	if d, ok := c.(net.Conn); ok {
		_ = d.SetWriteDeadline(time.Now().Add(terminateWait))
	}
	_, _ = c.Write(b)
}
