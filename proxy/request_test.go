package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// encryptionRequests are ways to ask for encryption: each step is one write, after the answer to the one before.
var encryptionRequests = []struct {
	name  string
	steps [][]byte
	// What PostgreSQL answers, with TLS and without: N and S to a request, R for a session, or an SQLSTATE.
	withTLS, without string
}{
	{"plain", [][]byte{startupPacket(3 << 16)}, "R", "R"},
	{"TLS", [][]byte{requestTLS, startupPacket(3 << 16)}, "S R", "N R"},
	{"GSS", [][]byte{requestGSSENC, startupPacket(3 << 16)}, "N R", "N R"},
	{"GSS, TLS", [][]byte{requestGSSENC, requestTLS, startupPacket(3 << 16)}, "N S R", "N N R"},
	{"TLS, GSS", [][]byte{requestTLS, requestGSSENC, startupPacket(3 << 16)}, "S 0A000", "N N R"},
	{"TLS, GSS, TLS", [][]byte{requestTLS, requestGSSENC, requestTLS, startupPacket(3 << 16)}, "S 0A000", "N N 0A000"},
	{"TLS twice", [][]byte{requestTLS, requestTLS, startupPacket(3 << 16)}, "S 0A000", "N 0A000"},
	{"GSS twice", [][]byte{requestGSSENC, requestGSSENC, startupPacket(3 << 16)}, "N 0A000", "N 0A000"},
	{"a startup packet behind TLS", [][]byte{join(requestTLS, startupPacket(3<<16)), nil}, "S 08P01", "N 08P01"},
	{"a byte behind TLS", [][]byte{join(requestTLS, []byte{0}), startupPacket(3 << 16)}, "S 08P01", "N 08P01"},
	{"GSS behind TLS", [][]byte{join(requestTLS, requestGSSENC), nil}, "S 08P01", "N 08P01"},
	{"TLS behind GSS", [][]byte{join(requestGSSENC, requestTLS), nil}, "N 08P01", "N 08P01"},
	{"a startup packet behind GSS", [][]byte{join(requestGSSENC, startupPacket(3<<16)), nil}, "N 08P01", "N 08P01"},
	{"a startup packet behind GSS and TLS", [][]byte{requestGSSENC, join(requestTLS, startupPacket(3<<16)), nil}, "N S 08P01", "N N 08P01"},
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestEncryptionRequests plays how clients ask for encryption, and must not, to PostgreSQL and to the proxy.
func TestEncryptionRequests(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("both", "127.0.0.1")
	plain := pgtest.New(t, pgtest.Options{})
	// Over TCP a PostgreSQL that knows GSSAPI goes on with that; over a unix socket it declines both kinds.
	secure := newTLSPostgres(t, cert, pgtest.Options{})
	_, plainProxy := secureProxy(t, plain.Addr(), Access{})
	_, secureProxy := secureProxy(t, plain.Addr(), Access{ClientTLS: cert.clientTLS(ClientTLSAllow)})
	config := &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"}
	for _, c := range encryptionRequests {
		for _, to := range []struct{ name, addr, want string }{
			{"PostgreSQL", plain.Socket(), c.without},
			{"PostgreSQL with TLS", secure.Addr(), c.withTLS},
			{"raftproxy", plainProxy, c.without},
			{"raftproxy with TLS", secureProxy, c.withTLS},
		} {
			if to.addr == secure.Addr() && bytes.HasPrefix(c.steps[0], requestGSSENC) {
				continue
			}
			t.Run(c.name+"/"+to.name, func(t *testing.T) {
				if got := requestEncryption(t, to.addr, config, c.steps); got != to.want {
					t.Errorf("%s, want %s", got, to.want)
				}
			})
		}
	}
}

// requestEncryption says what is answered to the steps.
func requestEncryption(t *testing.T, addr string, config *tls.Config, steps [][]byte) (said string) {
	t.Helper()
	c := wireTarget{addr: addr}.connect(t).c
	for _, step := range steps {
		// Who has refused what came before may have gone; what was said is there to be read.
		if _, err := c.Write(step); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("after %q: %v", said, err)
		}
		var answer [1]byte
		if _, err := io.ReadFull(c, answer[:]); err != nil {
			t.Fatalf("after %q: %v", said, err)
		}
		if said != "" {
			said += " "
		}
		switch answer[0] {
		case 'E':
			b, _ := io.ReadAll(c)
			_, b, _ = bytes.Cut(b, []byte("\x00C"))
			code, _, _ := bytes.Cut(b, []byte{0})
			return said + string(code)
		case 'S':
			c = tls.Client(c, config)
		}
		said += string(answer[:])
	}
	return said
}
