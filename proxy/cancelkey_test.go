package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// keyServer is a scripted server that gives its sessions cancel keys of any length, as protocol 3.2 allows, and hands on the
// cancel requests that it gets.
type keyServer struct {
	key []byte // the secret, without the process number
	tls *tls.Config
	got chan []byte
}

const keyServerPid = 4242

func (k *keyServer) serve(c net.Conn) {
	var err error
	raw := make([]byte, 8)
	if _, err = io.ReadFull(c, raw); err != nil {
		return
	}
	if k.tls != nil {
		if !bytes.Equal(raw, requestTLS) {
			k.got <- []byte("a connection without TLS")
			return
		}
		_, _ = c.Write([]byte{'S'})
		c = tls.Server(c, k.tls)
		defer c.Close()
		if _, err = io.ReadFull(c, raw); err != nil {
			return
		}
	}
	rest := make([]byte, int(binary.BigEndian.Uint32(raw))-len(raw))
	if _, err = io.ReadFull(c, rest); err != nil {
		return
	}
	if binary.BigEndian.Uint32(raw[4:]) == codeCancelRequest {
		k.got <- rest
		return
	}
	b := []byte("R\x00\x00\x00\x08\x00\x00\x00\x00")
	data := append(binary.BigEndian.AppendUint32(nil, keyServerPid), k.key...)
	b = append(append(b, rawMessage('K', string(data))...), 'Z', 0, 0, 0, 5, 'I')
	if _, err = c.Write(b); err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}

// TestCancelKeysOfAllLengths gives sessions keys from 4 bytes, which protocol 3.0 has, to the 256 that 3.2 allows. Each finds the
// set that waits, and reaches the server with all its bytes when nothing waits.
func TestCancelKeysOfAllLengths(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue("both", "127.0.0.1")
	for _, secure := range []bool{false, true} {
		for _, size := range []int{4, 5, 32, 255, 256} {
			t.Run(fmt.Sprintf("TLS %v, %d bytes", secure, size), func(t *testing.T) {
				k := &keyServer{key: bytes.Repeat([]byte{0, 'k', 0xff, '\n'}, 64)[:size], got: make(chan []byte, 1)}
				to, access := wireTarget{}, Access{}
				if secure {
					k.tls = &tls.Config{Certificates: []tls.Certificate{cert.Certificate}}
					access.ClientTLS = cert.clientTLS(ClientTLSRequire)
					access.UpstreamTLS = UpstreamTLS{Mode: UpstreamTLSVerifyFull, CAFile: ca.file}
					to.tls = &tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"}
				}
				k.cancels(t, to, access)
			})
		}
	}
}

func (k *keyServer) cancels(t *testing.T, to wireTarget, access Access) {
	l := listenLoopback(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); k.serve(c) }()
		}
	}()
	t.Cleanup(func() { l.Close() })
	table := newMapTable()
	waiting := make(chan struct{}, 1)
	table.block = func(ctx context.Context) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return &mapError{code: "57014", message: "canceling statement due to user request"}
	}
	_, to.addr = startProxy(t, Config{Upstream: l.Addr().String(), Table: table, Access: access})
	w := to.connect(t)
	w.send(startWire(3<<16 | 2))
	w.begin()
	want := append(binary.BigEndian.AppendUint32(nil, keyServerPid), k.key...)
	if !bytes.Equal(w.key, want) {
		t.Fatalf("the client has the key %q, want %q", w.key, want)
	}

	// A key with the last byte changed is somebody else's: it must reach the server and not the set that waits.
	w.send(query("SELECT raftable('k', 'v')"))
	<-waiting
	other := bytes.Clone(w.key)
	other[len(other)-1]++
	for _, key := range [][]byte{other, w.key[:len(w.key)-1]} {
		if len(key) < 8 {
			continue
		}
		to.cancel(t, key)
		if got := <-k.got; !bytes.Equal(got, key) {
			t.Errorf("the server got the key %q, want %q", got, key)
		}
	}
	to.cancel(t, w.key)
	if got := strings.Join(w.run(&script{lines: []string{"> wait 3"}}), "\n"); !strings.Contains(got, `C="57014"`) {
		t.Fatalf("the set ended with %s", got)
	}
	if len(k.got) > 0 {
		t.Errorf("the server got a request that was for a set: %q", <-k.got)
	}

	// Nothing waits any more: the request is the server's.
	to.cancel(t, w.key)
	if got := <-k.got; !bytes.Equal(got, w.key) {
		t.Errorf("the server got the key %q, want %q", got, w.key)
	}
}

// TestCancelKeysOfNoLength sends keys that no version of the protocol has: none reaches the server.
func TestCancelKeysOfNoLength(t *testing.T) {
	reached := make(chan struct{}, 9)
	upstream := fakeUpstream(t, func(net.Conn) { reached <- struct{}{} })
	_, addr := startProxy(t, Config{Upstream: upstream, Table: newMapTable()})
	for _, size := range []int{0, 1, 3, 257, 1000} {
		cancelRequest(t, addr, make([]byte, 4+size))
	}
	if len(reached) > 0 {
		t.Error("a key of no length has reached the server")
	}
}
