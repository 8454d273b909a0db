package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// alpnProtocol is what PostgreSQL's protocol is called in the TLS handshake.
const alpnProtocol = "postgresql"

// ClientTLSMode says whether clients get TLS. It concerns TCP only: as with PostgreSQL there is none on unix sockets.
type ClientTLSMode string

// The modes. No mode at all is ClientTLSOff.
const (
	ClientTLSOff     ClientTLSMode = "off"
	ClientTLSAllow   ClientTLSMode = "allow"   // those that ask for it
	ClientTLSRequire ClientTLSMode = "require" // those without it are refused, cancel requests aside
)

// ClientTLS is how connections of clients are encrypted.
type ClientTLS struct {
	Mode ClientTLSMode
	// CertFile and KeyFile are raftproxy's certificate, with those between it and the authority after it, and its key.
	CertFile, KeyFile string
	// CAFile is the authorities of which a client may have a certificate. A client that sends another one is turned away;
	// one that sends none is not. Empty: clients are asked for none.
	CAFile string
}

// UpstreamTLSMode is libpq's sslmode, for the connections to postgres. It concerns TCP only.
type UpstreamTLSMode string

// The modes. No mode at all is UpstreamTLSDisable.
const (
	UpstreamTLSDisable    UpstreamTLSMode = "disable"
	UpstreamTLSPrefer     UpstreamTLSMode = "prefer"      // where postgres has it
	UpstreamTLSRequire    UpstreamTLSMode = "require"     // always, whatever the certificate; with a CAFile as verify-ca
	UpstreamTLSVerifyCA   UpstreamTLSMode = "verify-ca"   // the certificate comes from an authority in CAFile
	UpstreamTLSVerifyFull UpstreamTLSMode = "verify-full" // and is for the host that Upstream names
)

// UpstreamTLS is how the connections to postgres are encrypted.
type UpstreamTLS struct {
	Mode UpstreamTLSMode
	// CAFile is the authorities that postgres' certificate may come from. Empty: for verify-full those of the system.
	CAFile string
	// CertFile and KeyFile are a certificate to show to postgres; empty: none.
	CertFile, KeyFile string
}

// config is nil where clients get no TLS.
func (t ClientTLS) config() (*tls.Config, error) {
	switch t.Mode {
	case "", ClientTLSOff:
		return nil, nil
	case ClientTLSAllow, ClientTLSRequire:
	default:
		return nil, fmt.Errorf("mode %q is not known", t.Mode)
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{alpnProtocol},
		// Sessions are long, so resuming would gain nothing, and a client would keep the rights of a certificate of old.
		SessionTicketsDisabled: true,
	}
	if t.CAFile != "" {
		c.ClientAuth = tls.VerifyClientCertIfGiven
		if c.ClientCAs, err = loadCAs(t.CAFile); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// config is nil where there is no TLS to postgres.
func (t UpstreamTLS) config(upstream string) (*tls.Config, error) {
	mode := t.Mode
	if mode == UpstreamTLSRequire && t.CAFile != "" {
		mode = UpstreamTLSVerifyCA // as libpq does
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{alpnProtocol}}
	switch mode {
	case "", UpstreamTLSDisable:
		return nil, nil
	case UpstreamTLSPrefer, UpstreamTLSRequire:
		c.InsecureSkipVerify = true // what these modes mean
	case UpstreamTLSVerifyCA:
		if t.CAFile == "" {
			return nil, errors.New("verify-ca needs a file of authorities")
		}
		c.InsecureSkipVerify = true // the name is not looked at; the chain is, below
		c.VerifyConnection = func(cs tls.ConnectionState) error { return verifyChain(cs, c.RootCAs) }
	case UpstreamTLSVerifyFull:
	default:
		return nil, fmt.Errorf("mode %q is not known", t.Mode)
	}
	var err error
	if t.CAFile != "" {
		if c.RootCAs, err = loadCAs(t.CAFile); err != nil {
			return nil, err
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{cert}
	}
	if host, _, err := net.SplitHostPort(upstream); err == nil {
		c.ServerName = host
	}
	return c, nil
}

func verifyChain(cs tls.ConnectionState, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, cert := range cs.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}

func loadCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return pool, nil
}

// acceptTLS does the handshake with a client. It reads the socket itself, so what a client (or somebody between) sent
// ahead of its handshake, and takeAhead has left, is taken for a part of that, and never for a startup packet. direct says
// that the client began with TLS, without asking; it must then say which protocol it means, so that it cannot be led here by
// mistake.
func acceptTLS(c net.Conn, config *tls.Config, direct bool) (*tls.Conn, error) {
	secure := tls.Server(c, config)
	if err := secure.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	if direct && secure.ConnectionState().NegotiatedProtocol != alpnProtocol {
		_ = secure.Close()
		return nil, errors.New("TLS handshake: a client that begins with TLS must name the protocol " + alpnProtocol + " in it (ALPN)")
	}
	return secure, nil
}

// unread is a connection of which something was read that is to be read again.
type unread struct {
	net.Conn
	data []byte
}

func (u *unread) Read(p []byte) (int, error) {
	if len(u.data) == 0 {
		return u.Conn.Read(p)
	}
	n := copy(p, u.data)
	u.data = u.data[n:]
	return n, nil
}

// upstreamTLSError is that postgres runs but TLS with it fails.
type upstreamTLSError struct{ err error }

func (e *upstreamTLSError) Error() string { return e.err.Error() }
func (e *upstreamTLSError) Unwrap() error { return e.err }

var errNoTLS = errors.New("postgres has no TLS, which the upstream-tls setting asks for")

// dial connects to postgres, for a session or for a cancel request. All that it takes, TLS and a second attempt without
// it included, ends at the deadline.
func (s *Server) dial(deadline time.Time) (net.Conn, error) {
	a := s.access.Load()
	c, err := s.dialPlain(deadline)
	if err != nil || a.upstream == nil || s.network == "unix" {
		return c, err
	}
	prefer := a.UpstreamTLS.Mode == UpstreamTLSPrefer
	secure, err := s.requestTLS(c, a.upstream, deadline)
	switch {
	case err == nil:
		return secure, nil
	case prefer && errors.Is(err, errNoTLS):
		return c, nil
	}
	_ = c.Close()
	var failed *upstreamTLSError
	if prefer && errors.As(err, &failed) {
		return s.dialPlain(deadline)
	}
	return nil, err
}

func (s *Server) dialPlain(deadline time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: deadline, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive}}
	return d.DialContext(s.ctx, s.network, s.cfg.Upstream)
}

// requestTLS asks postgres for TLS on a new connection. After errNoTLS the connection can be used as it is.
func (s *Server) requestTLS(c net.Conn, config *tls.Config, deadline time.Time) (*tls.Conn, error) {
	defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := c.Write(sslRequest); err != nil {
		return nil, err
	}
	// Exactly one byte: what follows belongs to the handshake.
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return nil, err
	}
	switch answer[0] {
	case 'S':
		secure := tls.Client(c, config)
		if err := secure.Handshake(); err != nil {
			return nil, &upstreamTLSError{fmt.Errorf("TLS handshake with postgres: %w", err)}
		}
		return secure, c.SetDeadline(time.Time{})
	case 'N':
		return nil, errors.Join(&upstreamTLSError{errNoTLS}, c.SetDeadline(time.Time{}))
	}
	return nil, errors.New("postgres answered a request for TLS with an error")
}

var sslRequest = []byte{0, 0, 0, 8, codeSSLRequest >> 24, codeSSLRequest >> 16 & 0xff, codeSSLRequest >> 8 & 0xff, codeSSLRequest & 0xff}

// sameCertificate says whether the certificate that a client was shown is the one that postgres shows.
func sameCertificate(shown *tls.Config, postgres *tls.Conn) bool {
	return bytes.Equal(shown.Certificates[0].Certificate[0], postgres.ConnectionState().PeerCertificates[0].Raw)
}
