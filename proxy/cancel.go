package proxy

import (
	"context"
	"encoding/binary"
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

// cancelRequest ends the wait of the session that the key names, or else passes the request on, and does both where the server
// works on the statement as well. Like PostgreSQL it answers nothing but the end of the connection, and only after the
// request has taken effect.
func (s *Server) cancelRequest(req *startup) {
	if sess := s.cancels.find(req.cancelKey); sess != nil {
		interrupted, harvesting := sess.cancel()
		if harvesting {
			defer sess.passing.Done()
		} else if interrupted {
			return
		}
	}
	s.passCancel(req.raw)
}

// cancelWait bounds how long the server may take to take in a cancel request, TLS included. A session whose statement it is for
// waits that long, and does not hang for good on a server that accepts connections and goes no further.
const cancelWait = 5 * time.Second

// passCancel passes a cancel request on to the server, and returns when it has taken effect, or the server is too slow.
func (s *Server) passCancel(raw []byte) {
	deadline := time.Now().Add(s.cancelWait)
	server, err := s.dial(deadline)
	if err == nil {
		defer server.Close()
		defer context.AfterFunc(s.ctx, func() { _ = server.SetDeadline(time.Unix(1, 0)) })()
		if err = server.SetDeadline(deadline); err == nil {
			_, err = server.Write(raw)
		}
	}
	if err == nil {
		_, err = io.Copy(io.Discard, server)
	}
	if err != nil && s.ctx.Err() == nil {
		s.cfg.Logger.Error().Err(err).Str("upstream", s.cfg.Upstream).Msg("cannot pass on a cancel request")
	}
}

// cancel ends the wait of the running statement and says whether there was one. If harvesting, the server works on it, too: a
// request that is passed on to it has been counted in passing.
func (s *session) cancel() (interrupted, harvesting bool) {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	if s.harvesting {
		s.passing.Add(1)
	}
	if s.cancelWait != nil {
		s.cancelWait(errCanceled)
	}
	return s.cancelWait != nil, s.harvesting
}

// beginHarvest and endHarvest stand around a statement of which rows are harvested. No cancel request that is passed on to the
// server for it is left when endHarvest returns, so that none can hit what comes next; except where the server takes
// longer than cancelWait to take one in.
func (s *session) beginHarvest() {
	s.waitMu.Lock()
	s.harvesting = true
	s.waitMu.Unlock()
}

func (s *session) endHarvest() {
	s.waitMu.Lock()
	s.harvesting = false
	s.waitMu.Unlock()
	s.passing.Wait()
}

// stopHarvest has the server end the statement of which rows are harvested, since a call has failed.
func (s *session) stopHarvest() {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	if !s.harvesting || s.cancelKey == "" {
		return
	}
	s.passing.Add(1)
	raw := binary.BigEndian.AppendUint32(nil, uint32(8+len(s.cancelKey)))
	raw = append(binary.BigEndian.AppendUint32(raw, codeCancelRequest), s.cancelKey...)
	go func() {
		defer s.passing.Done()
		s.srv.passCancel(raw)
	}()
}
