package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// What the tests of TLS, access and login share.

// authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = newKey(t)
	der := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true}, a.key)
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	a.file = filepath.Join(t.TempDir(), "ca.crt")
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	a.t.Helper()
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// pair is a certificate and its key, in files and in memory.
type pair struct {
	certFile, keyFile string
	tls.Certificate
}

// issue makes a certificate with a common name, for these hosts if any are given.
func (a *authority) issue(name string, hosts ...string) pair {
	a.t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	key := newKey(a.t)
	der := a.sign(c, key)
	dir := a.t.TempDir()
	p := pair{certFile: filepath.Join(dir, "crt"), keyFile: filepath.Join(dir, "key")}
	writePEM(a.t, p.certFile, "CERTIFICATE", der)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, p.keyFile, "PRIVATE KEY", raw)
	p.Certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return p
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// clientTLS are the settings for a certificate.
func (p pair) clientTLS(mode ClientTLSMode) ClientTLS {
	return ClientTLS{Mode: mode, CertFile: p.certFile, KeyFile: p.keyFile}
}

// newTLSPostgres is a server with TLS.
func newTLSPostgres(t testing.TB, p pair, o pgtest.Options) *pgtest.Server {
	t.Helper()
	pg := pgtest.New(t, o)
	owner, err := os.Stat(pg.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	stat := owner.Sys().(*syscall.Stat_t)
	for from, to := range map[string]string{p.certFile: "server.crt", p.keyFile: "server.key"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(pg.DataDir(), to)
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(to, int(stat.Uid), int(stat.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(pg.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("\nssl = on\n")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := pg.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	return pg
}

// serveProxy serves a proxy on l until the test ends.
func serveProxy(t testing.TB, cfg Config, l net.Listener) *Server {
	t.Helper()
	if cfg.Table == nil {
		cfg.Table = newMapTable()
	}
	cfg.Logger = testLogger(t)
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv.waits(*wayFlag)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
		if err := <-done; err != ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv
}

func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// secureProxy serves a proxy with these access rules on loopback.
func secureProxy(t testing.TB, upstream string, a Access) (srv *Server, addr string) {
	t.Helper()
	l := listenLoopback(t)
	return serveProxy(t, Config{Upstream: upstream, Access: a}, l), l.Addr().String()
}

// farListener makes its clients come from another address.
type farListener struct {
	net.Listener
	from net.Addr
}

type farConn struct {
	*net.TCPConn
	from net.Addr
}

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{c.(*net.TCPConn), l.from}, nil
}

func (c farConn) RemoteAddr() net.Addr { return c.from }

// farProxy serves a proxy whose clients come from another address.
func farProxy(t testing.TB, upstream, from string, a Access) (srv *Server, addr string) {
	t.Helper()
	l := listenLoopback(t)
	far := farListener{l, &net.TCPAddr{IP: net.ParseIP(from), Port: 40000}}
	return serveProxy(t, Config{Upstream: upstream, Access: a}, far), l.Addr().String()
}

// conninfo is a connection string for the server or proxy at addr.
func conninfo(addr, password string, more ...string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres password='%s' %s", host, port, password, strings.Join(more, " "))
}

// runPsql returns what psql prints, errors included.
func runPsql(t testing.TB, conninfo, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
	defer cancel()
	cmd, err := pgtest.Psql(ctx, conninfo, "-c", sql)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out))
}

// connectPgx connects with pgx until the test ends.
func connectPgx(t testing.TB, conninfo string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, conninfo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func dialRaw(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(wireTimeout))
	return c
}

// converse writes what there is to write and reads up to an answer that begins with want; "" is the end of the connection.
func converse(t testing.TB, c net.Conn, write []byte, want string) {
	t.Helper()
	if _, err := c.Write(write); err != nil {
		t.Fatalf("write: %v", err)
	}
	if want == "" {
		if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
			t.Fatalf("got %q, %v instead of the end", b, err)
		}
		return
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// readRefusal reads to the end of the connection, and wants all parts in it.
func readRefusal(t testing.TB, c net.Conn, parts ...string) {
	t.Helper()
	got, err := io.ReadAll(c)
	for _, p := range append(parts, "SFATAL\x00") {
		if !bytes.Contains(got, []byte(p)) {
			t.Errorf("got %q, %v, without %q", got, err, p)
		}
	}
}

// fakeUpstream is a server of which every connection is handled by serve. It ends with the test.
func fakeUpstream(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l := listenLoopback(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(wireTimeout))
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

var (
	requestTLS    = sslRequest
	requestGSSENC = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}
)
