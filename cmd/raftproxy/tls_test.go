package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/raftproxy/raftproxy/internal/group"
	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// writeCertificate puts a certificate for 127.0.0.1 that has no authority but itself, and its key, into dir.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: serial.String()}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: cert}, "key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCertificateRenewal gives a running node a new certificate, and then a broken one.
func TestCertificateRenewal(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir)
	g := newGroup(t, group.Options{Nodes: 1, Args: func(*group.Node) []string {
		return []string{"--client-tls=require", "--client-tls-cert=" + filepath.Join(dir, "crt"), "--client-tls-key=" + filepath.Join(dir, "key")}
	}})
	n := g.Nodes()[0]
	trusting := func() string { // the certificate that is in the file now
		b, err := os.ReadFile(filepath.Join(dir, "crt"))
		if err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(t.TempDir(), "root.crt")
		if err := os.WriteFile(root, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return strings.Replace(pgtest.URL(n.Listen, n.Postgres.Password()), "sslmode=disable", "sslmode=verify-full&sslrootcert="+root, 1)
	}
	hangup := func(want string) {
		t.Helper()
		before := strings.Count(n.Log(), want)
		if err := n.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "reload", func() error {
			if strings.Count(n.Log(), want) == before {
				return fmt.Errorf("the log has no new line %q", want)
			}
			return nil
		})
	}
	if _, err := psql(t.Context(), n.URL(), "select 1"); err == nil || !strings.Contains(err.Error(), "with TLS only") {
		t.Errorf("without TLS: %v", err)
	}
	old := trusting()
	open, err := pgx.Connect(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close(t.Context()) }()

	writeCertificate(t, dir)
	hangup("settings were reloaded")
	renewed := trusting()
	mustPsql(t, renewed, "select raftable('k', 'v')")
	if _, err := psql(t.Context(), old, "select 1"); err == nil || !strings.Contains(err.Error(), "certificate verify failed") {
		t.Errorf("the old certificate is still in use: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup("settings were not reloaded")
	mustPsql(t, renewed, "select raftable('k')")
	var v string
	if err := open.QueryRow(t.Context(), "select raftable('k')").Scan(&v); err != nil || v != "v" {
		t.Errorf("the session that was open all the time: %q, %v", v, err)
	}
}

// TestAccessOfANode runs into the settings that say who may connect, and changes them.
func TestAccessOfANode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("client-cidrs: [192.0.2.0/24, 2001:db8::/32]\n")
	g := newGroup(t, group.Options{Nodes: 1, Args: func(*group.Node) []string { return []string{"--config", file} }})
	n := g.Nodes()[0]
	if _, err := psql(t.Context(), n.URL(), "select 1"); err == nil || !strings.Contains(err.Error(), "client-cidrs") {
		t.Errorf("from a network that is not listed: %v", err)
	}
	write("client-cidrs: [192.0.2.0/24, 127.0.0.1]\n")
	if err := n.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitForOutput(t, n.URL(), "select 1", "1")
}

// TestStartWithoutItsCertificate says in one line what is missing.
func TestStartWithoutItsCertificate(t *testing.T) {
	dir := t.TempDir()
	r := runProgram(t, nil, "serve", "--node-id=1", "--peers=1=127.0.0.1:1", "--data-dir="+filepath.Join(dir, "data"), "--admin=off",
		"--listen="+filepath.Join(dir, "s"), "--client-tls=allow", "--client-tls-cert=/nonexistent/crt", "--client-tls-key=/nonexistent/key")
	r.check(t, 1, "", "TLS to clients: open /nonexistent/crt: no such file or directory")
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("it made its data directory all the same")
	}
}
