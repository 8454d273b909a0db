// Package pgprobe asks a PostgreSQL server whether it takes connections, as pg_isready does: it opens one, says who it
// would be and looks at the first answer. It needs no password and knows nothing about the rest of the program.
package pgprobe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

const (
	protocol30    = 3 << 16
	sslRequest    = 80877103
	cannotConnect = "57P03"
	maxAnswer     = 64 << 10
)

// Network says how an address of a setting is dialled: an absolute path is a unix socket, anything else host:port.
func Network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// Ready returns nil when the server at addr (host:port, or the absolute path of a unix socket) answers a startup
// packet with anything but "cannot connect now". That it may turn this very client away is no fault: it is up. TLS is
// used where the server offers it, without looking at the certificate, since nothing secret is sent. ctx bounds it all.
func Ready(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, Network(addr), addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := ask(ctx, conn); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("no answer from %s: %w", addr, ctx.Err())
		}
		return err
	}
	return nil
}

func ask(ctx context.Context, conn net.Conn) error {
	if _, err := conn.Write(packet(sslRequest, "")); err != nil {
		return err
	}
	var offer [1]byte
	if _, err := io.ReadFull(conn, offer[:]); err != nil {
		return unexpected(err)
	}
	switch offer[0] {
	case 'S':
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	case 'N':
	case 'E': // out of processes, or far too old for the request
		return errors.New("the server answered the connection with an error before startup")
	default:
		return fmt.Errorf("the answer %q is not PostgreSQL's", offer[0])
	}
	if _, err := conn.Write(packet(protocol30, "user\x00postgres\x00database\x00postgres\x00\x00")); err != nil {
		return err
	}
	kind, body, err := readMessage(conn)
	if err != nil {
		return unexpected(err)
	}
	// Terminate, so that a server that let us in sees an ordinary end of session.
	_, _ = conn.Write([]byte{'X', 0, 0, 0, 4})
	switch kind {
	case 'R', 'v':
		return nil
	case 'E':
		code, message := errorFields(body)
		if code == cannotConnect {
			return errors.New(message)
		}
		return nil
	default:
		return fmt.Errorf("the answer %q is not PostgreSQL's", kind)
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server closed the connection without an answer")
	}
	return err
}

func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, body...)
}

func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > maxAnswer {
		return 0, nil, fmt.Errorf("a message of %d bytes is not PostgreSQL's", n)
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// errorFields takes the SQLSTATE and the text out of an ErrorResponse body.
func errorFields(body []byte) (code, message string) {
	for len(body) > 1 {
		end := bytes.IndexByte(body, 0)
		if end < 1 {
			return code, message
		}
		switch body[0] {
		case 'C':
			code = string(body[1:end])
		case 'M':
			message = string(body[1:end])
		}
		body = body[end+1:]
	}
	return code, message
}
