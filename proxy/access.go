package proxy

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Access says who may connect and how both connections are protected. The zero value: everybody may, nothing is
// encrypted, and a client from the network needs a credential.
type Access struct {
	ClientTLS   ClientTLS
	UpstreamTLS UpstreamTLS
	// ClientNetworks are the networks that clients may connect from; none means all. Unix sockets are not asked.
	ClientNetworks []netip.Prefix
	// AllowTrust lets clients in from the network that postgres asks for no credential, see login.admit.
	AllowTrust bool
}

// Check says what is wrong with a, such as a file that cannot be read or a key that is another certificate's.
func (a Access) Check() error {
	_, err := a.compile("localhost:1")
	return err
}

// access is an Access with its files read. It never changes.
type access struct {
	Access
	client   *tls.Config // nil: clients get no TLS
	upstream *tls.Config // nil: none to postgres
}

// compile reads the files. upstream is postgres' address, of which a certificate may have to carry the name.
func (a Access) compile(upstream string) (*access, error) {
	c := &access{Access: a}
	c.ClientNetworks = slices.Clone(a.ClientNetworks)
	for i, n := range c.ClientNetworks {
		c.ClientNetworks[i] = unmap(n)
	}
	var err error
	if c.client, err = a.ClientTLS.config(); err != nil {
		return nil, fmt.Errorf("TLS to clients: %w", err)
	}
	if c.upstream, err = a.UpstreamTLS.config(upstream); err != nil {
		return nil, fmt.Errorf("TLS to postgres: %w", err)
	}
	return c, nil
}

// SetAccess puts a in the place of the access rules in effect, with the files read anew. It holds for clients that connect
// from now on; sessions stay as they are. After an error the old rules stay.
func (s *Server) SetAccess(a Access) error {
	c, err := a.compile(s.cfg.Upstream)
	if err != nil {
		return err
	}
	s.access.Store(c)
	return nil
}

// permits says whether a client may connect from its address.
func (a *access) permits(from net.Addr) bool {
	if isUnix(from) || len(a.ClientNetworks) == 0 {
		return true
	}
	ip := ipOf(from)
	return slices.ContainsFunc(a.ClientNetworks, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// ipOf is the address of a TCP peer, an IPv4 one as such; the zero Addr, which is in no network, of any other peer.
func ipOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		// A zone names an interface of this machine. No network has one.
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// unmap writes a network of IPv4 addresses in IPv6 form as one of IPv4.
func unmap(n netip.Prefix) netip.Prefix {
	if n.Addr().Is4In6() && n.Bits() >= 96 {
		return netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n
}

func isUnix(a net.Addr) bool {
	_, ok := a.(*net.UnixAddr)
	return ok
}

// isLocal says whether a client is on this machine.
func isLocal(a net.Addr) bool { return isUnix(a) || ipOf(a).IsLoopback() }

// admission says why a client may have no session, nil if it may.
func (a *access) admission(c net.Conn, encrypted bool) *pgError {
	from := c.RemoteAddr()
	switch {
	case !a.permits(from):
		return &pgError{
			code:    codeNotAuthorized,
			message: "raftproxy accepts no connections from " + hostOf(from),
			hint:    "The client-cidrs setting of raftproxy lists the networks that clients may connect from.",
		}
	case a.ClientTLS.Mode == ClientTLSRequire && !encrypted && !isUnix(from):
		return &pgError{
			code:    codeNotAuthorized,
			message: "raftproxy accepts connections with TLS only",
			detail:  "The client-tls setting of raftproxy is require, and this client did not ask for TLS.",
			hint:    "Connect with sslmode=require or a stronger one.",
		}
	}
	return nil
}

// hostOf is a peer's address without its port.
func hostOf(a net.Addr) string {
	if ip := ipOf(a); ip.IsValid() {
		return ip.String()
	}
	return a.String()
}
