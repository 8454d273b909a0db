package proxy

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

func networks(t testing.TB, texts ...string) (all []netip.Prefix) {
	t.Helper()
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestPermits(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	for _, c := range []struct {
		networks string
		from     net.Addr
		want     bool
	}{
		{"", tcp("203.0.113.1"), true},
		{"10.0.0.0/8", tcp("10.255.0.1"), true},
		{"10.0.0.0/8", tcp("::ffff:10.1.2.3"), true}, // as a listener for both families sees it
		{"::ffff:10.0.0.0/104", tcp("10.1.2.3"), true},
		{"10.0.0.0/8", tcp("11.0.0.1"), false},
		{"10.1.2.3/8", tcp("10.9.9.9"), true},
		{"10.0.0.0/8 192.0.2.7/32", tcp("192.0.2.7"), true},
		{"10.0.0.0/8 192.0.2.7/32", tcp("192.0.2.8"), false},
		{"2001:db8::/32", tcp("2001:db8::1"), true},
		{"2001:db8::/32", tcp("10.0.0.1"), false},
		{"0.0.0.0/0", tcp("2001:db8::1"), false},
		{"fe80::/10", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, true},
		{"10.0.0.0/8", tcp("127.0.0.1"), false}, // who is meant must be listed
		{"10.0.0.0/8", &net.UnixAddr{Name: "@"}, true},
		{"0.0.0.0/0 ::/0", &net.IPAddr{}, false}, // nothing that clients come by
	} {
		a, err := Access{ClientNetworks: networks(t, strings.Fields(c.networks)...)}.compile("localhost:1")
		if err != nil {
			t.Fatal(err)
		}
		if got := a.permits(c.from); got != c.want {
			t.Errorf("%v in %q: %v", c.from, c.networks, got)
		}
	}
}

func TestIsLocal(t *testing.T) {
	for ip, want := range map[string]bool{
		"127.0.0.1": true, "127.255.0.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"128.0.0.1": false, "10.0.0.1": false, "::2": false, "0.0.0.0": false, "::ffff:10.0.0.1": false,
	} {
		if got := isLocal(&net.TCPAddr{IP: net.ParseIP(ip)}); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	if !isLocal(&net.UnixAddr{}) || isLocal(&net.IPAddr{}) {
		t.Error("a unix socket, and what is no address of a client")
	}
}

// TestNetworks lets clients come from where they may and may not.
func TestNetworks(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{Auth: "md5"})
	reached := make(chan struct{}, 8)
	nobody := fakeUpstream(t, func(net.Conn) { reached <- struct{}{} })
	only := Access{ClientNetworks: networks(t, "192.0.2.0/24", "2001:db8::/32")}

	for _, from := range []string{"192.0.2.1", "2001:db8::1"} {
		_, addr := farProxy(t, pg.Addr(), from, only)
		if out := runPsql(t, conninfo(addr, pg.Password()), "SELECT 1"); out != "1" {
			t.Errorf("from %s: %q", from, out)
		}
	}
	for _, from := range []string{"192.0.3.1", "127.0.0.1"} {
		_, addr := farProxy(t, nobody, from, only)
		out := runPsql(t, conninfo(addr, pg.Password()), "SELECT 1")
		if !strings.Contains(out, "FATAL:  raftproxy accepts no connections from "+from) || !strings.Contains(out, "client-cidrs") {
			t.Errorf("from %s: %q", from, out)
		}
		c := dialRaw(t, addr)
		converse(t, c, startupPacket(3<<16), "E")
		readRefusal(t, c, "C28000\x00")
		converse(t, dialRaw(t, addr), append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancelRequest), "12345678"...), "")
	}
	select {
	case <-reached:
		t.Error("postgres was reached by a client that may not connect")
	default:
	}

	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	serveProxy(t, Config{Upstream: pg.Addr(), Access: only}, l)
	if out := runPsql(t, "host="+dir+" user=postgres dbname=postgres password='"+pg.Password()+"'", "SELECT 1"); out != "1" {
		t.Errorf("by a unix socket: %q", out)
	}
}

// TestNetworksReload changes the networks while the proxy runs.
func TestNetworksReload(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{Auth: "md5"})
	srv, addr := farProxy(t, pg.Addr(), "192.0.2.1", Access{})
	open := connectPgx(t, conninfo(addr, pg.Password(), "sslmode=disable"))
	if err := srv.SetAccess(Access{ClientNetworks: networks(t, "10.0.0.0/8")}); err != nil {
		t.Fatal(err)
	}
	if out := runPsql(t, conninfo(addr, pg.Password()), "SELECT 1"); !strings.Contains(out, "client-cidrs") {
		t.Errorf("a new client: %q", out)
	}
	if _, err := open.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the open session: %v", err)
	}
}

// TestTrust lets clients in that postgres asks for nothing, or does not.
func TestTrust(t *testing.T) {
	trusting, asking := pgtest.New(t, pgtest.Options{}), pgtest.New(t, pgtest.Options{Auth: "scram-sha-256"})
	md5, cleartext := pgtest.New(t, pgtest.Options{Auth: "md5"}), pgtest.New(t, pgtest.Options{Auth: "password"})
	ca := newAuthority(t)
	withCA := Access{ClientTLS: ca.issue("raftproxy", "127.0.0.1").clientTLS(ClientTLSAllow)}
	withCA.ClientTLS.CAFile = ca.file
	show := func(name string) string {
		p := ca.issue(name)
		return "sslmode=require sslcert=" + p.certFile + " sslkey=" + p.keyFile
	}
	const refused = "allow-trust-from-network"
	for _, c := range []struct {
		name     string
		upstream string
		from     string
		a        Access
		more     string
		want     string
	}{
		{"from this machine", trusting.Addr(), "127.0.0.1", Access{}, "", "1"},
		{"from this machine by IPv6", trusting.Addr(), "::1", Access{}, "", "1"},
		{"from the network", trusting.Addr(), "192.0.2.1", Access{}, "", refused},
		{"from the network, upstream a socket", trusting.Socket(), "2001:db8::1", Access{}, "", refused},
		{"from the network, allowed", trusting.Addr(), "192.0.2.1", Access{AllowTrust: true}, "", "1"},
		{"from the network with SCRAM", asking.Addr(), "192.0.2.1", Access{}, "", "1"},
		{"from the network with MD5", md5.Addr(), "192.0.2.1", Access{}, "", "1"},
		{"from the network with a clear password", cleartext.Addr(), "192.0.2.1", Access{}, "", "1"},
		{"TLS alone", trusting.Addr(), "192.0.2.1", withCA, "sslmode=require", refused},
		{"the user's certificate", trusting.Addr(), "192.0.2.1", withCA, show("postgres"), "1"},
		{"another user's certificate", trusting.Addr(), "192.0.2.1", withCA, show("mallory"), refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, addr := farProxy(t, c.upstream, c.from, c.a)
			out := runPsql(t, conninfo(addr, pgtest.DefaultPassword, c.more), "SELECT 1")
			if c.want == "1" && out != "1" || !strings.Contains(out, c.want) {
				t.Errorf("psql says %q, want %q", out, c.want)
			}
		})
	}
	t.Run("on the wire", func(t *testing.T) {
		// Not one byte of the session reaches the client, pipelined statements are not run, and postgres is told to end.
		_, addr := farProxy(t, trusting.Addr(), "192.0.2.1", Access{})
		c := dialRaw(t, addr)
		converse(t, c, append(startupPacket(3<<16), query("CREATE TABLE public.sneaked_in (i int)")...), "E")
		readRefusal(t, c, "C28000\x00", `user "postgres"`, "192.0.2.1", "pg_hba.conf")
		watcher := connectPgx(t, trusting.URL())
		eventually(t, "the session at postgres ends", func() bool {
			var n int
			err := watcher.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()").Scan(&n)
			return err == nil && n == 0
		})
		var none bool
		if err := watcher.QueryRow(t.Context(), "SELECT to_regclass('public.sneaked_in') IS NULL").Scan(&none); err != nil || !none {
			t.Errorf("the pipelined statement ran: %v", err)
		}
	})
}

// TestClientsInStartupAreBounded opens connections that say nothing.
func TestClientsInStartupAreBounded(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	l := listenLoopback(t)
	srv := serveProxy(t, Config{Upstream: pg.Addr(), MaxClients: 3}, l)
	addr := l.Addr().String()
	counted := func() int {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		return len(srv.conns) + len(srv.sessions)
	}
	var silent []net.Conn
	for n := range 3 {
		silent = append(silent, dialRaw(t, addr))
		eventually(t, "the connection counts", func() bool { return counted() == n+1 })
	}
	late := dialRaw(t, addr)
	converse(t, late, startupPacket(3<<16), "E")
	readRefusal(t, late, "C53300\x00")
	late.Close()
	eventually(t, "the refused one is gone", func() bool { return counted() == 3 })
	for n := range spareClients {
		silent = append(silent, dialRaw(t, addr))
		eventually(t, "the connection counts", func() bool { return counted() == 3+n+1 })
	}
	converse(t, dialRaw(t, addr), nil, "") // not even an answer
	// When one of the first goes, there is room for one.
	silent[0].Close()
	eventually(t, "room", func() bool { return counted() == 3+spareClients-1 })
	c := dialRaw(t, addr)
	converse(t, c, startupPacket(3<<16), "R")
}

// TestUser takes the user's name out of startup packets.
func TestUser(t *testing.T) {
	for body, want := range map[string]string{
		"user\x00a\x00\x00": "a", "database\x00user\x00user\x00b\x00\x00": "b", "user\x00\x00\x00": "",
		"": "", "user": "", "user\x00a": "", "\x00user\x00a\x00": "", "x\x00y\x00\x00": "",
	} {
		st := startup{raw: append(make([]byte, 8), body...)}
		if got := st.user(); got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
}

// FuzzStartup reads made-up beginnings of a connection: whatever they are, not more is read than there is to a packet.
func FuzzStartup(f *testing.F) {
	f.Add(startupPacket(3 << 16))
	f.Add(append(bytes.Clone(requestTLS), startupPacket(3<<16)...))
	f.Add(append(bytes.Clone(requestGSSENC), "\x00\x00\x00\x10\x04\xd2\x16\x2e12345678"...))
	f.Add([]byte{recordHandshake, 3, 1, 0, 0})
	f.Add([]byte{0, 0, 0, 7})
	a, err := Access{}.compile("localhost:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &byteConn{in: bytes.NewReader(b)}
		st, err := readStartup(c, a)
		if err != nil {
			return
		}
		if n := binary.BigEndian.Uint32(st.raw); int(n) != len(st.raw) || n > maxStartupPacket {
			t.Fatalf("a packet of %d bytes says %d", len(st.raw), n)
		}
		if read := len(b) - c.in.Len(); !bytes.HasSuffix(b[:read], st.raw) {
			t.Fatalf("%d bytes were read, which do not end with the packet", read)
		}
		if requests := (len(b) - c.in.Len() - len(st.raw)) / 8; c.out.String() != strings.Repeat("N", requests) {
			t.Fatalf("%d requests for encryption were answered by %q", requests, c.out.String())
		}
		_ = st.user()
	})
}
