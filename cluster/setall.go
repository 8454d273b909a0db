package cluster

import (
	"context"
	"fmt"
)

// How much of a SetAll goes into one command. A command is one entry of the log,
// and heartbeats wait behind it: small enough for that not to be felt, large
// enough that waiting for the group costs little for each key.
const (
	manyOperations = 512
	manyBytes      = 256 << 10 // of keys and values; a larger one goes alone
)

// SetAll does with each key in its turn what Set does, or Delete where the value
// is nil. It returns when the first applied of them are applied on the local
// replica and seen by Get: with nil for all of them, and otherwise with the *Error
// of the next one, whose detail says what is known of all. Nothing after that one
// is applied. The slices are as long as each other and must not change meanwhile.
//
// It proposes many keys together, of which a reader sees all or none, and which
// count as one set in flight. A restart or an error parts them only where they
// were parted on the way: what is applied is always so many of the first.
func (n *Node) SetAll(ctx context.Context, keys, values [][]byte) (applied int, err error) {
	values = values[:len(keys)]
	var room []operation
	for applied < len(keys) {
		many, refused := n.gather(room[:0], keys[applied:], values[applied:])
		if len(many) == 0 {
			return applied, errAfter(refused, applied, len(keys))
		}
		// One command after the other: two at a time could change places, as one
		// that is lost with a leader is proposed again behind the other.
		if err := n.execute(ctx, commandOf(many)); err != nil {
			if err.Code == CodeOutcomeUnknown {
				return applied, errUnknownAmong(err, applied, len(many), len(keys))
			}
			return applied, errAfter(err, applied, len(keys))
		}
		applied += len(many)
		room = many
	}
	return applied, nil
}

// gather appends to many as many of the first sets and deletes as may go into
// one command. If that is none, refused says why. A set that is refused behind
// others is looked at again when those are applied: by then there may be room for
// it in the quota.
func (n *Node) gather(many []operation, keys, values [][]byte) (_ []operation, refused *Error) {
	size := int64(0)
	for i, key := range keys[:min(len(keys), manyOperations)] {
		o := operation{op: opSet, key: key, value: values[i]}
		more := int64(len(key) + len(o.value))
		if i > 0 && size+more > manyBytes {
			break
		}
		if o.value == nil {
			o.op = opDelete
			refused = n.checkKey(key)
		} else {
			refused = n.checkSet(key, o.value, size)
		}
		if refused != nil {
			break
		}
		many = append(many, o)
		size += more
	}
	return many, refused
}

// commandOf is the command that does what many says. One alone is an ordinary set
// or delete, which takes less room and which members of any version read.
func commandOf(many []operation) *command {
	if len(many) == 1 {
		return &command{op: many[0].op, key: many[0].key, value: many[0].value}
	}
	return &command{op: opMany, many: many}
}

// errAfter is err of the set after the first applied ones of total, whose detail
// must not pass over those.
func errAfter(err *Error, applied, total int) *Error {
	switch e := *err; applied {
	case 0:
		return err
	case 1:
		e.DetailText = fmt.Sprintf("The first of %d sets is applied, the others are not.", total)
		return &e
	default:
		e.DetailText = fmt.Sprintf("The first %d of %d sets are applied, the others are not.", applied, total)
		return &e
	}
}

// errUnknownAmong is err, with which the outcome of the sets after the first
// applied ones is unknown, as many as were proposed together.
func errUnknownAmong(err *Error, applied, together, total int) *Error {
	if total == 1 {
		return err
	}
	e := *err
	which := fmt.Sprintf("Set %d of %d was proposed to the group, and %s: it may have been applied, or may yet be.",
		applied+1, total, whyNoAnswer(err.Err))
	if together > 1 {
		e.Message = "outcome of raftable sets is unknown"
		e.HintText = "Read the keys to see, or set them again."
		which = fmt.Sprintf("Sets %d to %d of %d were proposed to the group together, and %s: "+
			"all of them may have been applied, or may yet be, or none.",
			applied+1, applied+together, total, whyNoAnswer(err.Err))
	}
	e.DetailText = fmt.Sprintf("%s Applied before that: %d. Not applied: %d.", which, applied, total-applied-together)
	return &e
}
