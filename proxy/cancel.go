package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
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
			sess.passCancel(req.raw)
			return
		}
		if interrupted {
			return
		}
	}
	// Who asked waits for the end of the connection before it goes on, or gives up by closing it.
	ctx, cancel := context.WithCancel(s.ctx)
	gone := make(chan struct{})
	_ = req.conn.SetDeadline(time.Time{})
	go func() {
		defer close(gone)
		defer cancel()
		_, _ = req.conn.Read(make([]byte, 1))
	}()
	s.passCancel(ctx, req.raw)
	_ = req.conn.SetReadDeadline(time.Unix(1, 0))
	<-gone
}

// cancelWait bounds how long a server may take until a cancel request has been sent to it, TLS included, and how long a session
// whose statement the request is for waits until the server has taken it in.
const cancelWait = 5 * time.Second

// passCancel passes a cancel request on to the server, and returns when it has taken effect. over is false if it still may,
// since ctx was done before.
func (s *Server) passCancel(ctx context.Context, raw []byte) (over bool) {
	over, err := s.sendCancel(ctx, raw)
	if err != nil && ctx.Err() == nil {
		s.cfg.Logger.Error().Err(err).Str("upstream", s.cfg.Upstream).Msg("cannot pass on a cancel request")
	}
	return over
}

func (s *Server) sendCancel(ctx context.Context, raw []byte) (over bool, err error) {
	deadline := time.Now().Add(s.cancelWait)
	server, err := s.dial(deadline)
	if err != nil {
		return true, err
	}
	defer server.Close()
	if err := server.SetDeadline(deadline); err != nil {
		return true, err
	}
	if _, err := server.Write(raw); err != nil {
		return true, err
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { _ = server.SetDeadline(time.Unix(1, 0)) })()
	_, err = io.Copy(io.Discard, server)
	return !errors.Is(err, os.ErrDeadlineExceeded), err
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
// server for it is left when endHarvest returns, so that none can hit what comes next. It is not ok if one may be left, since
// the server took too long; then the session must end.
func (s *session) beginHarvest() {
	s.waitMu.Lock()
	s.harvesting = true
	s.waitMu.Unlock()
}

func (s *session) endHarvest() (ok bool) {
	s.waitMu.Lock()
	s.harvesting = false
	s.waitMu.Unlock()
	s.passing.Wait()
	return !s.cancelLeft.Load()
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
	go s.passCancel(raw)
}

// passCancel passes a cancel request on that has been counted in passing.
func (s *session) passCancel(raw []byte) {
	defer s.passing.Done()
	ctx, cancel := context.WithTimeout(s.srv.ctx, s.srv.cancelWait)
	defer cancel()
	if !s.srv.passCancel(ctx, raw) {
		s.cancelLeft.Store(true)
	}
}

// harvestEnded is called when the server has answered a statement of which rows are harvested, with what settle has come to. e is
// the error of a call that has failed, which the client has not been told of.
func (f *frontend) harvestEnded(settleErr error) (e *pgError, err error) {
	f.side.leave()
	ok := f.s.endHarvest()
	if settleErr != nil {
		return nil, settleErr
	}
	if e = f.takeHarvestError(); ok {
		return e, nil
	}
	f.s.log.Error().Dur("cancel_wait", f.s.srv.cancelWait).Msg("session ended: postgres does not take in a cancel request, " +
		"which could hit another statement")
	f.buffer()
	if e != nil {
		f.out = e.append(f.out, "ERROR")
	}
	f.out = errCancelLeft.append(f.out, "FATAL")
	if err := f.flushOut(); err != nil {
		return nil, err
	}
	return nil, errTerminated
}

var errCancelLeft = &pgError{
	code: codeAdminShutdown, message: "terminating connection because a cancel request is left",
	detail: "The server has not taken in a request to cancel the statement before, which could hit another one.",
	hint:   "Connect again.",
}
