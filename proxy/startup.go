package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Codes that stand in the place of a protocol version in a startup packet.
const (
	codeCancelRequest = 80877102
	codeSSLRequest    = 80877103
	codeGSSENCRequest = 80877104
)

// maxStartupPacket is PostgreSQL's own limit.
const maxStartupPacket = 10_000

// maxRequests is how many SSLRequests and GSSENCRequests a client may send before its startup packet.
const maxRequests = 4

// startup is what a client sent first.
type startup struct {
	raw       []byte // the packet as it came
	cancelKey []byte // of a CancelRequest: process number and secret key
}

var errStartup = errors.New("invalid startup packet")

// readStartup reads up to the startup packet or a CancelRequest, and declines encryption on the way. It reads not one byte
// more.
func (s *Server) readStartup(c net.Conn) (*startup, error) {
	if err := c.SetReadDeadline(time.Now().Add(s.cfg.StartupTimeout)); err != nil {
		return nil, err
	}
	for range maxRequests {
		raw, err := readStartupPacket(c)
		if err != nil {
			return nil, err
		}
		switch binary.BigEndian.Uint32(raw[4:]) {
		case codeSSLRequest, codeGSSENCRequest:
			if len(raw) != 8 {
				return nil, errStartup
			}
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case codeCancelRequest:
			// Keys are 4 bytes in protocol 3.0 and up to 256 in 3.2.
			if n := len(raw) - 12; n < 4 || n > 256 {
				return nil, errStartup
			}
			return &startup{raw: raw, cancelKey: raw[8:]}, nil
		default:
			return &startup{raw: raw}, c.SetReadDeadline(time.Time{})
		}
	}
	return nil, fmt.Errorf("%w: too many requests for encryption", errStartup)
}

func readStartupPacket(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 8 || n > maxStartupPacket {
		reject(c, &pgError{code: codeProtocolViolation, message: "invalid length of startup packet"})
		return nil, fmt.Errorf("%w: length %d", errStartup, n)
	}
	raw := make([]byte, n)
	copy(raw, size[:])
	_, err := io.ReadFull(c, raw[4:])
	return raw, err
}
