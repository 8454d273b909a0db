package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
)

// socketPairs are connections of the kinds that are watched.
func socketPairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	pairs := map[string][2]net.Conn{}
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"} {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		pairs[network] = [2]net.Conn{a, b}
	}
	return pairs
}

// TestEndBehindData has the end of a stream arrive together with data, so that nothing but the watch can tell of it.
func TestEndBehindData(t *testing.T) {
	h, err := newHangups()
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for network, pair := range socketPairs(t) {
		t.Run(network, func(t *testing.T) {
			peer, c := pair[0], pair[1]
			watch := h.watch(c)
			if watch == nil {
				t.Fatal("the connection is not watched")
			}
			defer watch.stop()
			if _, err := peer.Write([]byte("first")); err != nil {
				t.Fatal(err)
			}
			var got []byte
			done := make(chan error, 1)
			go func() {
				done <- readLoop(c, watch, func(b []byte) error {
					got = append(got, b...)
					if string(got) == "first" {
						// The reader is busy: data and end are both there when it waits again.
						if _, err := peer.Write([]byte(" and last")); err != nil {
							return err
						}
						return peer.Close()
					}
					return nil
				})
			}()
			if err := <-done; !errors.Is(err, io.EOF) || string(got) != "first and last" {
				t.Fatalf("read %q, %v", got, err)
			}
		})
	}
}
