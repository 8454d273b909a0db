package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A command is one entry of the Raft log. Its bytes, in order:
//
//	version   1 byte, commandVersion, or manyVersion with opMany
//	op        1 byte, opSet, opDelete or opMany
//	origin    uvarint, replica id of the member that proposed it
//	epoch     uvarint, how often that member has been started
//	seq       uvarint, number of the command within origin and epoch, from 1
//	low       uvarint, least seq that was outstanding at the origin, <= seq
//	key       uvarint length, bytes; opSet and opDelete only
//	value     uvarint length, bytes; opSet only
//
// and in place of key and value with opMany, which is several sets and deletes
// that take effect together, one after the other:
//
//	count     uvarint, from 1 to maxOperations
//	count times:
//	    op    1 byte, opSet or opDelete
//	    key   as above
//	    value as above; opSet only
//
// The bytes end with the last field. Members of different versions share one
// log, so a change of meaning needs a new version number. A command carries the
// oldest one that has its meaning: a member that does not know opMany reads all
// others, and halts at the first opMany until a later version is started.
const (
	commandVersion = 1
	manyVersion    = 2
)

type opcode byte

const (
	opSet    opcode = 1
	opDelete opcode = 2
	opMany   opcode = 3
)

// What a command may carry at most. These belong to the format, not to a node's
// settings: every replica must draw the same line.
const (
	maxCommandKey   = 1<<16 - 1
	maxCommandValue = int(HardMaxValueSize)
	maxOperations   = 1 << 16
	maxSequence     = 1 << 62
)

type command struct {
	op     opcode
	origin uint64
	epoch  uint64
	seq    uint64
	low    uint64
	key    []byte
	value  []byte
	many   []operation // opMany, which has no key and value
}

// operation is a part of an opMany.
type operation struct {
	op    opcode // opSet or opDelete
	key   []byte
	value []byte
}

// size returns the bytes of all keys and values.
func (c *command) size() int64 {
	size := len(c.key) + len(c.value)
	for i := range c.many {
		size += len(c.many[i].key) + len(c.many[i].value)
	}
	return int64(size)
}

var errCommandDamaged = errors.New("command is damaged")

// versionError is a format that this program does not know.
type versionError struct {
	what string
	got  byte
	want byte
}

func (e *versionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program knows version %d: start the version of raftproxy that wrote it, or a later one",
		e.what, e.got, e.want)
}

// appendCommand appends c's bytes to dst.
func appendCommand(dst []byte, c *command) []byte {
	version := byte(commandVersion)
	if c.op == opMany {
		version = manyVersion
	}
	dst = append(dst, version, byte(c.op))
	dst = binary.AppendUvarint(dst, c.origin)
	dst = binary.AppendUvarint(dst, c.epoch)
	dst = binary.AppendUvarint(dst, c.seq)
	dst = binary.AppendUvarint(dst, c.low)
	if c.op != opMany {
		return appendOperation(dst, c.op, c.key, c.value)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.many)))
	for i := range c.many {
		o := &c.many[i]
		dst = append(dst, byte(o.op))
		dst = appendOperation(dst, o.op, o.key, o.value)
	}
	return dst
}

func appendOperation(dst []byte, op opcode, key, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	if op == opSet {
		dst = binary.AppendUvarint(dst, uint64(len(value)))
		dst = append(dst, value...)
	}
	return dst
}

// decodeCommand reads the bytes of one command; the keys and values of the result
// point into b.
func decodeCommand(b []byte) (command, error) {
	if len(b) < 2 {
		return command{}, fmt.Errorf("%w: %d bytes", errCommandDamaged, len(b))
	}
	c := command{op: opcode(b[1])}
	switch b[0] {
	case commandVersion:
		if !c.op.single() {
			return command{}, fmt.Errorf("%w: unknown operation %d", errCommandDamaged, b[1])
		}
	case manyVersion:
		if c.op != opMany {
			return command{}, fmt.Errorf("%w: operation %d in version %d", errCommandDamaged, b[1], b[0])
		}
	default:
		return command{}, &versionError{what: "command", got: b[0], want: manyVersion}
	}
	d := decoder{rest: b[2:]}
	c.origin, c.epoch, c.seq, c.low = d.number(), d.number(), d.number(), d.number()
	if c.op == opMany {
		c.many = d.operations()
	} else {
		c.key, c.value = d.operation(c.op)
	}
	if d.failed || len(d.rest) != 0 {
		return command{}, fmt.Errorf("%w: lengths do not fit %d bytes", errCommandDamaged, len(b))
	}
	return c, c.check()
}

// single reports whether op is about one key.
func (op opcode) single() bool { return op == opSet || op == opDelete }

// check finds numbers that no origin gives.
func (c *command) check() error {
	switch {
	case c.origin == 0, c.epoch == 0, c.low == 0:
		return fmt.Errorf("%w: origin %d, epoch %d, low %d", errCommandDamaged, c.origin, c.epoch, c.low)
	case c.low > c.seq, c.seq-c.low >= dedupWindow, c.seq > maxSequence:
		return fmt.Errorf("%w: sequence %d does not fit low %d", errCommandDamaged, c.seq, c.low)
	}
	return nil
}

// decoder takes fields off the front of rest; after a failure it returns zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || d.failed {
		d.failed = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(limit int) []byte {
	n := d.number()
	if d.failed || n > uint64(limit) || n > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// operation takes what follows the opcode.
func (d *decoder) operation(op opcode) (key, value []byte) {
	key = d.bytes(maxCommandKey)
	if op == opSet {
		value = d.bytes(maxCommandValue)
	}
	return key, value
}

// leastOperation is the size of a delete of the empty key.
const leastOperation = 2

func (d *decoder) operations() []operation {
	count := d.number()
	// What is allocated follows from the bytes that are there.
	if d.failed || count == 0 || count > maxOperations || count > uint64(len(d.rest)/leastOperation) {
		d.failed = true
		return nil
	}
	many := make([]operation, count)
	for i := range many {
		if len(d.rest) == 0 || !opcode(d.rest[0]).single() {
			d.failed = true
			return nil
		}
		o := &many[i]
		o.op = opcode(d.rest[0])
		d.rest = d.rest[1:]
		o.key, o.value = d.operation(o.op)
	}
	return many
}
