package proxy

import "time"

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

// abort cuts both connections.
func (s *session) abort() {
	s.interrupt(errTerminated)
	s.client.Close()
	s.server.Close()
}

// drain ends the session as soon as it has no transaction and nothing under way.
func (s *session) drain() {
	s.draining.Store(true)
	s.endIfDraining()
}

// endIfDraining tells an idle client to go. It is called whenever the session may have become idle.
func (s *session) endIfDraining() {
	if !s.draining.Load() || s.busy.Load() {
		return
	}
	o := &s.owed
	o.mu.Lock()
	idle := o.empty() && !o.delivering && o.started && o.status == 'I' && !o.skipping && !o.closed
	o.mu.Unlock()
	if !idle || !s.ended.CompareAndSwap(false, true) {
		return
	}
	e := &pgError{code: codeAdminShutdown, message: "terminating connection due to administrator command"}
	_ = s.client.SetWriteDeadline(time.Now().Add(terminateWait))
	_ = s.writeClient(e.append(nil, "FATAL"))
	_ = s.server.SetWriteDeadline(time.Now().Add(terminateWait))
	_, _ = s.server.Write([]byte{'X', 0, 0, 0, 4})
	s.abort()
}
