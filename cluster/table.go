package cluster

import (
	"bytes"
	"context"
	"unicode/utf8"
)

// Get appends the local replica's value of key to dst. It never waits.
func (n *Node) Get(dst, key []byte) (out []byte, found bool) {
	return n.reader.Get(dst, key)
}

// List calls yield for every key of the local replica at one applied index, in
// bytewise key order, until it returns false. The slices are valid during the
// call only.
func (n *Node) List(yield func(key, value []byte) bool) {
	picture, err := n.reader.Picture()
	if err != nil {
		n.log.Error().Err(err).Msg("the shared-memory segment cannot be read")
		return
	}
	picture.All()(yield)
}

// Set stores a copy of value under key and returns when the set is applied on
// the local replica and seen by Get, or with an *Error. If ctx has no deadline
// it waits as long as it takes.
func (n *Node) Set(ctx context.Context, key, value []byte) error {
	if err := n.checkSet(key, value, 0); err != nil {
		return err
	}
	if err := n.execute(ctx, &command{op: opSet, key: key, value: value}); err != nil {
		return err
	}
	return nil
}

// Delete removes key; a key that is not there is no error. Otherwise it is like
// Set, but it needs no quota.
func (n *Node) Delete(ctx context.Context, key []byte) error {
	if err := n.checkKey(key); err != nil {
		return err
	}
	if err := n.execute(ctx, &command{op: opDelete, key: key}); err != nil {
		return err
	}
	return nil
}

// checkSet refuses what this node's settings do not allow. Ahead is the size of
// what will be proposed together with it.
func (n *Node) checkSet(key, value []byte, ahead int64) *Error {
	if err := n.checkKey(key); err != nil {
		return err
	}
	if bad := invalidText(value); bad != nil {
		return errInvalidEncoding(bad)
	}
	if int64(len(value)) > n.cfg.MaxValueSize {
		return errValueTooLarge(len(value), n.cfg.MaxValueSize)
	}
	return n.checkQuota(key, value, ahead)
}

func (n *Node) checkKey(key []byte) *Error {
	if bad := invalidText(key); bad != nil {
		return errInvalidEncoding(bad)
	}
	if len(key) > n.cfg.MaxKeyLength && utf8.RuneCount(key) > n.cfg.MaxKeyLength {
		return errKeyTooLong(n.cfg.MaxKeyLength)
	}
	return nil
}

// invalidText returns the first bytes of b that PostgreSQL would not take for
// text in UTF-8, cut as its message cuts them, or nil.
func invalidText(b []byte) []byte {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return nil
	}
	i := 0
	for b[i] != 0 {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
	}
	length := 1
	switch c := b[i]; {
	case c&0xe0 == 0xc0:
		length = 2
	case c&0xf0 == 0xe0:
		length = 3
	case c&0xf8 == 0xf0:
		length = 4
	}
	return b[i:min(i+length, len(b))]
}

// checkQuota looks at what is applied here and what is under way from here. Other
// nodes' sets under way are not seen, so the table may end up a little above.
func (n *Node) checkQuota(key, value []byte, ahead int64) *Error {
	size := int64(len(key) + len(value))
	_, pending := n.sess.load()
	pending += ahead
	used := int64(n.fsm.bytes.Load())
	if used+pending+size <= n.cfg.Quota {
		return nil
	}
	// What takes no more room than what it replaces is always allowed.
	if old, ok := n.reader.Get(nil, key); ok {
		more := int64(len(value) - len(old))
		if more <= 0 || used+pending+more <= n.cfg.Quota {
			return nil
		}
	}
	return errQuota(n.cfg.Quota)
}

// Barrier returns when the local replica holds everything that was acknowledged
// anywhere before the call, or with an *Error.
func (n *Node) Barrier(ctx context.Context) error {
	if err := n.barrier(ctx); err != nil {
		return err
	}
	return nil
}
