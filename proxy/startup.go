package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Codes that stand in the place of a protocol version in a startup packet.
const (
	codeCancelRequest = 80877102
	codeSSLRequest    = 80877103
	codeGSSENCRequest = 80877104
)

// maxStartupPacket is PostgreSQL's own limit: the length itself does not count.
const maxStartupPacket = 4 + 10_000

// maxAhead is how much of what a client sends ahead of our answer to a request for encryption is taken off the connection;
// PostgreSQL's own receive buffer has this size.
const maxAhead = 8 << 10

// recordHandshake is the first byte of a TLS handshake. As the first byte of a startup packet it would be that of a length
// far beyond the limit.
const recordHandshake = 0x16

// startup is what a client sent first.
type startup struct {
	conn      net.Conn // to go on with: the client's, with TLS where it asked for it and gets it
	raw       []byte   // the packet as it came
	cancelKey []byte   // of a CancelRequest: process number and secret key
	asked     []uint32 // the kinds of encryption that the client has asked for
}

var errStartup = errors.New("invalid startup packet")

// readStartup reads up to the startup packet or a CancelRequest, and settles encryption on the way. It reads not one byte
// more. The caller has set a deadline. st.conn is what the client can be told on, also after an error.
func readStartup(c net.Conn, a *access) (st *startup, err error) {
	st = &startup{conn: c}
	err = st.readPacket()
	if errors.Is(err, errDirectTLS) {
		if err = st.encrypt(a, true); err == nil {
			err = st.readPacket()
		}
	}
	for err == nil {
		switch binary.BigEndian.Uint32(st.raw[4:]) {
		case codeSSLRequest, codeGSSENCRequest:
			if err = st.answerRequest(a); err == nil {
				err = st.readPacket()
			}
		case codeCancelRequest:
			// Keys are 4 bytes in protocol 3.0 and up to 256 in 3.2.
			if n := len(st.raw) - 12; n < 4 || n > 256 {
				return st, errStartup
			}
			st.cancelKey = st.raw[8:]
			return st, nil
		default:
			return st, nil
		}
	}
	return st, err
}

// answerRequest answers a request for encryption: TLS where it can be had, the other kind never. As in PostgreSQL, a client
// may ask for each kind once, may not after it got one, and must not send anything before it has our answer: somebody
// between could have put that there, for us to take for the client's own.
func (st *startup) answerRequest(a *access) error {
	if len(st.raw) != 8 {
		return errStartup
	}
	kind := binary.BigEndian.Uint32(st.raw[4:])
	if st.tls() != nil || slices.Contains(st.asked, kind) {
		reject(st.conn, &pgError{
			code:    codeFeatureNotSupported,
			message: fmt.Sprintf("unsupported frontend protocol %d.%d", kind>>16, kind&0xffff),
			detail:  "It is a request for encryption, which raftproxy has answered before.",
		})
		return fmt.Errorf("%w: encryption is asked for once more", errStartup)
	}
	st.asked = append(st.asked, kind)
	ahead, err := st.takeAhead()
	if err != nil {
		return err
	}
	if kind != codeSSLRequest || a.client == nil || isUnix(st.conn.RemoteAddr()) {
		_, err = st.conn.Write([]byte{'N'})
	} else if _, err = st.conn.Write([]byte{'S'}); err == nil {
		err = st.encrypt(a, false)
	}
	if err == nil && ahead {
		e := errAhead
		if kind == codeGSSENCRequest {
			e.message = "received unencrypted data after GSSAPI encryption request"
		}
		reject(st.conn, &e)
		return fmt.Errorf("%w: unencrypted data behind a request for encryption", errStartup)
	}
	return err
}

// errAhead is PostgreSQL's own, with TLS.
var errAhead = pgError{
	code:    codeProtocolViolation,
	message: "received unencrypted data after SSL request",
	detail:  "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
}

// takeAhead takes off what the client has sent already, so that nothing of it can get into the handshake or be taken for a
// startup packet, and says whether there was any.
func (st *startup) takeAhead() (ahead bool, err error) {
	socket, ok := st.conn.(syscall.Conn)
	if !ok {
		return false, nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	buf := make([]byte, maxAhead)
	n := 0
	if err := raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT) }); err != nil {
		return false, err
	}
	return n > 0, nil
}

// encrypt goes on with TLS. direct: the handshake has begun with what raw holds.
func (st *startup) encrypt(a *access, direct bool) error {
	if a.client == nil || isUnix(st.conn.RemoteAddr()) {
		return fmt.Errorf("%w: TLS, which clients do not get here", errStartup)
	}
	under := st.conn
	if direct {
		under = &unread{Conn: under, data: st.raw}
	}
	secure, err := acceptTLS(under, a.client, direct)
	if err == nil {
		st.conn = secure
	}
	return err
}

// tls is the connection if it is encrypted, or nil.
func (st *startup) tls() *tls.Conn {
	secure, _ := st.conn.(*tls.Conn)
	return secure
}

// errDirectTLS is that a client began with a TLS handshake. raw holds what was read of it.
var errDirectTLS = fmt.Errorf("%w: it is a TLS handshake", errStartup)

// readPacket reads one packet into raw.
func (st *startup) readPacket() error {
	size := make([]byte, 4)
	if _, err := io.ReadFull(st.conn, size); err != nil {
		return err
	}
	if size[0] == recordHandshake && st.tls() == nil {
		st.raw = size
		return errDirectTLS
	}
	n := binary.BigEndian.Uint32(size)
	if n < 8 || n > maxStartupPacket {
		reject(st.conn, &pgError{code: codeProtocolViolation, message: "invalid length of startup packet"})
		return fmt.Errorf("%w: length %d", errStartup, n)
	}
	st.raw = make([]byte, n)
	copy(st.raw, size)
	_, err := io.ReadFull(st.conn, st.raw[4:])
	return err
}

// user is the name in the startup packet, or "".
func (st *startup) user() string { return st.parameter("user") }

// physicalReplication says whether the connection is one for physical replication.
func (st *startup) physicalReplication() bool {
	switch v := st.parameter("replication"); strings.ToLower(v) {
	case "", "database", "0", "f", "fa", "fal", "fals", "false", "n", "no", "of", "off":
		return false
	}
	return true
}

// parameter is a value in the startup packet, or "".
func (st *startup) parameter(key string) string {
	for rest := st.raw[8:]; ; {
		name, more, ok := bytes.Cut(rest, []byte{0})
		value, after, ok2 := bytes.Cut(more, []byte{0})
		if !ok || !ok2 || len(name) == 0 {
			return ""
		}
		if string(name) == key {
			return string(value)
		}
		rest = after
	}
}
