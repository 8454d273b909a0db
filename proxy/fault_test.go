package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	faultRuns = flag.Int("faultruns", 0, "how many conversations TestFaults plays; 0 for a number that fits the time")
	faultSeed = flag.Uint64("faultseed", 0, "seed of TestFaults, to play one again; 0 for a new one")
)

// faultRun is one conversation with at most one fault on each side.
type faultRun struct {
	number         int
	rnd            *rand.Rand
	script         []string
	send           []byte // what the client sends after its startup packet
	starts         []int  // where the messages of send begin
	client, server faultKind
	clientAt       int // behind the startup packet
	serverAt       int // from its first byte on
	terminate      bool
	beneath        bool // the client's fault is one of the socket, beneath TLS, where borders are not those of messages
	stopReading    int  // the client stops reading for a while after so many bytes; < 0 for never
	ended          chan struct{}
}

// faultGreeting is what the scripted server says first.
var faultGreeting = func() []byte {
	b := []byte("R\x00\x00\x00\x08\x00\x00\x00\x00")
	b = append(b, "S\x00\x00\x00\x19client_encoding\x00UTF8\x00"...)
	b = append(b, "S\x00\x00\x00\x23standard_conforming_strings\x00on\x00"...)
	return b
}()

const faultGreetingTypes = "RSSKZI "

func newFaultRun(t testing.TB, seed uint64, number int) *faultRun {
	r := rand.New(rand.NewPCG(seed, uint64(number)))
	run := &faultRun{number: number, rnd: r, stopReading: -1, ended: make(chan struct{})}
	data := make([]byte, 1+r.IntN(80))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	msgs, script := sequence(t, data)
	var answers int
	oracle := newModel(true, func(b []byte) { answers += len(b) })
	for i, m := range msgs {
		if !oracle.legal(m[0]) {
			continue
		}
		oracle.write(m)
		run.starts = append(run.starts, len(run.send))
		run.send = append(run.send, m...)
		run.script = append(run.script, script[i])
	}
	run.terminate = r.IntN(2) == 0
	switch r.IntN(5) {
	case 0: // all goes well, slowly
	case 1, 2:
		run.client = faultKind(r.IntN(int(faultKinds)))
		run.clientAt = r.IntN(len(run.send) + 1)
	case 3:
		run.server = faultKind(r.IntN(int(faultKinds)))
		run.serverAt = r.IntN(len(faultGreeting) + 19 + answers + 1)
	case 4:
		run.stopReading = r.IntN(answers + 1)
	}
	return run
}

func (run *faultRun) String() string {
	where := ""
	if run.beneath {
		where = " beneath TLS"
	}
	return fmt.Sprintf("run %d: %v of the client's%s behind %d bytes, %v of the server's behind %d bytes, stops reading at %d\n%s",
		run.number, run.client, where, run.clientAt, run.server, run.serverAt, run.stopReading, strings.Join(run.script, "\n"))
}

// sent is what arrives of what the client sends, unless its connection breaks.
func (run *faultRun) sent() []byte {
	if run.client == faultShut && !run.beneath {
		return run.send[:run.clientAt]
	}
	return run.send
}

// prefix is that of the keys that the run may set.
func (run *faultRun) prefix() string { return strconv.Itoa(run.number) + "." }

// checkTable looks at what a run has set: nothing that it should not, no row without those before, and all of it if the client has
// seen everything.
func (run *faultRun) checkTable(table *mapTable, whole bool) error {
	m := newModel(true, func([]byte) {})
	m.prefix = run.prefix()
	m.write(run.sent())
	got := map[string]string{}
	table.List(func(key, value []byte) bool {
		if strings.HasPrefix(string(key), m.prefix) {
			got[string(key)] = string(value)
		}
		return true
	})
	for i := range 3 {
		_, here := got[m.key(i)]
		if _, may := m.sets[m.key(i)]; here && !may || !here && may && whole {
			return fmt.Errorf("it has set %v and should have set %v", got, m.sets)
		}
		if _, next := got[m.key(i+1)]; next && !here {
			return fmt.Errorf("it has set %v, which is no prefix", got)
		}
	}
	return nil
}

// want is the least and the most that the client may see. The server owes nothing that it has not been told to flush.
func (run *faultRun) want() (least, most string) {
	var said bytes.Buffer
	m := newModel(true, func(b []byte) { said.Write(b) })
	m.write(run.sent())
	most = faultGreetingTypes + types(said.Bytes())
	switch {
	case run.server > faultStall, run.client > faultShut, run.beneath && run.client == faultShut:
		return "", most
	default:
		return most[:strings.LastIndexByte(most, ' ')+1], most
	}
}

// faultServer is a scripted server that follows the rules of PostgreSQL, also in what it holds back until it must not.
type faultServer struct {
	t     testing.TB
	l     net.Listener
	runs  sync.Map // number to *faultRun
	wg    sync.WaitGroup
	stall func()
}

func newFaultServer(t testing.TB, stall func()) *faultServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "fault")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &faultServer{t: t, l: l, stall: stall}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				defer c.Close()
				s.serve(c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		s.wg.Wait()
		os.RemoveAll(dir)
	})
	return s
}

// serve plays one session. The run is told by the startup packet; without one nothing goes wrong.
func (s *faultServer) serve(c net.Conn) {
	deadline := func() { _ = c.SetDeadline(time.Now().Add(2 * wireTimeout)) }
	deadline()
	raw, err := readStartupBytes(c)
	if err != nil {
		return
	}
	if len(raw) >= 4 && binary.BigEndian.Uint32(raw) == codeCancelRequest {
		return // the proxy stops a statement of which a row has failed, which the model has come to the end of
	}
	run := &faultRun{rnd: rand.New(rand.NewPCG(1, 2))}
	if _, after, ok := bytes.Cut(raw, []byte("application_name\x00")); ok {
		name, _, _ := bytes.Cut(after, []byte{0})
		n, _ := strconv.Atoi(string(name))
		if r, ok := s.runs.Load(n); ok {
			run = r.(*faultRun)
			defer close(run.ended)
		}
	}
	w := &faultyConn{Conn: c, rnd: rand.New(rand.NewPCG(uint64(run.number), 7)), piece: 200, kind: run.server, at: run.serverAt, stall: s.stall}
	out := binary.BigEndian.AppendUint32(append(bytes.Clone(faultGreeting), 'K', 0, 0, 0, 12), uint32(run.number))
	out = append(out, "keyKZ\x00\x00\x00\x05I"...)
	m := newModel(false, func(b []byte) { out = append(out, b...) })
	m.prefix = run.prefix()
	var in []byte
	buf := make([]byte, 4096)
	for {
		deadline()
		if _, err := w.Write(out); err != nil {
			if w.kind == faultShut {
				_, _ = io.Copy(io.Discard, c)
			}
			return
		}
		out = out[:0]
		for !m.due(&in, &out) {
			if len(in) > 0 && in[0] == 'X' {
				return
			}
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			in = append(in, buf[:n]...)
		}
	}
}

// due answers the messages of in one by one, and says whether the answers are written now. PostgreSQL does so at Flush, when
// it is ready, begins to copy, or has failed.
func (m *model) due(in, out *[]byte) bool {
	for len(*in) >= headerSize {
		typ, size := header(*in)
		if typ == 'X' || len(*in) < size {
			return false
		}
		before := len(*out)
		m.write((*in)[:size])
		*in = (*in)[size:]
		said := types((*out)[before:])
		if typ == 'H' && len(*out) > 0 || strings.ContainsAny(said, "ZGE") || len(*out) > 8192 {
			return true
		}
	}
	return false
}

func readStartupBytes(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint32(size[:])-4)
	_, err := io.ReadFull(c, raw)
	return raw, err
}

// play plays the client of a run and returns all that it saw.
func (run *faultRun) play(c net.Conn, stall func()) []byte {
	w := &faultyConn{Conn: c, rnd: run.rnd, piece: 100, stall: stall}
	faulty := w
	if run.beneath {
		faulty = c.(*tls.Conn).NetConn().(*faultyConn)
		faulty.stall = stall
	}
	_, err := c.Write(startWire(3<<16, "application_name", strconv.Itoa(run.number)))
	faulty.kind, faulty.at = run.client, run.clientAt
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err != nil {
			return
		}
		send := run.send
		if run.terminate {
			send = append(bytes.Clone(send), 'X', 0, 0, 0, 4)
		}
		if _, err := w.Write(send); err == nil {
			if run.client > faultStall {
				_ = faulty.happen() // behind the last byte
			} else if !run.terminate {
				_ = closeWrite(c)
			}
		}
	}()
	var got []byte
	buf := make([]byte, 2048)
	for {
		if run.stopReading >= 0 && len(got) >= run.stopReading {
			run.stopReading = -1
			stall()
		}
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	<-done
	c.Close()
	return got
}

// check compares what the client saw with what it may see.
func (run *faultRun) check(got []byte) error {
	least, most := run.want()
	said := types(got)
	if run.server > faultStall {
		// The proxy may say why the session could not begin or go on.
		said = strings.TrimSuffix(said, "E")
	}
	if !strings.HasPrefix(most, said) || !strings.HasPrefix(said, least) {
		return fmt.Errorf("the client sees\n%s\nand should see\n%s\nor at least\n%s", said, most, least)
	}
	return nil
}

// bystander is a session to which nothing happens, and which must not notice what happens to the others.
type bystander struct {
	mu     sync.Mutex
	cond   *sync.Cond
	rounds int
	over   bool
}

// stall returns when the bystander has been served twice since the call.
func (b *bystander) stall() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for until := b.rounds + 2; b.rounds < until && !b.over; {
		b.cond.Wait()
	}
}

func (b *bystander) run(t *testing.T, to wireTarget, stop *atomic.Bool) {
	defer func() {
		b.mu.Lock()
		b.over = true
		b.mu.Unlock()
		b.cond.Broadcast()
	}()
	w := to.dial(t)
	defer w.c.Close()
	for !stop.Load() {
		w.deadline()
		w.send(append(query(textPlain), query(textOurs)...))
		var said strings.Builder
		for said.Len() < len("CZTDCZ") {
			typ, _, err := w.read()
			if err != nil {
				t.Errorf("the bystander notices: %v", err)
				return
			}
			said.WriteByte(typ)
		}
		if said.String() != "CZTDCZ" {
			t.Errorf("the bystander sees %s", said.String())
			return
		}
		b.mu.Lock()
		b.rounds++
		b.mu.Unlock()
		b.cond.Broadcast()
	}
}

// TestFaults plays random conversations in which connections stall, close, half-close or are reset behind any byte of the
// client's or of the server's, and every write is cut at random. The session ends, the client sees nothing but the
// beginning of what it should see, has set nothing but the beginning of what it should set, and a bystander notices nothing. What is left over is found by TestMain. With TLS to the
// client faults happen in what the client says and, in every other run, in the records beneath.
func TestFaults(t *testing.T) {
	n := 4000
	switch {
	case *faultRuns > 0:
		n = *faultRuns
	case testing.Short():
		n = 1000
	}
	t.Run("plain", func(t *testing.T) { faults(t, n, nil) })
	t.Run("TLS", func(t *testing.T) { faults(t, max(1, n/4), newAuthority(t)) })
}

// faults plays n runs, with TLS to the client if there is an authority.
func faults(t *testing.T, n int, ca *authority) {
	seed := faultSeedOf(t, n)
	by := &bystander{}
	by.cond = sync.NewCond(&by.mu)
	server := newFaultServer(t, by.stall)
	var access Access
	var to wireTarget
	if ca != nil {
		access.ClientTLS = ca.issue("raftproxy", "127.0.0.1").clientTLS(ClientTLSRequire)
		to.tls = &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"}
	}
	table := newMapTable()
	srv, addr := startProxy(t, Config{Upstream: server.l.Addr().String(), Table: table, Access: access})
	to.addr = addr
	var stop atomic.Bool
	bystanding := make(chan struct{})
	go func() { defer close(bystanding); by.run(t, to, &stop) }()
	defer func() { stop.Store(true); <-bystanding }()

	var whole atomic.Int64
	playFaults(t, n, func(number int) error {
		run := newFaultRun(t, seed, number)
		if to.tls != nil && number%2 == 1 {
			run.beneath = true
			run.clientAt += run.clientAt / 2 // records are longer than what is in them
		}
		server.runs.Store(number, run)
		defer server.runs.Delete(number)
		c, err := run.dial(to)
		if err != nil {
			return err
		}
		started := time.Now()
		got := run.play(c, by.stall)
		if time.Since(started) >= wireTimeout {
			return fmt.Errorf("the session does not end\nit saw %s\n%v", types(got), run)
		}
		if err := run.check(got); err != nil {
			return fmt.Errorf("%w\n%v", err, run)
		}
		_, most := run.want()
		if types(got) == most {
			whole.Add(1)
		}
		if len(got) == 0 {
			return nil // may have gone before the proxy met the server
		}
		select {
		case <-run.ended:
		case <-time.After(wireTimeout):
			return fmt.Errorf("the server's side does not end\n%v", run)
		}
		if err := run.checkTable(table, types(got) == most); err != nil {
			return fmt.Errorf("%w\n%v", err, run)
		}
		return nil
	})
	t.Logf("%d runs came to their natural end", whole.Load())
	eventually(t, "all sessions but the bystander's end", func() bool { return srv.Sessions() <= 1 })
}

// dial connects the client of a run, up to its startup packet.
func (run *faultRun) dial(to wireTarget) (net.Conn, error) {
	c, err := net.Dial("tcp", to.addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(wireTimeout))
	if to.tls == nil {
		return c, nil
	}
	if _, err := c.Write(requestTLS); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return nil, err
	}
	if run.beneath {
		c = &faultyConn{Conn: c, rnd: rand.New(rand.NewPCG(uint64(run.number), 9)), piece: 100}
	}
	secure := tls.Client(c, to.tls)
	return secure, secure.Handshake()
}

func faultSeedOf(t *testing.T, n int) uint64 {
	t.Helper()
	seed := *faultSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d runs, seed %d", n, seed)
	return seed
}

// playFaults plays n runs, some at a time, up to the first that fails.
func playFaults(t *testing.T, n int, play func(number int) error) {
	t.Helper()
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !failed.Load() {
				number := int(next.Add(1))
				if number > n {
					return
				}
				if err := play(number); err != nil {
					failed.Store(true)
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
