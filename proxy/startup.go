package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Codes that stand in the place of a protocol version in a startup packet.
const (
	codeCancelRequest = 80877102
	codeSSLRequest    = 80877103
	codeGSSENCRequest = 80877104
)

// maxStartupPacket is PostgreSQL's own limit: the length itself does not count.
const maxStartupPacket = 4 + 10_000

// maxRequests is how many SSLRequests and GSSENCRequests a client may send before its startup packet.
const maxRequests = 4

// recordHandshake is the first byte of a TLS handshake. As the first byte of a startup packet it would be that of a length
// far beyond the limit.
const recordHandshake = 0x16

// startup is what a client sent first.
type startup struct {
	conn      net.Conn // to go on with: the client's, with TLS where it asked for it and gets it
	raw       []byte   // the packet as it came
	cancelKey []byte   // of a CancelRequest: process number and secret key
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
	for n := 0; err == nil; n++ {
		switch binary.BigEndian.Uint32(st.raw[4:]) {
		case codeSSLRequest, codeGSSENCRequest:
			if n == maxRequests {
				return st, fmt.Errorf("%w: too many requests for encryption", errStartup)
			}
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

// answerRequest answers a request for encryption: TLS where it can be had, the other kind never.
func (st *startup) answerRequest(a *access) error {
	if len(st.raw) != 8 {
		return errStartup
	}
	if st.tls() != nil {
		reject(st.conn, &pgError{code: codeProtocolViolation, message: "a connection with TLS cannot be encrypted once more"})
		return errStartup
	}
	wantsTLS := binary.BigEndian.Uint32(st.raw[4:]) == codeSSLRequest
	if !wantsTLS || a.client == nil || isUnix(st.conn.RemoteAddr()) {
		_, err := st.conn.Write([]byte{'N'})
		return err
	}
	if _, err := st.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return st.encrypt(a, false)
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
