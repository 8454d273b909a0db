package proxy

import (
	"io"
	"sync"
	"time"
)

// cancelRegistry finds a session by the key that its server gave the client.
type cancelRegistry struct {
	mu       sync.Mutex
	sessions map[string]*session
}

func (r *cancelRegistry) add(key string, s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions == nil {
		r.sessions = make(map[string]*session)
	}
	r.sessions[key] = s
}

func (r *cancelRegistry) remove(key string, s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[key] == s {
		delete(r.sessions, key)
	}
}

func (r *cancelRegistry) find(key []byte) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[string(key)]
}

// cancelRequest ends the wait of the session that the key names, or else passes the request on. Like PostgreSQL it
// answers nothing but the end of the connection, and only after the request has taken effect.
func (s *Server) cancelRequest(req *startup) {
	if sess := s.cancels.find(req.cancelKey); sess != nil && sess.interrupt(errCanceled) {
		return
	}
	server, err := s.dial()
	if err != nil {
		s.cfg.Logger.Error().Err(err).Str("upstream", s.cfg.Upstream).Msg("cannot pass on a cancel request")
		return
	}
	defer server.Close()
	if server.SetDeadline(time.Now().Add(s.cfg.StartupTimeout)) != nil {
		return
	}
	if _, err := server.Write(req.raw); err == nil {
		_, _ = io.Copy(io.Discard, server)
	}
}
