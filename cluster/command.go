package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A command is one entry of the Raft log. Its bytes, in order:
//
//	version   1 byte, commandVersion
//	op        1 byte, opSet or opDelete
//	origin    uvarint, replica id of the member that proposed it
//	epoch     uvarint, how often that member has been started
//	seq       uvarint, number of the command within origin and epoch, from 1
//	low       uvarint, least seq that was outstanding at the origin, <= seq
//	key       uvarint length, bytes
//	value     uvarint length, bytes; opSet only
//
// The bytes end with the last field. Members of different versions share one
// log, so a change of meaning needs a new version number.
const commandVersion = 1

type opcode byte

const (
	opSet    opcode = 1
	opDelete opcode = 2
)

// What a command may carry at most. These belong to the format, not to a node's
// settings: every replica must draw the same line.
const (
	maxCommandKey   = 1<<16 - 1
	maxCommandValue = int(HardMaxValueSize)
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
	dst = append(dst, commandVersion, byte(c.op))
	dst = binary.AppendUvarint(dst, c.origin)
	dst = binary.AppendUvarint(dst, c.epoch)
	dst = binary.AppendUvarint(dst, c.seq)
	dst = binary.AppendUvarint(dst, c.low)
	dst = binary.AppendUvarint(dst, uint64(len(c.key)))
	dst = append(dst, c.key...)
	if c.op == opSet {
		dst = binary.AppendUvarint(dst, uint64(len(c.value)))
		dst = append(dst, c.value...)
	}
	return dst
}

// decodeCommand reads the bytes of one command; key and value of the result
// point into b.
func decodeCommand(b []byte) (command, error) {
	if len(b) < 2 {
		return command{}, fmt.Errorf("%w: %d bytes", errCommandDamaged, len(b))
	}
	if b[0] != commandVersion {
		return command{}, &versionError{what: "command", got: b[0], want: commandVersion}
	}
	c := command{op: opcode(b[1])}
	if c.op != opSet && c.op != opDelete {
		return command{}, fmt.Errorf("%w: unknown operation %d", errCommandDamaged, b[1])
	}
	d := decoder{rest: b[2:]}
	c.origin, c.epoch, c.seq, c.low = d.number(), d.number(), d.number(), d.number()
	c.key = d.bytes(maxCommandKey)
	if c.op == opSet {
		c.value = d.bytes(maxCommandValue)
	}
	if d.failed || len(d.rest) != 0 {
		return command{}, fmt.Errorf("%w: lengths do not fit %d bytes", errCommandDamaged, len(b))
	}
	return c, c.check()
}

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
