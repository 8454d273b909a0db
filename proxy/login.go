package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Kinds of Authentication messages that the proxy must know.
const (
	authOK        = 0
	authSASL      = 10
	authSASLFinal = 12
)

const (
	// maxAnswer is PostgreSQL's own limit for a message of a client that has not logged in (PG_MAX_AUTH_TOKEN_LENGTH),
	// with the header.
	maxAnswer = headerSize + 65535
	// maxAsk bounds a message of postgres during that time.
	maxAsk = 1 << 20
)

// scramPlus is the authentication that is bound to the TLS connection by the server's certificate.
const scramPlus = "SCRAM-SHA-256-PLUS"

// login is the part of a session in which the client proves who it is. It passes that on between client and postgres, message
// by message: one of the client's for each that postgres asks for. It ends with postgres' AuthenticationOk; only then do
// the session gets onto an event loop, or its two goroutines start, which have no limits that somebody unknown could not abuse.
type login struct {
	s              *session
	client, server net.Conn
	st             *startup
	a              *access

	asked  bool       // postgres asked for a credential
	answer chan error // of the goroutine that reads the client's answer; nil when none runs
	binds  bool       // the answer chooses a SASL mechanism, and must not choose scramPlus
}

var (
	errLoginEnded = errors.New("proxy: postgres did not let the client in")
	errAnswerCut  = errors.New("proxy: the client's part of the login broke off in the middle of a message")
)

// login brings the client of st through authentication. After an error the session is over and both connections are closed.
func (s *session) login(st *startup, server net.Conn, a *access) error {
	l := &login{s: s, client: st.conn, server: server, st: st, a: a}
	err := s.guard(l.run)
	if err != nil {
		l.client.Close()
		l.server.Close()
		if l.answer != nil {
			err = errors.Join(err, <-l.answer)
		}
	}
	return err
}

func (l *login) run() error {
	for {
		msg, err := l.readAsk()
		if err != nil {
			return err
		}
		if msg[0] == 'R' {
			kind := binary.BigEndian.Uint32(msg[headerSize:])
			if kind == authOK {
				return l.admit(msg)
			}
			if msg, err = l.ask(kind, msg); err != nil {
				return err
			}
		}
		if _, err := l.client.Write(msg); err != nil {
			return err
		}
	}
}

// readAsk reads a message of postgres. If it is one that comes at an end, such as an ErrorResponse, it and all that follows
// is passed on, and the error says so.
func (l *login) readAsk() ([]byte, error) {
	var hdr [headerSize]byte
	if n, err := io.ReadFull(l.server, hdr[:]); err != nil {
		return nil, l.passEnd(hdr[:n])
	}
	typ, size := header(hdr[:])
	least := headerSize
	switch typ {
	case 'R':
		least += 4
	case 'v', 'N', 'S':
	default:
		return nil, l.passEnd(hdr[:])
	}
	if size < least || size > maxAsk {
		return nil, l.passEnd(hdr[:])
	}
	msg := make([]byte, size)
	copy(msg, hdr[:])
	if n, err := io.ReadFull(l.server, msg[headerSize:]); err != nil {
		return nil, l.passEnd(msg[:headerSize+n])
	}
	return msg, nil
}

// passEnd passes on what was read and what postgres says until it closes the connection.
func (l *login) passEnd(read []byte) error {
	if len(read) > 0 {
		if _, err := l.client.Write(read); err != nil {
			return err
		}
	}
	if _, err := io.Copy(l.client, l.server); err != nil {
		return err
	}
	return errLoginEnded
}

// ask prepares for the answer to a request of postgres', and returns the request as the client is to see it.
func (l *login) ask(kind uint32, msg []byte) ([]byte, error) {
	if kind == authSASLFinal {
		return msg, nil // the client is told, not asked
	}
	if l.answer != nil {
		// Postgres has the answer to the request before, or it would not ask again.
		if err := <-l.answer; err != nil {
			l.answer = nil
			return nil, err
		}
	}
	l.asked, l.binds = true, false
	if postgres, ok := l.server.(*tls.Conn); ok && kind == authSASL {
		if l.st.tls() != nil {
			l.binds = !sameCertificate(l.a.client, postgres)
		} else {
			// There is nothing to bind to. To a client without TLS postgres would not have offered it.
			msg = withoutMechanism(msg, scramPlus)
		}
	}
	answer := make(chan error, 1)
	l.answer = answer
	go func() {
		err := l.s.guard(l.readAnswer)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			l.server.Close() // there will be no login
		}
		answer <- err
	}()
	return msg, nil
}

// readAnswer passes one message of the client's on.
func (l *login) readAnswer() error {
	var hdr [headerSize]byte
	if n, err := io.ReadFull(l.client, hdr[:]); err != nil {
		if n > 0 {
			return fmt.Errorf("%w: %w", errAnswerCut, err)
		}
		return err
	}
	typ, size := header(hdr[:])
	switch {
	case typ == 'X':
		return errTerminated
	case typ != 'p':
		return l.reject(&pgError{
			code: codeProtocolViolation, message: fmt.Sprintf("expected password response, got message type %d", typ),
		})
	case size < headerSize || size > maxAnswer:
		return l.reject(&pgError{code: codeProtocolViolation, message: "invalid length of an authentication message"})
	}
	msg := make([]byte, size)
	copy(msg, hdr[:])
	if _, err := io.ReadFull(l.client, msg[headerSize:]); err != nil {
		return fmt.Errorf("%w: %w", errAnswerCut, err)
	}
	if mechanism, _, _ := bytes.Cut(msg[headerSize:], []byte{0}); l.binds && string(mechanism) == scramPlus {
		l.s.log.Warn().Msg("client refused: channel binding needs the same certificate on raftproxy and on postgres")
		return l.reject(errBinding)
	}
	_, err := l.server.Write(msg)
	return err
}

var errBinding = &pgError{
	code:    codeNotAuthorized,
	message: "channel binding (SCRAM-SHA-256-PLUS) cannot work: raftproxy and postgres have different certificates",
	detail: "Both connections, from the client to raftproxy and from there to postgres, are encrypted, and the client's login " +
		"is bound to a certificate that postgres does not have.",
	hint: "Give raftproxy the certificate and key of postgres (client-tls-cert, client-tls-key), or let it reach postgres " +
		"by a unix socket or with upstream-tls=disable, or connect with channel_binding=disable.",
}

// reject tells the client why there will be no session.
func (l *login) reject(e *pgError) error {
	reject(l.client, e)
	return e
}

// admit passes AuthenticationOk on, unless postgres let in a client from the network that has shown nothing. Postgres sees
// the connection as coming from raftproxy, so a rule that trusts this machine would trust the whole network.
func (l *login) admit(msg []byte) error {
	if l.answer != nil {
		if err := l.interrupt(); err != nil {
			return err
		}
	}
	from := l.client.RemoteAddr()
	if !l.asked && !l.a.AllowTrust && !isLocal(from) && !l.certified() {
		l.s.log.Warn().Msg("client refused: postgres asked it for no credential")
		_, _ = l.server.Write([]byte{'X', 0, 0, 0, 4})
		return l.reject(&pgError{
			code:    codeNotAuthorized,
			message: fmt.Sprintf("postgres lets user %q in without a password, and raftproxy lets nobody from the network in so", l.st.user()),
			detail: "Postgres sees all clients of raftproxy as connections from raftproxy itself, so a rule in pg_hba.conf such as " +
				"trust or peer lets in whoever reaches raftproxy: here " + hostOf(from) + ".",
			hint: "Let pg_hba.conf ask for a password (scram-sha-256) where raftproxy connects from, or set " +
				"allow-trust-from-network if everybody shall come in.",
		})
	}
	_, err := l.client.Write(msg)
	return err
}

// interrupt ends the wait for an answer that postgres does not need.
func (l *login) interrupt() error {
	if err := l.client.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	err := <-l.answer
	l.answer = nil
	if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errAnswerCut)) {
		return err
	}
	return l.client.SetReadDeadline(time.Time{})
}

// certified says whether the client has shown raftproxy a certificate for the user that it wants to be, by the rule
// of PostgreSQL's method cert: the common name is the user's name.
func (l *login) certified() bool {
	secure := l.st.tls()
	if secure == nil {
		return false
	}
	cs := secure.ConnectionState()
	user := l.st.user()
	return len(cs.VerifiedChains) > 0 && user != "" && cs.PeerCertificates[0].Subject.CommonName == user
}

// withoutMechanism takes a mechanism off the list in an AuthenticationSASL message.
func withoutMechanism(msg []byte, name string) []byte {
	out := append([]byte(nil), msg[:headerSize+4]...)
	for rest := msg[headerSize+4:]; len(rest) > 0; {
		mechanism, more, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return msg
		}
		if string(mechanism) != name {
			out = append(append(out, mechanism...), 0)
		}
		rest = more
	}
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}
