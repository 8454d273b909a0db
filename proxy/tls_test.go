package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// seesTLS tells whether postgres' side of the session is encrypted.
const seesTLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

// TestChannelBinding is the table in docs/security.md, by psql and by pgx.
func TestChannelBinding(t *testing.T) {
	ca := newAuthority(t)
	shared, other := ca.issue("postgres", "127.0.0.1"), ca.issue("raftproxy", "127.0.0.1")
	pg := newTLSPostgres(t, shared, pgtest.Options{Auth: "scram-sha-256"})
	const (
		noTLS    = "channel binding required, but SSL not in use"
		noPlus   = "channel binding is required, but server did not offer"
		remedies = "client-tls-cert"
	)
	for _, up := range []struct {
		name, upstream string
		tls            UpstreamTLS
		cert           pair
		sees           string
		prefer, strict string // an error for a client with TLS; "" for success
	}{
		{"plain", pg.Addr(), UpstreamTLS{}, other, "f", "", noPlus},
		{"unix socket", pg.Socket(), UpstreamTLS{Mode: UpstreamTLSRequire}, other, "f", "", noPlus},
		{"TLS with the same certificate", pg.Addr(), UpstreamTLS{Mode: UpstreamTLSRequire}, shared, "t", "", ""},
		{"TLS with another certificate", pg.Addr(), UpstreamTLS{Mode: UpstreamTLSRequire}, other, "t", remedies, remedies},
	} {
		_, addr := secureProxy(t, up.upstream, Access{ClientTLS: up.cert.clientTLS(ClientTLSAllow), UpstreamTLS: up.tls})
		for _, c := range []struct{ sslmode, binding, want string }{
			{"disable", "disable", ""},
			{"disable", "prefer", ""},
			{"disable", "require", noTLS},
			{"require", "disable", ""},
			{"require", "prefer", up.prefer},
			{"require", "require", up.strict},
		} {
			t.Run(up.name+"/"+c.sslmode+"/"+c.binding, func(t *testing.T) {
				out := runPsql(t, conninfo(addr, pg.Password(), "sslmode="+c.sslmode, "channel_binding="+c.binding), seesTLS)
				if c.want == "" && out != up.sees || !strings.Contains(out, c.want) {
					t.Errorf("psql says %q, want %q", out, c.want+up.sees)
				}
				err := tryPgx(t, conninfo(addr, pg.Password(), "sslmode="+c.sslmode, "channel_binding="+c.binding))
				var pgErr *pgconn.PgError
				if (err == nil) != (c.want == "") || c.want == remedies && (!errors.As(err, &pgErr) || !strings.Contains(pgErr.Hint, remedies)) {
					t.Errorf("pgx says %v, want %q", err, c.want)
				}
			})
		}
	}
}

// tryPgx connects with pgx, and disconnects.
func tryPgx(t *testing.T, conninfo string) error {
	c, err := pgx.Connect(t.Context(), conninfo)
	if err == nil {
		err = c.Close(t.Context())
	}
	return err
}

// TestClientTLSModes connects psql in all of its ways.
func TestClientTLSModes(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{Auth: "scram-sha-256"})
	ca := newAuthority(t)
	cert := ca.issue("raftproxy", "127.0.0.1")
	const noTLS, onlyTLS = "server does not support SSL", "raftproxy accepts connections with TLS only"
	for _, c := range []struct {
		mode    ClientTLSMode
		sslmode string
		want    string
	}{
		{ClientTLSOff, "disable", "1"},
		{ClientTLSOff, "prefer", "1"},
		{ClientTLSOff, "require", noTLS},
		{ClientTLSAllow, "disable", "1"},
		{ClientTLSAllow, "prefer", "1"},
		{ClientTLSAllow, "require", "1"},
		{ClientTLSAllow, "verify-full sslrootcert=" + ca.file, "1"},
		{ClientTLSAllow, "verify-full sslrootcert=" + newAuthority(t).file, "certificate verify failed"},
		{ClientTLSRequire, "disable", onlyTLS},
		{ClientTLSRequire, "allow", "1"}, // plain at first, and TLS when that is refused
		{ClientTLSRequire, "prefer", "1"},
		{ClientTLSRequire, "verify-full gssencmode=prefer sslrootcert=" + ca.file, "1"},
	} {
		t.Run(string(c.mode)+"/"+strings.Fields(c.sslmode)[0], func(t *testing.T) {
			a := Access{ClientTLS: cert.clientTLS(c.mode)}
			_, addr := secureProxy(t, pg.Addr(), a)
			if out := runPsql(t, conninfo(addr, pg.Password(), "sslmode="+c.sslmode), "SELECT 1"); !strings.Contains(out, c.want) {
				t.Errorf("psql says %q, want %q", out, c.want)
			}
		})
	}
	t.Run("unix socket", func(t *testing.T) {
		dir := t.TempDir()
		l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
		if err != nil {
			t.Fatal(err)
		}
		serveProxy(t, Config{Upstream: pg.Addr(), Access: Access{ClientTLS: cert.clientTLS(ClientTLSRequire)}}, l)
		out := runPsql(t, "host="+dir+" port=5432 user=postgres dbname=postgres sslmode=require password='"+pg.Password()+"'", "SELECT 1")
		if out != "1" {
			t.Errorf("psql says %q", out)
		}
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wireTimeout))
		converse(t, c, requestTLS, "N")
		converse(t, c, startupPacket(3<<16), "R")
	})
}

// TestTLSStartup plays the forms in which TLS begins, and those in which it must not.
func TestTLSStartup(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	ca := newAuthority(t)
	on := Access{ClientTLS: ca.issue("raftproxy", "127.0.0.1").clientTLS(ClientTLSAllow)}
	_, addr := secureProxy(t, pg.Addr(), on)
	_, plain := secureProxy(t, pg.Addr(), Access{})
	config := func(protocols ...string) *tls.Config {
		return &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1", NextProtos: protocols}
	}
	const ok = "R\x00\x00\x00\x08\x00\x00\x00\x00"

	t.Run("asked for", func(t *testing.T) {
		c := dialRaw(t, addr)
		converse(t, c, requestTLS, "S")
		converse(t, tls.Client(c, config()), startupPacket(3<<16), ok)
	})
	t.Run("asked for in single bytes, after encryption of another kind", func(t *testing.T) {
		c := dialRaw(t, addr)
		for _, b := range requestGSSENC[:7] {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		converse(t, c, requestGSSENC[7:], "N")
		converse(t, c, requestTLS, "S")
		converse(t, tls.Client(c, config("postgresql")), startupPacket(3<<16), ok)
	})
	t.Run("declined, then plain", func(t *testing.T) {
		c := dialRaw(t, plain)
		converse(t, c, requestGSSENC, "N")
		converse(t, c, requestTLS, "N")
		converse(t, c, startupPacket(3<<16), ok)
	})
	t.Run("direct", func(t *testing.T) {
		converse(t, tls.Client(dialRaw(t, addr), config("postgresql")), startupPacket(3<<16), ok)
	})
	t.Run("direct without a protocol's name", func(t *testing.T) {
		c := tls.Client(dialRaw(t, addr), config())
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
			t.Fatalf("got %q, %v", b, err)
		}
	})
	t.Run("of another protocol", func(t *testing.T) {
		for _, direct := range []bool{true, false} {
			c := dialRaw(t, addr)
			if !direct {
				converse(t, c, requestTLS, "S")
			}
			if err := tls.Client(c, config("h2", "http/1.1")).Handshake(); err == nil || !strings.Contains(err.Error(), "no application protocol") {
				t.Errorf("direct %v: %v", direct, err)
			}
		}
	})
	t.Run("direct where there is none", func(t *testing.T) {
		if err := tls.Client(dialRaw(t, plain), config("postgresql")).Handshake(); err == nil {
			t.Error("a handshake")
		}
	})
	t.Run("twice", func(t *testing.T) {
		for _, request := range [][]byte{requestTLS, requestGSSENC} {
			c := dialRaw(t, addr)
			converse(t, c, requestTLS, "S")
			secure := tls.Client(c, config())
			converse(t, secure, request, "E")
			readRefusal(t, secure, "C0A000\x00")
		}
	})
	t.Run("too old", func(t *testing.T) {
		c := dialRaw(t, addr)
		converse(t, c, requestTLS, "S")
		old := config()
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if err := tls.Client(c, old).Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
			t.Errorf("a handshake with TLS 1.1 ends with %v", err)
		}
	})
	t.Run("1.2", func(t *testing.T) {
		c := dialRaw(t, addr)
		converse(t, c, requestTLS, "S")
		lowest := config()
		lowest.MaxVersion = tls.VersionTLS12
		converse(t, tls.Client(c, lowest), startupPacket(3<<16), ok)
	})
	t.Run("never finished", func(t *testing.T) {
		l := listenLoopback(t)
		serveProxy(t, Config{Upstream: pg.Addr(), Access: on, StartupTimeout: 100 * time.Millisecond}, l)
		c := dialRaw(t, l.Addr().String())
		converse(t, c, requestTLS, "S")
		converse(t, c, []byte{recordHandshake, 3}, "")
	})
}

// TestNothingIsStuffedIn sends plain text behind the request for TLS, in one piece with it, as somebody on the way could. It
// must not count as the client's: no session comes of it, neither in plain text nor inside of TLS.
func TestNothingIsStuffedIn(t *testing.T) {
	ca := newAuthority(t)
	reached := make(chan struct{}, 1)
	upstream := fakeUpstream(t, func(net.Conn) { reached <- struct{}{} })
	srv, addr := secureProxy(t, upstream, Access{ClientTLS: ca.issue("raftproxy", "127.0.0.1").clientTLS(ClientTLSAllow)})
	for name, stuffed := range map[string][]byte{
		"startup packet": startupPacket(3 << 16),
		"request":        requestTLS,
		"query":          query("SELECT 1"),
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, addr)
			converse(t, c, join(requestTLS, stuffed), "S")
			secure := tls.Client(c, &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"})
			converse(t, secure, nil, "E")
			readRefusal(t, secure, "C08P01\x00", "received unencrypted data")
			eventually(t, "the connection ends", func() bool {
				srv.mu.Lock()
				defer srv.mu.Unlock()
				return len(srv.conns)+len(srv.sessions) == 0
			})
			select {
			case <-reached:
				t.Error("postgres was reached")
			default:
			}
		})
	}
}

// TestClientCertificates shows the proxy certificates of all kinds.
func TestClientCertificates(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	ca := newAuthority(t)
	access := Access{ClientTLS: ca.issue("raftproxy", "127.0.0.1").clientTLS(ClientTLSRequire)}
	access.ClientTLS.CAFile = ca.file
	_, addr := secureProxy(t, pg.Addr(), access)
	known, unknown := ca.issue("postgres"), newAuthority(t).issue("postgres")
	show := func(p pair) string { return " sslcert=" + p.certFile + " sslkey=" + p.keyFile }
	for _, c := range []struct{ name, show, want string }{
		{"none", "", "1"},
		{"of the authority", show(known), "1"},
		{"of another authority", show(unknown), "unknown ca"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := runPsql(t, conninfo(addr, "", "sslmode=verify-full", "sslrootcert="+ca.file, c.show), "SELECT 1")
			if c.want == "1" && out != "1" || !strings.Contains(out, c.want) {
				t.Errorf("psql says %q, want %q", out, c.want)
			}
		})
	}
}

// TestCertificateRenewal changes the certificate under an open session.
func TestCertificateRenewal(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	before, after := newAuthority(t), newAuthority(t)
	cert := before.issue("raftproxy", "127.0.0.1")
	access := Access{ClientTLS: cert.clientTLS(ClientTLSRequire)}
	srv, addr := secureProxy(t, pg.Addr(), access)
	trusting := func(a *authority) string { return conninfo(addr, "", "sslmode=verify-full", "sslrootcert="+a.file) }
	open := connectPgx(t, trusting(before))
	works := func() {
		t.Helper()
		if _, err := open.Exec(t.Context(), "SELECT raftable('k', 'v')"); err != nil {
			t.Errorf("the open session: %v", err)
		}
	}
	works()

	// The same files with another content.
	renewed := after.issue("raftproxy", "127.0.0.1")
	for from, to := range map[string]string{renewed.certFile: cert.certFile, renewed.keyFile: cert.keyFile} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	connectPgx(t, trusting(before)) // nothing is read without being told
	if err := srv.SetAccess(access); err != nil {
		t.Fatal(err)
	}
	works()
	connectPgx(t, trusting(after))

	if err := os.WriteFile(cert.keyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := srv.SetAccess(access); err == nil {
		t.Error("a broken key was taken")
	}
	works()
	connectPgx(t, trusting(after))
}

// TestUpstreamTLS connects to a server with TLS and to one without, in all modes.
func TestUpstreamTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	named := newTLSPostgres(t, ca.issue("postgres", "127.0.0.1"), pgtest.Options{})
	elsewhere := newTLSPostgres(t, ca.issue("postgres", "db.example"), pgtest.Options{})
	plain := pgtest.New(t, pgtest.Options{})
	const noTLS, unknown, wrongName = "postgres has no TLS", "certificate signed by unknown authority", "cannot validate certificate"
	for _, c := range []struct {
		name string
		pg   *pgtest.Server
		tls  UpstreamTLS
		want string
	}{
		{"disable", named, UpstreamTLS{Mode: UpstreamTLSDisable}, "f"},
		{"prefer", named, UpstreamTLS{Mode: UpstreamTLSPrefer}, "t"},
		{"prefer without", plain, UpstreamTLS{Mode: UpstreamTLSPrefer}, "f"},
		{"require", named, UpstreamTLS{Mode: UpstreamTLSRequire}, "t"},
		{"require without", plain, UpstreamTLS{Mode: UpstreamTLSRequire}, noTLS},
		{"require with an authority", named, UpstreamTLS{Mode: UpstreamTLSRequire, CAFile: stranger.file}, unknown},
		{"verify-ca", elsewhere, UpstreamTLS{Mode: UpstreamTLSVerifyCA, CAFile: ca.file}, "t"},
		{"verify-ca of another", named, UpstreamTLS{Mode: UpstreamTLSVerifyCA, CAFile: stranger.file}, unknown},
		{"verify-full", named, UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file}, "t"},
		{"verify-full of another host", elsewhere, UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file}, wrongName},
		{"verify-full of another authority", named, UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: stranger.file}, unknown},
		{"verify-full without", plain, UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file}, noTLS},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, addr := secureProxy(t, c.pg.Addr(), Access{UpstreamTLS: c.tls})
			out := runPsql(t, conninfo(addr, "", "sslmode=disable"), seesTLS)
			if len(c.want) == 1 && out != c.want || !strings.Contains(out, c.want) {
				t.Errorf("psql says %q, want %q", out, c.want)
			}
			if len(c.want) > 1 && !strings.Contains(out, "upstream-tls") {
				t.Errorf("psql says %q, without the name of the setting", out)
			}
		})
	}
	t.Run("preferred and failing", func(t *testing.T) {
		// A server that says yes to TLS and then has none is used in plain text.
		requests := 0
		upstream := fakeUpstream(t, func(c net.Conn) {
			first := make([]byte, 8)
			if _, err := io.ReadFull(c, first); err != nil {
				return
			}
			if requests++; requests == 1 && bytes.Equal(first, requestTLS) {
				_, _ = c.Write([]byte("Sorry, no TLS after all"))
				return
			}
			_, _ = c.Write((&pgError{code: "57P03", message: "reached in plain text"}).append(nil, "FATAL"))
		})
		_, addr := secureProxy(t, upstream, Access{UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSPrefer}})
		c := dialRaw(t, addr)
		converse(t, c, startupPacket(3<<16), "E")
		readRefusal(t, c, "reached in plain text")
	})
}

// TestCancelOverTLS cancels a statement with TLS on both sides.
func TestCancelOverTLS(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("both", "127.0.0.1")
	pg := newTLSPostgres(t, cert, pgtest.Options{})
	_, addr := secureProxy(t, pg.Addr(), Access{
		ClientTLS: cert.clientTLS(ClientTLSRequire), UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file},
	})
	config := &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1", NextProtos: []string{"postgresql"}}
	for name, dial := range map[string]func(t *testing.T) net.Conn{
		"TLS":   func(t *testing.T) net.Conn { return tls.Client(dialRaw(t, addr), config) },
		"plain": func(t *testing.T) net.Conn { return dialRaw(t, addr) },
	} {
		t.Run(name, func(t *testing.T) {
			victim := connectPgx(t, conninfo(addr, "", "sslmode=require"))
			failed := make(chan error, 1)
			go func() {
				_, err := victim.Exec(context.Background(), "SELECT pg_sleep(1000)")
				failed <- err
			}()
			watcher := connectPgx(t, pg.URL())
			eventually(t, "the statement runs", func() bool {
				var n int
				err := watcher.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'").Scan(&n)
				return err == nil && n == 1
			})
			c := dial(t)
			request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancelRequest)
			request = binary.BigEndian.AppendUint32(request, victim.PgConn().PID())
			request = append(request, victim.PgConn().SecretKey()...)
			converse(t, c, request, "")
			if err := <-failed; err == nil || !strings.Contains(err.Error(), "57014") {
				t.Errorf("the statement ended with %v", err)
			}
		})
	}
}

// TestCancelGoesTheSameWay looks at how postgres gets a cancel request where there is TLS to it.
func TestCancelGoesTheSameWay(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("postgres", "127.0.0.1")
	key := []byte("a key of protocol 3.2 that has many bytes")
	got := make(chan []byte, 1)
	upstream := fakeUpstream(t, func(c net.Conn) {
		first := make([]byte, 8)
		if _, err := io.ReadFull(c, first); err != nil || !bytes.Equal(first, requestTLS) {
			got <- first
			return
		}
		_, _ = c.Write([]byte{'S'})
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert.Certificate}})
		b := make([]byte, 8+len(key))
		_, _ = io.ReadFull(secure, b)
		got <- b
		_ = secure.Close()
	})
	_, addr := secureProxy(t, upstream, Access{UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file}})
	request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, byte(8 + len(key))}, codeCancelRequest)
	request = append(request, key...)
	converse(t, dialRaw(t, addr), request, "")
	if b := <-got; !bytes.Equal(b, request) {
		t.Errorf("postgres got %q", b)
	}
}

// TestLargeValuesOverTLS sends what is larger than every buffer through TLS on both sides, local and forwarded, and ends by
// closing one direction only.
func TestLargeValuesOverTLS(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("both", "127.0.0.1")
	pg := newTLSPostgres(t, cert, pgtest.Options{})
	_, addr := secureProxy(t, pg.Addr(), Access{
		ClientTLS: cert.clientTLS(ClientTLSRequire), UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSRequire},
	})
	c := connectPgx(t, conninfo(addr, "", "sslmode=require"))
	for _, size := range []int{0, 1, 1 << 14, 1<<16 - 1, 1 << 20, 5 << 20} {
		value := strings.Repeat("x", size)
		var echo, local string
		if err := c.QueryRow(t.Context(), "SELECT $1::text", value).Scan(&echo); err != nil || echo != value {
			t.Fatalf("%d bytes by the server: %d, %v", size, len(echo), err)
		}
		if size > 1<<20 {
			continue
		}
		if _, err := c.Exec(t.Context(), "SELECT raftable('k', $1)", value); err != nil {
			t.Fatal(err)
		}
		if err := c.QueryRow(t.Context(), "SELECT raftable('k')").Scan(&local); err != nil || local != value {
			t.Fatalf("%d bytes by the table: %d, %v", size, len(local), err)
		}
	}

	raw := dialRaw(t, addr)
	converse(t, raw, requestTLS, "S")
	half := tls.Client(raw, &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"})
	if _, err := half.Write(append(startupPacket(3<<16), query("SELECT 'last words'")...)); err != nil {
		t.Fatal(err)
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(half); err != nil || !bytes.Contains(b, []byte("last words")) {
		t.Errorf("after the end of one direction: %q, %v", b, err)
	}
}

// TestFaultyAccess gives rules with files that are none.
func TestFaultyAccess(t *testing.T) {
	ca := newAuthority(t)
	cert, other := ca.issue("raftproxy", "127.0.0.1"), ca.issue("raftproxy", "127.0.0.1")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		a    Access
		want string
	}{
		{"no certificate", Access{ClientTLS: ClientTLS{Mode: ClientTLSAllow}}, "TLS to clients: open : no such file"},
		{"key of another", Access{ClientTLS: ClientTLS{Mode: ClientTLSAllow, CertFile: cert.certFile, KeyFile: other.keyFile}}, "private key does not match"},
		{"no authority", Access{ClientTLS: ClientTLS{Mode: ClientTLSAllow, CertFile: cert.certFile, KeyFile: cert.keyFile, CAFile: empty}}, "no certificate in it"},
		{"client mode", Access{ClientTLS: ClientTLS{Mode: "on"}}, `mode "on" is not known`},
		{"upstream mode", Access{UpstreamTLS: UpstreamTLS{Mode: "allow"}}, `TLS to postgres: mode "allow" is not known`},
		{"upstream authority", Access{UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: "/nonexistent"}}, "TLS to postgres: open /nonexistent"},
		{"verify-ca", Access{UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSVerifyCA}}, "verify-ca needs"},
		{"upstream key", Access{UpstreamTLS: UpstreamTLS{Mode: UpstreamTLSPrefer, CertFile: cert.certFile}}, "TLS to postgres"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.a.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Check: %v, want %q", err, c.want)
			}
			if _, err := New(Config{Upstream: "127.0.0.1:1", Table: newMapTable(), Access: c.a}); err == nil {
				t.Error("New takes it")
			}
		})
	}
}

// TestVerifyChain takes a certificate by way of one between it and the authority.
func TestVerifyChain(t *testing.T) {
	root := newAuthority(t)
	between := &authority{t: t, key: newKey(t)}
	der := root.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true}, between.key)
	between.cert, _ = x509.ParseCertificate(der)
	leaf, err := x509.ParseCertificate(between.issue("leaf").Certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf, between.cert}}
	if err := verifyChain(state, root.pool); err != nil {
		t.Errorf("by way of another: %v", err)
	}
	state.PeerCertificates = state.PeerCertificates[:1]
	var unknown x509.UnknownAuthorityError
	if err := verifyChain(state, root.pool); !errors.As(err, &unknown) {
		t.Errorf("without it: %v", err)
	}
}
