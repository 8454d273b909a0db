package cluster

import "sync"

// session numbers the commands of this node in this run of the process, and
// wakes who waits for one to be applied.
type session struct {
	origin   uint64
	epoch    uint64
	inFlight int // most commands outstanding

	mu      sync.Mutex
	next    uint64 // sequence of the next command
	low     uint64 // least outstanding sequence, next if there is none
	waiters map[uint64]*waiter
	size    int64 // bytes of keys and values outstanding
}

// waiter is one outstanding command.
type waiter struct {
	seq  uint64
	low  uint64 // of the session when the command was numbered
	size int64
	done chan struct{} // closed when the outcome is known
	err  *Error        // set before done is closed; nil: applied
}

// maxInFlightBytes bounds the memory of the outstanding commands. One command
// is let through whatever its size.
const maxInFlightBytes = 128 << 20

func newSession(origin, epoch uint64, inFlight int) *session {
	return &session{
		origin: origin, epoch: epoch, inFlight: inFlight,
		next: 1, low: 1, waiters: make(map[uint64]*waiter),
	}
}

// begin numbers a command of the given size, or returns nil when too much is
// outstanding. Every begin needs an end.
func (s *session) begin(size int64) *waiter {
	w := &waiter{size: size, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiters) >= s.inFlight || s.next-s.low >= dedupWindow ||
		len(s.waiters) > 0 && s.size+size > maxInFlightBytes {
		return nil
	}
	w.seq, w.low = s.next, s.low
	s.next++
	s.waiters[w.seq] = w
	s.size += size
	return w
}

// end gives the command up, unless its outcome is known by now.
func (s *session) end(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiters[w.seq] == w {
		s.remove(w)
	}
}

// remove must be called with mu held.
func (s *session) remove(w *waiter) {
	delete(s.waiters, w.seq)
	s.size -= w.size
	if w.seq != s.low {
		return
	}
	for s.low < s.next && s.waiters[s.low] == nil {
		s.low++
	}
}

// wake tells the waiters of the given sequences that they are applied.
func (s *session) wake(seqs []uint64) {
	if len(seqs) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seq := range seqs {
		s.resolve(seq, nil)
	}
}

// fail tells the waiter of seq that its command will never be applied.
func (s *session) fail(seq uint64, err *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolve(seq, err)
}

// resolve must be called with mu held.
func (s *session) resolve(seq uint64, err *Error) {
	w := s.waiters[seq]
	if w == nil {
		return
	}
	w.err = err
	s.remove(w)
	close(w.done)
}

// outstanding returns the sequences that somebody waits for.
func (s *session) outstanding() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	seqs := make([]uint64, 0, len(s.waiters))
	for seq := range s.waiters {
		seqs = append(seqs, seq)
	}
	return seqs
}

// load returns how many commands are outstanding and their bytes.
func (s *session) load() (count int, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiters), s.size
}
