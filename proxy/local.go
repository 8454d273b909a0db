package proxy

import (
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// flushAt is how much of an answer is gathered before it is written.
const flushAt = bufferSize - 4<<10

// cursor runs one of our statements, all at once or a few rows at a time. It belongs to the frontend's goroutine.
type cursor struct {
	st      *statement
	params  [][]byte // nil for NULL, in text form
	formats []int16  // result formats as in Bind
	store   []byte   // what params lie in

	started bool
	done    bool
	cells   []cell // the columns that are no list, where there is one
	lists   []list // of the columns that are lists, or the one of FROM
}

// cell is the value of a column that is the same in all rows.
type cell struct {
	value []byte
	null  bool
}

// reset makes the cursor one for st that has not begun, and keeps its memory.
func (c *cursor) reset(st *statement) {
	c.close()
	store := c.store[:0]
	if cap(store) > storeKept {
		store = nil
	}
	*c = cursor{st: st, params: c.params[:0], store: store}
}

// storeKept is how many bytes of parameters a cursor's memory keeps room for between two uses.
const storeKept = 1 << 10

// close lets go of the lists that the cursor reads. It may be called more than once.
func (c *cursor) close() {
	for i := range c.lists {
		c.lists[i].stop()
	}
	c.lists = nil
}

// run appends up to limit rows (0 for all) to f.out, writing what becomes too long, and says how many there were, and
// whether it stopped at the limit.
func (f *frontend) run(c *cursor, limit int) (rows int, suspended bool, err error) {
	if c.done {
		return 0, false, nil
	}
	if c.st.list || c.st.sets || f.calls.linearizable {
		f.side.leave() // for it may wait, or take long
	}
	if !c.started {
		c.started = true
		c.done = true // an error in what follows ends the cursor
		if err := f.start(c); err != nil {
			c.close()
			return 0, false, err
		}
		if !c.st.list {
			return 1, limit == 1, nil
		}
		c.done = false
	}
	if c.st.From && c.lists == nil {
		if limit == 0 {
			c.done = true
			rows, err := f.listAll(c)
			return rows, false, err
		}
		c.openList(f.s.srv.cfg.Table)
	}
	rows, suspended, err = f.listSome(c, limit)
	if !suspended || err != nil {
		c.done = true
		c.close()
	}
	return rows, suspended, err
}

// start waits for what the statement must see, and runs its columns from left to right. Without a list it appends the row.
func (f *frontend) start(c *cursor) error {
	if err := f.refreshSettings(); err != nil {
		return err
	}
	if c.st.command != nil {
		return f.runCommand(c)
	}
	ctx := context.Context(nil)
	if c.st.sets || c.st.reads && f.calls.linearizable {
		f.side.leave() // what the server says of the settings may be news
		var done func()
		ctx, done = f.s.statementContext()
		defer done()
	}
	if c.st.reads && f.calls.linearizable {
		if e := f.s.barrier(ctx); e != nil {
			return e
		}
	}
	if c.st.From {
		return nil
	}
	f.buffer()
	if c.st.list {
		return f.startCells(ctx, c)
	}
	at := len(f.out)
	f.out = appendRowStart(f.out, len(c.st.Columns))
	for i := range c.st.Columns {
		if err := f.column(ctx, c, i); err != nil {
			f.out = f.out[:at]
			return err
		}
		if len(f.out)-at > maxRow {
			f.out = append([]byte(nil), f.out[:at]...) // the row is not kept
			return errRowTooLarge
		}
	}
	f.out = finishMessage(f.out, at)
	return nil
}

// maxRow is how large a row may get, in bytes: PostgreSQL's own limit.
const maxRow = 1<<30 - 1

var errRowTooLarge = &pgError{
	code:    "54000",
	message: "the row is larger than 1 GiB",
	detail:  "The sets to the left of the column that was too much have taken effect.",
}

// startCells runs the columns beside a list, whose values are the same in every row.
func (f *frontend) startCells(ctx context.Context, c *cursor) error {
	c.cells = make([]cell, len(c.st.Columns))
	at := len(f.out)
	defer func() { f.out = f.out[:at] }()
	for i, col := range c.st.Columns {
		if col.Op == sqlrewrite.OpListRecord {
			// Its picture of the table is taken now: after the sets to its left, before those to its right.
			c.openList(f.s.srv.cfg.Table)
			continue
		}
		from := len(f.out)
		if err := f.column(ctx, c, i); err != nil {
			return err
		}
		c.cells[i].null = int32(binary.BigEndian.Uint32(f.out[from:])) < 0
		c.cells[i].value = append([]byte{}, f.out[from+4:]...)
		f.out = f.out[:from]
	}
	return nil
}

// column runs one call and appends its value as a DataRow carries it: length and bytes.
func (f *frontend) column(ctx context.Context, c *cursor, i int) error {
	args := c.st.consts[i]
	key := c.arg(args[0])
	if c.st.Columns[i].Op == sqlrewrite.OpSet {
		f.out = append(f.out, 0, 0, 0, 0)
		return f.set(ctx, c, args, key)
	}
	at := len(f.out)
	f.out = append(f.out, 0xff, 0xff, 0xff, 0xff)
	if key == nil {
		return nil
	}
	out, found := f.s.srv.cfg.Table.Get(f.out, key)
	f.out = out
	if !found {
		return nil
	}
	binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at-4))
	return f.convertCell(at)
}

// convertCell converts the value that f.out ends with, whose length stands at at, to the client's encoding.
func (f *frontend) convertCell(at int) error {
	if f.settings.foreignEncoding == "" {
		return nil
	}
	value, e := f.settings.fromUTF8(f.out[at+4:])
	if e != nil {
		return e
	}
	f.out = append(f.out[:at+4], value...)
	binary.BigEndian.PutUint32(f.out[at:], uint32(len(value)))
	return nil
}

func (c *cursor) arg(a argument) []byte {
	if a.param > 0 {
		return c.params[a.param-1]
	}
	return a.value
}

var errNullKey = &pgError{code: codeNullNotAllowed, message: "raftable: the key must not be NULL", detail: "Nothing was set."}

// callLimit reads the timeout of a set, in milliseconds.
func callLimit(t []byte) (time.Duration, *pgError) {
	ms, e := parseInt4(t)
	if e != nil {
		return 0, e
	}
	if ms <= 0 {
		return 0, &pgError{code: codeInvalidParameter, message: "raftable: the timeout must be positive",
			detail: "Nothing was set.", hint: "Give the timeout in milliseconds."}
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (f *frontend) set(ctx context.Context, c *cursor, args []argument, key []byte) error {
	if key == nil {
		return errNullKey
	}
	limit := f.calls.timeout
	if len(args) == 3 {
		if t := c.arg(args[2]); t != nil {
			var e *pgError
			if limit, e = callLimit(t); e != nil {
				return e
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var err error
	if value := c.arg(args[1]); value == nil {
		err = f.s.srv.cfg.Table.Delete(ctx, key)
	} else {
		err = f.s.srv.cfg.Table.Set(ctx, key, value)
	}
	if err != nil {
		return tableError(err)
	}
	return nil
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func appendRowStart(dst []byte, columns int) []byte {
	return append(dst, 'D', 0, 0, 0, 0, byte(columns>>8), byte(columns))
}

// finishMessage puts the length into the message that starts at dst[at].
func finishMessage(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

func appendValue(dst, v []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
	return append(dst, v...)
}

// appendComplete appends the statement's CommandComplete.
func (st *statement) appendComplete(dst []byte, rows int) []byte {
	if st.command != nil {
		return append(dst, newMessage('C', []byte(commandTag(st.command)+"\x00"))...)
	}
	at := len(dst)
	dst = append(dst, "C\x00\x00\x00\x00SELECT "...)
	dst = strconv.AppendInt(dst, int64(rows), 10)
	return finishMessage(append(dst, 0), at)
}

func appendReady(dst []byte, status byte) []byte {
	return append(dst, 'Z', 0, 0, 0, 5, status)
}
