package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
)

// proposal is one command on its way through the group.
//
// Dragonboat answers a proposal that it drops at once, and one that is applied
// here; one that was forwarded to a leader that died, or that stood in a log that
// lost an election, it never answers. So the command is proposed again when the
// leader changes and when an answer is overdue; the state machine makes sure that
// it takes effect once.
type proposal struct {
	n        *Node
	w        *waiter
	bytes    []byte
	attempts []attempt
	room     [2]attempt // for attempts, which are seldom more
}

// attempt is one time that the command was proposed.
type attempt struct {
	rs      *dragonboat.RequestState
	dropped bool // surely in no log
}

// buffers holds the bytes of commands; dragonboat copies them.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// largeBuffer is from what size on a buffer is not kept.
const largeBuffer = 64 << 10

// execute numbers a command, proposes it and waits until it is applied here.
func (n *Node) execute(ctx context.Context, c *command) *Error {
	if err := ctx.Err(); err != nil {
		return n.errNotProposed(err)
	}
	if free := n.space.now(); free < freeForSets {
		return errDiskFull(free)
	}
	if err := n.fault(); err != nil {
		return err
	}
	w := n.sess.begin(c.size())
	if w == nil {
		return errTooMuchInFlight()
	}
	defer n.sess.end(w)
	c.origin, c.epoch, c.seq, c.low = n.sess.origin, n.sess.epoch, w.seq, w.low
	buffer := buffers.Get().(*[]byte)
	*buffer = appendCommand((*buffer)[:0], c)
	p := &proposal{n: n, w: w, bytes: *buffer}
	p.attempts = p.room[:0]
	err := p.run(ctx)
	if n.cfg.test.applied != nil && err == nil {
		n.cfg.test.applied(*buffer)
	}
	if cap(*buffer) <= largeBuffer {
		buffers.Put(buffer)
	}
	return err
}

// run returns when the outcome is known or the time is up.
func (p *proposal) run(ctx context.Context) *Error {
	patience := p.n.patience() + time.Duration(len(p.bytes)/slowBytes)*time.Second
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		leader := p.n.events.leader.Load()
		var answer <-chan dragonboat.RequestResult
		wait := patience
		if leader.id != 0 {
			rs, err := p.propose(patience)
			switch {
			case err == nil:
				answer = rs.AppliedC()
				patience = min(2*patience, max(patience, maxPatience))
			case errors.Is(err, errClosed):
				return p.outcome(err)
			default:
				// Dragonboat's queue is full, or it is still loading.
				wait = p.n.pause()
			}
		}
		timer.Reset(wait)
		if done, err := p.wait(ctx, leader, answer, timer); done {
			return err
		}
	}
}

// wait waits for the outcome, or for a reason to propose again.
func (p *proposal) wait(ctx context.Context, leader *leadership, answer <-chan dragonboat.RequestResult,
	timer *time.Timer) (done bool, _ *Error) {
	for {
		select {
		case <-p.w.done:
			return true, p.w.err
		case result := <-answer:
			answer = nil
			if result.Dropped() {
				p.attempts[len(p.attempts)-1].dropped = true
				// Dropped because there is no leader, as the next event will tell,
				// or because the leadership is being handed over.
				timer.Reset(p.n.pause())
			}
			// Anything else says nothing that done does not say.
		case <-leader.changed:
			return false, nil
		case <-timer.C:
			return false, nil
		case <-ctx.Done():
			return true, p.outcome(ctx.Err())
		case <-p.n.closing:
			return true, p.outcome(errClosed)
		}
	}
}

func (p *proposal) propose(patience time.Duration) (*dragonboat.RequestState, error) {
	for range p.n.cfg.test.proposeMore {
		if rs, err := p.n.propose(p.bytes, patience); err == nil {
			p.attempts = append(p.attempts, attempt{rs: rs})
		}
	}
	rs, err := p.n.propose(p.bytes, patience)
	if err == nil {
		p.attempts = append(p.attempts, attempt{rs: rs})
	}
	return rs, err
}

// outcome is what is known when waiting has ended without an answer.
func (p *proposal) outcome(cause error) *Error {
	select {
	case <-p.w.done:
		return p.w.err
	default:
	}
	for i := range p.attempts {
		if !p.attempts[i].surelyDropped() {
			return errOutcomeUnknown(cause)
		}
	}
	return p.n.errNotProposed(cause)
}

func (a *attempt) surelyDropped() bool {
	if a.dropped {
		return true
	}
	select {
	case result := <-a.rs.AppliedC():
		a.dropped = result.Dropped()
	default:
	}
	return a.dropped
}

// errNotProposed is for a command or read that surely had no effect.
func (n *Node) errNotProposed(cause error) *Error {
	switch {
	case errors.Is(cause, context.Canceled):
		return errCancelled(cause)
	case errors.Is(cause, errClosed):
		return errUnavailable("this raftable node is closed", "", cause)
	}
	message := "raftable has no leader"
	if n.events.leader.Load().id != 0 {
		message = "raftable took nothing in time"
	}
	return errUnavailable(message, n.unreachableHint(), cause)
}

// fault refuses what this node could not answer for, because it applies nothing.
func (n *Node) fault() *Error {
	if err := n.fsm.fault(); err != nil {
		e := errUnavailable("this raftable node is at fault: "+err.Error(), "Set through another one.", err)
		if n.fsm.halted.Load() == nil {
			e.Code = CodeDiskFull // it waits for room in shared memory
		}
		return e
	}
	return nil
}

// maxPatience bounds how long an answer may be overdue before the command is
// proposed again.
const maxPatience = 8 * time.Second

// slowBytes is how much of a command may take a second on its way to the leader,
// the others and their disks.
const slowBytes = 4 << 20

// patience is how long an answer is waited for at first: a message may be lost
// without a change of leader, but a new leader is the usual reason.
func (n *Node) patience() time.Duration {
	return max(time.Second, 2*time.Duration(n.cfg.ElectionRTT)*n.cfg.RTT)
}

// pause is the time to let pass where asking again at once would be no use.
func (n *Node) pause() time.Duration { return n.cfg.RTT }

// propose hands bytes to dragonboat, which copies them. An error means that they
// are surely in no log.
func (n *Node) propose(bytes []byte, patience time.Duration) (*dragonboat.RequestState, error) {
	n.hostMu.RLock()
	defer n.hostMu.RUnlock()
	if n.host == nil {
		return nil, errClosed
	}
	return n.host.Propose(n.noop, bytes, patience+time.Second)
}

func (n *Node) readIndex(patience time.Duration) (*dragonboat.RequestState, error) {
	n.hostMu.RLock()
	defer n.hostMu.RUnlock()
	if n.host == nil {
		return nil, errClosed
	}
	return n.host.ReadIndex(shardID, patience+time.Second)
}

// barrier asks the leader for its commit index and waits until it is applied
// here. Asking again does no harm, so an overdue answer is simply given up.
func (n *Node) barrier(ctx context.Context) *Error {
	if err := ctx.Err(); err != nil {
		return n.errNoRead(err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		leader := n.events.leader.Load()
		var answer <-chan dragonboat.RequestResult
		wait := n.patience()
		if leader.id != 0 {
			rs, err := n.readIndex(wait)
			switch {
			case err == nil:
				answer = rs.AppliedC()
			case errors.Is(err, errClosed):
				return n.errNoRead(err)
			default:
				wait = n.pause()
			}
		}
		timer.Reset(wait)
		if done, err := n.awaitRead(ctx, leader, answer, timer); done {
			return err
		}
	}
}

func (n *Node) awaitRead(ctx context.Context, leader *leadership, answer <-chan dragonboat.RequestResult,
	timer *time.Timer) (done bool, _ *Error) {
	for {
		select {
		case result := <-answer:
			answer = nil
			if result.Completed() {
				// A halted table counts as applied for dragonboat.
				if h := n.fsm.halted.Load(); h != nil {
					return true, errUnavailable("this raftable node is at fault: "+h.Error(), "Read from another one.", h)
				}
				return true, nil
			}
			timer.Reset(n.pause())
		case <-leader.changed:
			return false, nil
		case <-timer.C:
			return false, nil
		case <-ctx.Done():
			return true, n.errNoRead(ctx.Err())
		case <-n.closing:
			return true, n.errNoRead(errClosed)
		}
	}
}

// errNoRead is for a barrier that was not reached.
func (n *Node) errNoRead(cause error) *Error {
	if errors.Is(cause, context.DeadlineExceeded) && n.events.leader.Load().id != 0 {
		return &Error{Code: CodeUnavailable, Message: "no linearizable raftable read in time",
			HintText: n.unreachableHint(), Err: cause}
	}
	err := n.errNotProposed(cause)
	err.DetailText = ""
	return err
}
