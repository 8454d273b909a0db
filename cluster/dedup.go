package cluster

import (
	"maps"
	"slices"
)

// dedupWindow is how far a command's sequence may lie above the least one that
// is outstanding at its origin. It belongs to the command format.
const dedupWindow = 1 << 16

const windowWords = dedupWindow / 64

// dedupTable remembers, per origin, which commands have been applied, so that a
// command that stands in the log twice takes effect once. It is part of the
// replicated state: the same log makes the same table on every replica.
//
// It follows the client sessions of Raft, with a window in place of stored
// answers: an origin says with each command which of its sequences are still
// outstanding (all those not below low), and only about these may a question
// arise. An origin that starts again counts a new epoch, with which nothing of
// the epoch before is outstanding any more.
type dedupTable struct {
	origins map[uint64]*originState
}

// originState is what is known of one origin in its latest epoch.
type originState struct {
	epoch uint64
	low   uint64 // nothing below is applied any more
	top   uint64 // greater than every applied sequence, not below low
	// applied has the bit of seq%dedupWindow set where seq, in low <= seq < top,
	// has been applied; all other bits are 0.
	applied [windowWords]uint64
}

// verdict says what is to be done with a command.
type verdict uint8

const (
	verdictApply     verdict = iota
	verdictDuplicate         // it has been applied
	verdictAbandoned         // its origin had given it up when another command was proposed
	verdictOldEpoch          // its origin has been started again since
)

func newDedupTable() *dedupTable {
	return &dedupTable{origins: make(map[uint64]*originState)}
}

// admit decides on c, which must have passed check, and marks it as applied if
// the verdict is to apply it.
func (t *dedupTable) admit(c *command) verdict {
	o := t.origins[c.origin]
	if o == nil {
		o = &originState{}
		t.origins[c.origin] = o
	}
	switch {
	case c.epoch < o.epoch:
		return verdictOldEpoch
	case c.epoch > o.epoch:
		*o = originState{epoch: c.epoch, low: c.low, top: c.low}
	}
	o.raise(c.low)
	if c.seq < o.low {
		return verdictAbandoned
	}
	// seq fits the window: it is at most dedupWindow-1 above its own low, and
	// o.low is not below that.
	word, bit := o.at(c.seq)
	if *word&bit != 0 {
		return verdictDuplicate
	}
	*word |= bit
	o.top = max(o.top, c.seq+1)
	return verdictApply
}

// has reports whether the command was applied.
func (t *dedupTable) has(origin, epoch, seq uint64) bool {
	o := t.origins[origin]
	if o == nil || o.epoch != epoch || seq < o.low || seq >= o.top {
		return false
	}
	word, bit := o.at(seq)
	return *word&bit != 0
}

// epochOf returns the latest epoch seen of an origin, 0 if none.
func (t *dedupTable) epochOf(origin uint64) uint64 {
	if o := t.origins[origin]; o != nil {
		return o.epoch
	}
	return 0
}

func (o *originState) at(seq uint64) (word *uint64, bit uint64) {
	i := seq % dedupWindow
	return &o.applied[i/64], 1 << (i % 64)
}

// raise forgets what lies below low.
func (o *originState) raise(low uint64) {
	if low <= o.low {
		return
	}
	for seq := o.low; seq < min(low, o.top); seq++ {
		word, bit := o.at(seq)
		*word &^= bit
	}
	o.low = low
	o.top = max(o.top, low)
}

// clone copies the table; an origin costs 8 KiB.
func (t *dedupTable) clone() *dedupTable {
	c := newDedupTable()
	for id, o := range t.origins {
		copied := *o
		c.origins[id] = &copied
	}
	return c
}

// ids returns the origins in a fixed order.
func (t *dedupTable) ids() []uint64 {
	return slices.Sorted(maps.Keys(t.origins))
}
