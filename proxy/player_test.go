package proxy

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// player plays the client of a script. Beyond the messages (see message) and wait, these lines are known:
//
//	startup 3.2 KEY VALUE…   connects in that version with further parameters, and shows the answers
//	conn NAME                goes on with another connection, made when it is first named; its answers carry the name
//	cancel [NAME]            asks for the cancellation of what the connection runs, this one if none is named
//	until TEXT               repeats a query, unseen, until its first value is t
//	halfclose                sends what was gathered, and no more for ever
//	hide                     from here on values are not shown, since they differ from run to run
//	seek TEXT                sends what was gathered and reads, unseen, up to a message that has the text in it
type player struct {
	t     *testing.T
	to    wireTarget
	cut   func([]byte) [][]byte
	conns map[string]*wireConn
	name  string
	hide  bool
	said  []string
}

// play plays a script. cut says how the client's writes are cut, nil for not at all.
func play(t *testing.T, to wireTarget, cut func([]byte) [][]byte, s *script) []string {
	t.Helper()
	p := &player{t: t, to: to, cut: cut, conns: map[string]*wireConn{}}
	defer func() {
		for _, w := range p.conns {
			w.c.Close()
		}
	}()
	p.play(s)
	return p.said
}

// run plays a script on this connection.
func (w *wireConn) run(s *script) []string {
	w.t.Helper()
	p := &player{t: w.t.(*testing.T), conns: map[string]*wireConn{"": w}}
	p.play(s)
	return p.said
}

func (p *player) play(s *script) {
	p.t.Helper()
	for _, line := range s.lines {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !p.line(splitWords(strings.TrimPrefix(line, "> "))) {
			return
		}
	}
}

// conn is the connection that lines are about.
func (p *player) conn() *wireConn {
	w := p.conns[p.name]
	if w == nil {
		w = p.to.dial(p.t)
		w.cut = p.cut
		p.conns[p.name] = w
	}
	return w
}

// tell notes what the server said.
func (p *player) tell(line string) {
	if p.name != "" {
		line = p.name + ": " + line
	}
	p.said = append(p.said, line)
}

// line plays one line and says whether there may be a next.
func (p *player) line(words []string) bool {
	p.t.Helper()
	switch words[0] {
	case "startup":
		p.startup(words)
	case "conn":
		p.name = words[1]
	case "cancel":
		if len(words) > 1 {
			p.to.cancel(p.t, p.conns[words[1]].key)
		} else {
			p.to.cancel(p.t, p.conn().key)
		}
	case "until":
		p.until(words[1])
	case "halfclose":
		w := p.conn()
		w.flush()
		if err := w.c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			p.t.Fatal(err)
		}
	case "hide":
		p.hide = true
	case "seek":
		return p.seek(words[1])
	case "wait":
		return p.wait(words)
	default:
		w := p.conn()
		switch words[0] {
		case "query", "sync", "function":
			w.ready++
		}
		w.out = append(w.out, message(p.t, words)...)
	}
	return true
}

func (w *wireConn) flush() {
	w.t.Helper()
	w.deadline()
	w.send(w.out)
	w.out = nil
}

func (p *player) startup(words []string) {
	p.t.Helper()
	major, minor, _ := strings.Cut(words[1], ".")
	high, _ := strconv.Atoi(major)
	low, _ := strconv.Atoi(minor)
	w := p.to.connect(p.t)
	w.cut = p.cut
	p.conns[p.name] = w
	w.send(startWire(uint32(high<<16|low), words[2:]...))
	for _, line := range w.begin() {
		if !strings.HasPrefix(line, "S server_version=") {
			p.tell(line)
		}
	}
}

func (p *player) until(text string) {
	p.t.Helper()
	w := p.conn()
	eventually(p.t, text, func() bool {
		said := w.run(&script{lines: []string{"> query " + strconv.Quote(text), "> wait"}})
		return len(said) > 1 && said[1] == `D "t"`
	})
}

func (p *player) wait(words []string) bool {
	p.t.Helper()
	w := p.conn()
	w.flush()
	count := -1
	if len(words) > 1 {
		count, _ = strconv.Atoi(words[1])
	}
	for count != 0 && (count > 0 || w.ready > 0) {
		typ, body, err := w.read()
		if err != nil {
			p.tell("end: " + errorKind(err))
			return false
		}
		if typ == 'Z' && w.ready > 0 {
			w.ready--
		}
		if count > 0 {
			count--
		}
		if p.hide && typ == 'D' {
			p.tell(fmt.Sprintf("D %d columns", binary.BigEndian.Uint16(body)))
		} else {
			p.tell(transcribe(typ, body))
		}
	}
	return true
}

func (p *player) seek(text string) bool {
	p.t.Helper()
	w := p.conn()
	w.flush()
	for {
		typ, body, err := w.read()
		if err != nil {
			p.tell("end: " + errorKind(err))
			return false
		}
		if strings.Contains(string(typ)+string(body), text) {
			p.tell(string(typ) + " ... " + strconv.Quote(text))
			return true
		}
	}
}
