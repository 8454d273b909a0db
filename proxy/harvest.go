package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// harvest are rows of a harvested statement: postgres has evaluated the arguments of calls, and the calls are to be run.
// It belongs to the backend's goroutine.
type harvest struct {
	reply *reply
	rows  [][]byte // bodies of DataRow
	bytes int
	done  int  // rows of the statement that were run before these
	loose bool // the statement's rows are no longer held until it ends
}

// How many rows and bytes are gathered before they are run.
const (
	harvestRows  = 512
	harvestBytes = 256 << 10
)

func (h *harvest) pending() bool { return len(h.rows) > 0 }

// mustRun says whether the rows must be run before a message of this type is looked at.
func (h *harvest) mustRun(next byte) bool {
	return len(h.rows) > 0 && (next != 'D' || len(h.rows) >= harvestRows || h.bytes >= harvestBytes)
}

func (h *harvest) add(r *reply, body []byte) {
	if h.reply != r {
		h.reply, h.done, h.loose = r, 0, false
	}
	h.rows = append(h.rows, append([]byte(nil), body...))
	h.bytes += len(body)
}

// harvestRun runs the calls of some rows. Sets are gathered; a get waits for those before it.
type harvestRun struct {
	b       *backend
	ctx     context.Context
	shape   *shape
	formats []int16
	done    int // rows of the statement before these
	out     []byte

	keys, values [][]byte
	rows         []int // of the gathered sets: the row, counted from the statement's first
	limit        time.Duration
	ends         []int // of out, after each row
}

// runHarvest runs the rows that were gathered and returns what the client gets. After a failure, which is in
// owed.harvestError then, that is the rows before. Rows of a statement that changes something are held until it has ended.
func (b *backend) runHarvest() []byte {
	h := &b.harvest
	b.side.leave()
	ctx, done := b.s.statementContext()
	defer done()
	r := harvestRun{b: b, ctx: ctx, shape: h.reply.shape, formats: h.reply.formats, done: h.done}
	var err *pgError
	for i := range h.rows {
		if err = r.row(h.rows[i], h.done+i); err != nil {
			break
		}
		r.ends = append(r.ends, len(r.out))
	}
	if e := r.flush(); e != nil {
		err = e
	}
	h.done += len(h.rows)
	clear(h.rows)
	h.rows, h.bytes = h.rows[:0], 0
	if err != nil {
		o := &b.s.owed
		o.mu.Lock()
		o.harvestError = err
		o.mu.Unlock()
		b.s.stopHarvest()
	}
	switch {
	case !h.reply.fills || h.loose:
		return r.out
	case err != nil:
		b.held = nil
	default:
		b.held = append(b.held, r.out...)
	}
	if len(b.held) > heldLimit {
		// Too much to wait for the end: an error that is still to come will find the client with rows.
		held := b.held
		b.held, h.loose = nil, true
		return held
	}
	return nil
}

// heldLimit bounds what is held of the rows of a statement that changes something, in bytes.
const heldLimit = 4 << 20

// row runs the calls of one row from left to right.
func (r *harvestRun) row(body []byte, number int) *pgError {
	if len(body) < 2 {
		return errHarvest("the server sent no row")
	}
	n := int(binary.BigEndian.Uint16(body))
	if n != len(r.shape.harvest) {
		return errHarvest("the server sent another number of columns than it had described")
	}
	at := len(r.out)
	r.out = appendRowStart(r.out, n)
	if err := r.fields(body[2:], number); err != nil {
		r.out = r.out[:min(at, len(r.out))]
		return err
	}
	r.out = finishMessage(r.out, at)
	return nil
}

// fields runs the calls of a row's fields and appends what the client gets of them.
func (r *harvestRun) fields(rest []byte, number int) *pgError {
	for i, which := range r.shape.harvest {
		if len(rest) < 4 {
			return errHarvest("the server sent a row that is cut short")
		}
		size := int(int32(binary.BigEndian.Uint32(rest)))
		whole := 4 + max(size, 0)
		if whole > len(rest) {
			return errHarvest("the server sent a row that is cut short")
		}
		field := rest[:whole]
		rest = rest[whole:]
		if which < 0 {
			r.out = append(r.out, field...)
			continue
		}
		args, ok, e := r.arguments(field[4:], columnFormat(r.formats, i))
		if e != nil {
			return r.failed(e, number, 0)
		}
		if size < 0 || !ok || len(args) != r.shape.rw.Harvest[which].Args {
			return errHarvest("the server sent no array of arguments")
		}
		if err := r.call(r.shape.rw.Harvest[which].Op, args, number); err != nil {
			return err
		}
	}
	return nil
}

func errHarvest(what string) *pgError {
	return &pgError{code: codeInternal, message: "raftable: " + what}
}

// arguments takes an array of arguments apart, and brings them into the table's encoding. In text form the array is in the
// client's encoding as a whole, some of which have bytes of backslashes and quotes inside of characters.
func (r *harvestRun) arguments(b []byte, format int16) (args [][]byte, ok bool, e *pgError) {
	g := &r.b.settings
	if format != 1 {
		if b, e = g.toUTF8(b); e != nil {
			return nil, false, e
		}
	}
	args, ok = arrayElements(b, format)
	for i, a := range args {
		if a == nil || format != 1 {
			continue
		}
		if args[i], e = g.toUTF8(a); e != nil {
			return nil, false, e
		}
	}
	return args, ok, nil
}

// call runs one call and appends its result.
func (r *harvestRun) call(op sqlrewrite.Op, args [][]byte, number int) *pgError {
	if op == sqlrewrite.OpGet {
		return r.get(args[0])
	}
	if args[0] == nil {
		return r.failed(errNullKey, number, 0)
	}
	limit := r.b.s.callTimeout()
	if len(args) == 3 && args[2] != nil {
		var e *pgError
		if limit, e = callLimit(args[2]); e != nil {
			return r.failed(e, number, 0)
		}
	}
	if limit != r.limit {
		if e := r.flush(); e != nil {
			return e
		}
		r.limit = limit
	}
	value := args[1]
	r.keys, r.values, r.rows = append(r.keys, args[0]), append(r.values, value), append(r.rows, number)
	r.out = append(r.out, 0, 0, 0, 0)
	return nil
}

func (r *harvestRun) get(key []byte) *pgError {
	if e := r.flush(); e != nil {
		return e
	}
	if r.b.s.linearizable() {
		if e := r.b.s.barrier(r.ctx); e != nil {
			return e
		}
	}
	at := len(r.out)
	r.out = append(r.out, 0xff, 0xff, 0xff, 0xff)
	if key == nil {
		return nil
	}
	out, found := r.b.s.srv.cfg.Table.Get(r.out, key)
	if r.out = out; !found {
		return nil
	}
	value, e := r.b.settings.fromUTF8(out[at+4:])
	if e != nil {
		r.out = out[:at]
		return e
	}
	r.out = append(out[:at+4], value...)
	binary.BigEndian.PutUint32(r.out[at:], uint32(len(value)))
	return nil
}

// flush runs the gathered sets. When one fails, out is cut to the rows before it.
func (r *harvestRun) flush() *pgError {
	if len(r.keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.limit)
	defer cancel()
	applied, err := r.b.s.srv.cfg.Table.SetAll(ctx, r.keys, r.values)
	rows := r.rows
	r.keys, r.values, r.rows = r.keys[:0], r.values[:0], rows[:0]
	if err == nil {
		return nil
	}
	row := rows[min(applied, len(rows)-1)]
	if keep := row - r.done; keep <= 0 {
		r.out = r.out[:0]
	} else if keep <= len(r.ends) {
		r.out = r.out[:r.ends[keep-1]]
	}
	return r.failed(tableError(err), row, min(applied, 1))
}

// failed says of an error in a row how far the statement had come: sets is how many of the row's own had been applied. What the
// table says of that counts the sets of one call of SetAll, which nobody else knows of.
func (r *harvestRun) failed(e *pgError, row, sets int) *pgError {
	c := *e
	before := fmt.Sprintf("The sets of the %d rows before have taken effect", row)
	switch {
	case row == 1:
		before = "The set of the row before has taken effect"
	case row == 0 && sets == 0:
		return e // so says the table
	case row == 0:
		before = "The sets to its left have taken effect"
	}
	if c.code == codeOutcomeUnknown {
		c.detail = before + "; this one and the next ones may have been applied, or may yet be."
	} else {
		c.detail = before + "; this one and the next ones have not."
	}
	return &c
}

// arrayElements takes a one-dimensional array of text apart, in text or binary format. NULL elements are nil.
func arrayElements(b []byte, format int16) (elements [][]byte, ok bool) {
	if format == 1 {
		return binaryElements(b)
	}
	return textElements(b)
}

func binaryElements(b []byte) (elements [][]byte, ok bool) {
	const head = 4 + 4 + 4 + 4 + 4 // dimensions, flags, type, size, lower bound
	if len(b) < head || binary.BigEndian.Uint32(b) != 1 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint32(b[12:]))
	for b = b[head:]; len(elements) < n; {
		if len(b) < 4 {
			return nil, false
		}
		size := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if size < 0 {
			elements = append(elements, nil)
			continue
		}
		if size > len(b) {
			return nil, false
		}
		elements = append(elements, b[:size:size])
		b = b[size:]
	}
	return elements, len(b) == 0
}

// textElements reads what array_out writes: {a,"b \"c\"",NULL}.
func textElements(b []byte) (elements [][]byte, ok bool) {
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return nil, false
	}
	b = b[1:]
	for len(b) > 1 || len(b) == 1 && b[0] != '}' {
		var e []byte
		if b[0] == '"' {
			e = []byte{}
			i := 1
			for ; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
				if i < len(b) {
					e = append(e, b[i])
				}
			}
			if i >= len(b) {
				return nil, false
			}
			b = b[i+1:]
		} else {
			i := 0
			for i < len(b) && b[i] != ',' && b[i] != '}' {
				i++
			}
			if e = b[:i:i]; string(e) == "NULL" {
				e = nil
			}
			b = b[i:]
		}
		elements = append(elements, e)
		switch {
		case len(b) == 0:
			return nil, false
		case b[0] == '}':
			return elements, len(b) == 1
		case b[0] != ',':
			return nil, false
		}
		b = b[1:]
	}
	return elements, false
}
