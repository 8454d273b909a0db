package proxy

import (
	"encoding/binary"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// Type OIDs of what raftable() takes and returns.
const (
	oidInt4    = 23
	oidText    = 25
	oidVarchar = 1043
	oidRecord  = 2249
	oidVoid    = 2278
)

// program is what the proxy does with one text, made once per text. It is not changed after it is made.
type program struct {
	text    string
	forward bool // the whole text goes to the server
	parts   []part
	local   bool // all parts are local or refused
	// encodes: the text may change client_encoding.
	encodes bool
	// executions are the EXECUTE statements in it.
	executions []sqlrewrite.Execution
	// setting: the text may change a setting of ours, or says something that only the server reads.
	setting bool
}

// part is one statement of a text. One of local, rewrite, command and refusal is set, or none: then it is the server's. With
// local, rewrite is what the server can run instead, where the types of the client's parameters leave it no choice.
type part struct {
	start, end int // in the text
	control    sqlrewrite.Control
	params     int    // the highest number of a parameter in it
	fills      bool   // the server runs it to its end before it answers
	firstParam int    // where the first one is that a simple query lacks, 0 if there is none
	fetches    string // the cursor of a FETCH
	local      *statement
	rewrite    *sqlrewrite.Rewrite
	command    *sqlrewrite.Command
	refusal    *pgError
	// query is what the server gets of a rewrite in a simple query; nil if it must be made each time.
	query *queryMessages
	// arguments is how many arguments an EXECUTE has in rewrite beyond the client's.
	arguments int
}

// statement is one statement that is answered locally.
type statement struct {
	*sqlrewrite.Local
	consts  [][]argument // per column
	list    bool         // rows come from a list
	reads   bool         // has a get or a list
	sets    bool
	rowDesc []byte // RowDescription with text formats; NoData where there are no rows
	formats []int  // offsets of the format codes in rowDesc
	// command, if not nil, is what is done instead of calls.
	command *sqlrewrite.Command
}

// argument is a constant argument, or the number of a parameter.
type argument struct {
	param int // from 1; 0 is a constant
	value []byte
}

// compile makes the program of a text.
func compile(text string, o sqlrewrite.Options) *program {
	p := compilePlan(text, sqlrewrite.Parse(text, o))
	p.encodes = containsFold([]byte(text), "client_encoding") || containsFold([]byte(text), "names")
	return p
}

// compilePlan turns the plan of a text into a program.
func compilePlan(text string, plan *sqlrewrite.Plan) *program {
	p := &program{text: text, local: true, forward: true, executions: plan.Executions}
	for i := range plan.Statements {
		st := &plan.Statements[i]
		t := part{start: st.Start, end: st.End, control: st.Control, fills: st.Fills, fetches: st.Fetches,
			params: st.MaxParam, firstParam: st.FirstParam}
		switch st.Class {
		case sqlrewrite.ClassNone, sqlrewrite.ClassStored:
			p.local = false
		case sqlrewrite.ClassLocal:
			t.local, t.rewrite = newStatement(st.Local), st.Rewrite
		case sqlrewrite.ClassCommand:
			if t.command = st.Command; t.command.Op == sqlrewrite.CommandSet {
				p.local, p.setting = false, true
				p.parts = append(p.parts, t)
				continue
			}
			t.local = newCommand(st.Command)
		case sqlrewrite.ClassRewritten, sqlrewrite.ClassHarvested:
			t.rewrite = st.Rewrite
			t.prepareQuery(text)
			p.local = false
		case sqlrewrite.ClassRefused:
			t.refusal = refusal(st.Refusal)
		}
		if st.Class != sqlrewrite.ClassNone && st.Class != sqlrewrite.ClassStored {
			p.forward = false
		}
		p.parts = append(p.parts, t)
	}
	if p.forward {
		p.setting = true // what it is that mentions us is not known
	}
	return p
}

func newStatement(l *sqlrewrite.Local) *statement {
	st := &statement{Local: l, list: l.From, reads: l.From}
	for _, c := range l.Columns {
		args := make([]argument, len(c.Args))
		for i, a := range c.Args {
			args[i].param = a.Param
			if a.Param == 0 && !a.Null {
				args[i].value = append([]byte{}, a.Value...)
			}
		}
		st.consts = append(st.consts, args)
		switch c.Op {
		case sqlrewrite.OpSet:
			st.sets = true
		case sqlrewrite.OpListRecord:
			st.list, st.reads = true, true
		default:
			st.reads = true
		}
	}
	st.describe()
	return st
}

// describe makes the RowDescription.
func (st *statement) describe() {
	b := binary.BigEndian.AppendUint16([]byte{'T', 0, 0, 0, 0}, uint16(len(st.Columns)))
	for _, c := range st.Columns {
		oid, size := uint32(oidText), int16(-1)
		switch c.Op {
		case sqlrewrite.OpSet:
			oid, size = oidVoid, 4
		case sqlrewrite.OpListRecord:
			oid = oidRecord
		case sqlrewrite.OpKey:
			oid = oidVarchar
		}
		b = append(append(b, c.Name...), 0)
		b = append(b, 0, 0, 0, 0, 0, 0) // no table, no attribute
		b = binary.BigEndian.AppendUint32(b, oid)
		b = binary.BigEndian.AppendUint16(b, uint16(size))
		b = binary.BigEndian.AppendUint32(b, 0xffffffff) // no type modifier
		st.formats = append(st.formats, len(b))
		b = append(b, 0, 0)
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	st.rowDesc = b
}

// appendRowDesc appends the RowDescription with the given formats: none for text, one for all columns, or one per column.
func (st *statement) appendRowDesc(dst []byte, formats []int16) []byte {
	at := len(dst)
	dst = append(dst, st.rowDesc...)
	for i, off := range st.formats {
		binary.BigEndian.PutUint16(dst[at+off:], uint16(formatOf(formats, i)))
	}
	return dst
}

// formatOf is the format code of column or parameter i.
func formatOf(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return 0
	case 1:
		return formats[0]
	}
	return formats[i]
}

// timeout parses a timeout argument in text form, as PostgreSQL reads an integer.
func parseInt4(b []byte) (int32, *pgError) {
	n, err := strconv.ParseInt(string(trimSpace(b)), 10, 32)
	if err == nil {
		return int32(n), nil
	}
	if e, ok := err.(*strconv.NumError); ok && e.Err == strconv.ErrRange {
		return 0, &pgError{code: "22003", message: `value "` + string(b) + `" is out of range for type integer`}
	}
	return 0, &pgError{code: codeInvalidText, message: `invalid input syntax for type integer: "` + string(b) + `"`}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// planCache maps texts to programs, bounded by bytes. Entries that were used since the last eviction get a second chance.
type planCache struct {
	parse sqlrewrite.Options
	limit int

	mu      sync.RWMutex
	entries map[string]*cacheEntry
	bytes   int
}

type cacheEntry struct {
	prog *program
	cost int
	used atomic.Bool
}

// entryOverhead is what an entry costs beyond a few times its text, roughly.
const entryOverhead = 1 << 10

func newPlanCache(limit int, o sqlrewrite.Options) *planCache {
	return &planCache{parse: o, limit: limit, entries: make(map[string]*cacheEntry)}
}

// find returns the program of text if it is in the cache, or nil.
func (c *planCache) find(text []byte) *program {
	c.mu.RLock()
	e := c.entries[string(text)]
	c.mu.RUnlock()
	if e == nil {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.prog
}

// get returns the program of text, which takes long where it is not in the cache. It keeps nothing of text itself.
func (c *planCache) get(text []byte) *program {
	if p := c.find(text); p != nil {
		return p
	}
	s := string(text)
	p := compile(s, c.parse)
	c.put(p)
	return p
}

func (c *planCache) put(p *program) {
	e := &cacheEntry{prog: p, cost: entryOverhead*(1+len(p.parts)) + 6*len(p.text)}
	if e.cost > c.limit/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[p.text]; ok {
		return
	}
	for c.bytes+e.cost > c.limit {
		c.evict()
	}
	c.entries[p.text] = e
	c.bytes += e.cost
}

// evict removes one entry that was not used lately, or any if there is none among a few. Go visits maps in random order.
func (c *planCache) evict() {
	tries := 0
	for text, e := range c.entries {
		if tries++; tries < 16 && e.used.Swap(false) {
			continue
		}
		c.bytes -= e.cost
		delete(c.entries, text)
		return
	}
	for text, e := range c.entries {
		c.bytes -= e.cost
		delete(c.entries, text)
		return
	}
}
