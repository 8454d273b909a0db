package proxy

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

var (
	sequences    = flag.Int("sequences", 0, "how many conversations TestSequences plays; 0 for a number that fits the time")
	sequenceSeed = flag.Uint64("sequenceseed", 0, "seed of TestSequences, to play them again; 0 for a new one")
)

// model is a server that follows PostgreSQL's rules for the order of messages, with one kind of portal and of error. It
// serves raftable() calls when native is set. It is the server behind the proxy, and without the proxy the yardstick.
type model struct {
	native bool
	prefix string // of the keys in its table
	in     []byte
	stmts  map[string]string // name to text
	ports  map[string]string
	pos    map[string]int    // how many of its rows a portal has given
	sets   map[string]string // what calls in rows have set, of a native model
	skip   bool
	copyIn bool
	inTx   bool // a transaction block
	failed bool
	began  bool // an implicit transaction of the extended protocol
	out    func([]byte)
}

func newModel(native bool, out func([]byte)) *model {
	return &model{native: native, stmts: map[string]string{}, ports: map[string]string{}, pos: map[string]int{}, sets: map[string]string{}, out: out}
}

const (
	textPlain = "SELECT 1"
	textFail  = "SELECT 1/0"
	textOurs  = "SELECT raftable('k')"
	textBad   = "SELECT raftable(NULL, 'v')" // fails when it is run
	textWrong = "SELECT raftable(7)"         // fails when it is parsed
	textBegin = "BEGIN"
	textEnd   = "ROLLBACK"
	textCopy  = "COPY t FROM STDIN"
)

func (m *model) write(b []byte) {
	m.in = append(m.in, b...)
	for len(m.in) >= headerSize {
		typ, size := header(m.in)
		if len(m.in) < size {
			return
		}
		body := m.in[headerSize:size]
		m.message(typ, body)
		m.in = m.in[size:]
	}
}

func (m *model) say(typ byte, body string) {
	m.out(append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...))
}

func (m *model) error() {
	m.say('E', "SERROR\x00C00000\x00Mno\x00\x00")
	if m.inTx {
		m.failed = true
	}
	m.began = false
}

func (m *model) ready() {
	status := "I"
	if m.inTx {
		status = "T"
	}
	if m.failed {
		status = "E"
	}
	if !m.inTx {
		clear(m.ports)
	}
	m.say('Z', status)
}

func cstrings(b []byte, n int) []string {
	parts := strings.SplitN(string(b), "\x00", n+1)
	for len(parts) < n {
		parts = append(parts, "")
	}
	return parts
}

func (m *model) message(typ byte, body []byte) {
	if m.copyIn {
		switch typ {
		case 'd', 'H', 'S':
			return
		case 'c':
			m.copyIn = false
			m.say('C', "COPY 0\x00")
			if m.began {
				return
			}
			m.ready()
			return
		default:
			m.copyIn = false // CopyFail; see legal
			simple := !m.began
			m.error()
			if simple {
				m.ready()
			} else {
				m.skip = typ != 'S'
			}
			return
		}
	}
	if m.skip && typ != 'S' {
		return
	}
	switch typ {
	case 'Q':
		m.query(cstrings(body, 1)[0])
	case 'S':
		m.skip, m.began = false, false
		m.ready()
	case 'P', 'B', 'D', 'E', 'C':
		m.began = true
		if !m.extended(typ, body) {
			m.error()
			m.skip = true
		}
	}
}

// legal says whether a message may be sent now: while it copies, PostgreSQL ends the connection over any other.
func (m *model) legal(typ byte) bool { return !m.copyIn || strings.IndexByte("dcfHS", typ) >= 0 }

// run runs a text and says what the answer is; ok is false for an error.
func (m *model) run(text string) (ok bool) {
	if m.failed && text != textEnd {
		return false
	}
	executes := strings.HasPrefix(text, "EXECUTE")
	if text, ok = m.executed(text); !ok {
		return false
	}
	r := m.rows(text)
	if m.native && r.bad >= 0 && (r.fills || executes) {
		m.setUpTo(r.bad) // and nothing is said
		return false
	}
	if r.n > 0 && !strings.HasPrefix(text, "PREPARE") {
		m.describe(text)
	}
	return m.portal(text)
}

// portal runs a text that was described, to its end.
func (m *model) portal(text string) (ok bool) {
	tag := "X"
	switch text {
	case textFail, textWrong:
		return false
	case textBegin:
		m.inTx = true
	case textEnd: // outside of a transaction block it ends the implicit one, with a warning
		m.inTx, m.failed = false, false
		clear(m.ports)
		tag = text
	case textDeallocate:
		m.deallocate()
		tag = text
	case textSetting:
		tag = "SET"
	case textOurs, textBad:
		if !m.native {
			return false
		}
	}
	if handled, ok := m.prepares(text); handled {
		if ok {
			m.say('C', "PREPARE\x00")
		}
		return ok
	}
	if _, ok := m.fetch(text, 0, 0); !ok {
		return false
	}
	m.say('C', tag+"\x00")
	return true
}

func (m *model) query(text string) {
	delete(m.stmts, "")
	delete(m.ports, "")
	if text == textCopy && !m.failed {
		m.began = false
		m.copyIn = true
		m.say('G', "\x00\x00\x00")
		return
	}
	for _, one := range strings.Split(text, "; ") {
		if !m.run(strings.TrimSpace(one)) {
			m.error()
			break
		}
	}
	m.began = false
	m.ready()
}

func (m *model) extended(typ byte, body []byte) bool {
	switch typ {
	case 'P':
		f := cstrings(body, 2)
		f[1] = strings.TrimSpace(f[1]) // what is left of a query string
		if f[0] == "" {
			delete(m.stmts, "")
		}
		if m.failed && f[1] != textEnd || f[1] == textWrong || m.stmts[f[0]] != "" {
			return false
		}
		m.stmts[f[0]] = f[1]
		m.say('1', "")
	case 'B':
		f := cstrings(body, 2)
		text := m.stmts[f[1]]
		if text == "" || m.failed && text != textEnd || f[0] != "" && m.ports[f[0]] != "" {
			return false
		}
		m.ports[f[0]] = text
		delete(m.pos, f[0])
		m.say('2', "")
	case 'D':
		name := cstrings(body[1:], 1)[0]
		text := m.stmts[name]
		if body[0] == 'P' {
			text = m.ports[name]
		}
		if text == "" || m.failed {
			return false
		}
		if body[0] == 'S' {
			m.say('t', "\x00\x00")
		}
		if inner, _ := m.executed(text); m.rows(inner).n > 0 && !strings.HasPrefix(inner, "PREPARE") {
			m.describe(inner)
		} else {
			m.say('n', "")
		}
	case 'E':
		name := cstrings(body, 1)[0]
		text := m.ports[name]
		if text == textCopy && !m.failed {
			m.copyIn = true
			m.say('G', "\x00\x00\x00")
			return true
		}
		return text != "" && m.execute(name, text, int(binary.BigEndian.Uint32(body[len(body)-4:])))
	case 'C':
		name := cstrings(body[1:], 1)[0]
		if body[0] == 'S' {
			delete(m.stmts, name)
		} else {
			delete(m.ports, name)
		}
		m.say('3', "")
	}
	return true
}

// execute runs a portal, up to a number of rows.
func (m *model) execute(name, text string, limit int) (ok bool) {
	if m.failed && text != textEnd {
		return false
	}
	if m.question(text) {
		return true
	}
	if text, ok = m.executed(text); !ok {
		return false
	}
	r := m.rows(text)
	if r.n == 0 || strings.HasPrefix(text, "PREPARE") {
		return m.portal(text)
	}
	next, ok := m.fetch(text, m.pos[name], limit)
	switch {
	case !ok:
		return false
	case limit > 0 && next-m.pos[name] == limit:
		m.say('s', "")
	default:
		m.say('C', "SELECT 0\x00")
	}
	m.pos[name] = next
	return true
}

// fakeConn is a net.Conn that hands on what is written to it.
type fakeConn struct {
	net.Conn
	write func([]byte)
}

func (c *fakeConn) Write(b []byte) (int, error)      { c.write(b); return len(b), nil }
func (c *fakeConn) Close() error                     { return nil }
func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil }

// modelSession is a session between a recorded client and a model, with no goroutines: the model's answers pass through
// the backend while the frontend's write is under way.
func modelSession(t testing.TB) (s *session, said *bytes.Buffer) {
	return cutSession(t, rand.New(rand.NewPCG(1, 2)))
}

// cutSession is a modelSession in which r says how the server's answers are cut.
func cutSession(t testing.TB, r *rand.Rand) (s *session, said *bytes.Buffer) {
	said = &bytes.Buffer{}
	srv, err := New(Config{Upstream: "127.0.0.1:1", Table: newMapTable()})
	if err != nil {
		t.Fatal(err)
	}
	var answers []byte
	m := newModel(false, func(b []byte) { answers = append(answers, b...) })
	server := &fakeConn{}
	client := &fakeConn{write: func(b []byte) { said.Write(b) }}
	s = newSession(srv, client, server, zerolog.Nop())
	server.write = func(b []byte) {
		m.write(b)
		for len(answers) > 0 {
			n := 1 + r.IntN(len(answers))
			if err := s.back.feed(bytes.Clone(answers[:n])); err != nil {
				t.Fatal(err)
			}
			answers = answers[n:]
		}
	}
	if err := s.back.feed([]byte{'Z', 0, 0, 0, 5, 'I'}); err != nil {
		t.Fatal(err)
	}
	said.Reset()
	return s, said
}

// types lists the messages in b.
func types(b []byte) string {
	var out strings.Builder
	for len(b) >= headerSize {
		typ, size := header(b)
		if size > len(b) {
			break
		}
		out.WriteByte(typ)
		if typ == 'Z' {
			out.WriteByte(b[headerSize])
			out.WriteByte(' ')
		}
		b = b[size:]
	}
	return out.String()
}

var modelTexts = []string{textPlain, textFail, textOurs, textBad, textWrong, textBegin, textEnd, textOurs, textPlain, textCopy}

// sequence makes messages out of random bytes; every byte string is a sequence that a client may send.
func sequence(t testing.TB, data []byte) (msgs [][]byte, script []string) {
	next := func(n int) int {
		if len(data) == 0 {
			return 0
		}
		v := int(data[0])
		data = data[1:]
		return v % n
	}
	names := []string{"", "", "a", "b"}
	add := func(words ...string) {
		msgs = append(msgs, message(t, words))
		script = append(script, strings.Join(words, " "))
	}
	for len(data) > 0 && len(msgs) < 60 {
		switch next(15) {
		case 0, 1:
			add("query", modelTexts[next(len(modelTexts))])
		case 12:
			add("query", batchTexts[next(len(batchTexts))])
			add("parse", "", textPlain) // in place of what an error may leave, see endFailed
		case 13:
			add("query", rowTexts[next(len(rowTexts))])
			add("parse", "", textPlain)
		case 14:
			add("parse", names[next(4)], rowTexts[next(len(rowTexts))])
		case 2, 3:
			add("parse", names[next(4)], modelTexts[next(len(modelTexts))])
		case 4, 5:
			add("bind", names[next(4)], names[next(4)])
		case 6:
			add("describe", []string{"S", "P"}[next(2)], names[next(4)])
		case 7, 8:
			add("execute", names[next(4)], []string{"0", "0", "1", "2"}[next(4)])
		case 9:
			add("close", []string{"S", "P"}[next(2)], names[next(4)])
		case 10:
			add("sync")
		case 11:
			add([]string{"flush", "copydata", "copydone", "copyfail", "copydone"}[next(5)])
		}
	}
	add("sync")
	return msgs, script
}

// checkSequence plays a sequence to the yardstick and through a session, cut as r says, and compares the answers. what names
// the sequence.
func checkSequence(t testing.TB, data []byte, r *rand.Rand, what string) {
	msgs, script := sequence(t, data)
	var want bytes.Buffer
	oracle := newModel(true, func(b []byte) { want.Write(b) })
	s, said := cutSession(t, r)
	var all []byte
	legal := script[:0]
	for i, m := range msgs {
		if !oracle.legal(m[0]) {
			continue
		}
		oracle.write(m)
		all = append(all, m...)
		legal = append(legal, script[i])
	}
	script = legal
	done := make(chan error, 1)
	go func() {
		for len(all) > 0 {
			n := 1 + r.IntN(min(len(all), 80))
			if err := s.front.feed(all[:n]); err != nil {
				done <- err
				return
			}
			all = all[n:]
			if r.IntN(8) == 0 {
				s.interrupt(errCanceled) // finds nothing that waits
			}
		}
		done <- s.front.flushOut()
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v after\n%s", what, err, strings.Join(script, "\n"))
		}
	case <-time.After(wireTimeout):
		state := account(&s.owed)
		s.owed.close()
		<-done
		t.Fatalf("%s: the session waits for %q, answers\n%s\nwant\n%s\nin\n%s", what, state,
			types(said.Bytes()), types(want.Bytes()), strings.Join(script, "\n"))
	}
	if got, want := types(said.Bytes()), types(want.Bytes()); got != want {
		t.Fatalf("%s: answers to\n%s\nare\n%s\nwant\n%s", what, strings.Join(script, "\n"), got, want)
	}
	if got := s.srv.cfg.Table.(*mapTable).rows; !maps.Equal(got, oracle.sets) {
		t.Fatalf("%s: after\n%s\nthe table is %v, want %v", what, strings.Join(script, "\n"), got, oracle.sets)
	}
}

// TestSequences compares random conversations through a session with those without one.
func TestSequences(t *testing.T) {
	n := *sequences
	switch {
	case n > 0:
	case testing.Short():
		n = 2_000
	default:
		n = 20_000
	}
	seed := *sequenceSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d sequences, seed %d", n, seed)
	for number := range n {
		r := rand.New(rand.NewPCG(seed, uint64(number)))
		data := make([]byte, 1+r.IntN(80))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		checkSequence(t, data, r, fmt.Sprintf("sequence %d of seed %d", number, seed))
	}
}

func FuzzSequences(f *testing.F) {
	f.Add([]byte{2, 0, 2, 4, 0, 0, 7, 0, 10})
	f.Add([]byte{0, 5, 2, 0, 3, 4, 0, 0, 7, 0, 10, 0, 6})
	f.Fuzz(func(t *testing.T, data []byte) {
		// An input is always cut alike, so that a find can be played again.
		checkSequence(t, data, rand.New(rand.NewPCG(uint64(crc32.ChecksumIEEE(data)), 1)), "the sequence")
	})
}
