package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/cluster"
	"github.com/raftproxy/raftproxy/internal/admin"
)

// TestWhileTheTableLoads looks at a node whose log takes long to replay: it is alive and not ready, and can be stopped.
func TestWhileTheTableLoads(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, nil} {
		socket := filepath.Join(t.TempDir(), "s")
		c, _, err := parse([]string{
			"serve", "--node-id=1", "--peers=1=127.0.0.1:1", "--data-dir=unused", "--listen=" + socket, "--admin=127.0.0.1:0",
		}, streams{nil, io.Discard, io.Discard}, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := check(&c.Serve.Settings); err != nil {
			t.Fatal(err)
		}
		n := newNode(&c.Serve.Settings, zerolog.Nop())
		loading, loaded := make(chan struct{}), make(chan error, 1)
		n.load = func() (*cluster.Node, error) {
			close(loading)
			return nil, <-loaded
		}
		signals, ended := make(chan os.Signal, 1), make(chan error, 1)
		go func() { ended <- n.start(signals) }()
		<-loading
		client := admin.NewClient(n.adminL.Addr().String())
		defer client.Close()
		r, err := client.Readiness(t.Context())
		if err != nil || r.Ready || r.Checks[1].Name != "replica" || r.Checks[1].Reason != errStarting.Error() || !r.Checks[2].OK {
			t.Errorf("readiness: %+v, %v", r, err)
		}
		_, err = client.Status(t.Context())
		var f *admin.Failure
		if !errors.As(err, &f) || f.SQLState != "55000" || f.Message != errStarting.Error() {
			t.Errorf("status: %v", err)
		}
		want := errStopped
		if sig != nil {
			signals <- sig
		} else {
			want = errors.New("the log is damaged")
			loaded <- want
		}
		select {
		case err := <-ended:
			if !errors.Is(err, want) {
				t.Errorf("start ended with %v, want %v", err, want)
			}
		case <-time.After(limit):
			t.Fatal("start does not end")
		}
		if err := n.closeAll(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
		if sig != nil {
			loaded <- nil
		}
	}
}
