package pgprobe

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func message(kind byte, body string) string {
	return string(kind) + string(binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))) + body
}

// server answers the SSLRequest with offer and the startup packet with answer; an empty one closes the connection.
func server(t *testing.T, l net.Listener, offer, answer string) {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		for _, say := range []string{offer, answer} {
			var head [4]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				return
			}
			n := int64(binary.BigEndian.Uint32(head[:])) - 4
			if _, err := io.CopyN(io.Discard, conn, n); err != nil || say == "" {
				return
			}
			if say == "silence" {
				_, _ = io.Copy(io.Discard, conn)
				return
			}
			if _, err := io.WriteString(conn, say); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, conn)
	}()
}

func TestReady(t *testing.T) {
	for _, tc := range []struct {
		name, offer, answer string
		want                string // part of the error; empty: ready
	}{
		{"asks for a password", "N", message('R', "\x00\x00\x00\x0a"), ""},
		{"turns this client away", "N", message('E', "SFATAL\x00C28000\x00Mno entry\x00\x00"), ""},
		{"negotiates the version first", "N", message('v', "\x00\x00\x00\x00\x00\x00\x00\x00"), ""},
		{"is starting up", "N", message('E', "SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"), "starting up"},
		{"closes at once", "", "", "without an answer"},
		{"closes after the offer", "N", "", "without an answer"},
		{"has no process left", "E", "", "before startup"},
		{"speaks HTTP", "H", "", "not PostgreSQL"},
		{"answers nonsense", "N", message('Z', "I"), "not PostgreSQL"},
		{"answers a huge message", "N", "R\x7f\xff\xff\xff", "not PostgreSQL"},
		{"answers a truncated error", "N", message('E', "C57P03"), ""},
		{"says nothing", "silence", "", "no answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server(t, l, tc.offer, tc.answer)
			limit := 20 * time.Second
			if tc.offer == "silence" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			err = Ready(ctx, l.Addr().String())
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Fatalf("Ready: %v, want %q", err, tc.want)
			}
		})
	}
}

func TestReadyUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := Ready(context.Background(), path); err == nil {
		t.Fatal("a socket that is not there is ready")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server(t, l, "N", message('R', "\x00\x00\x00\x00"))
	if err := Ready(context.Background(), path); err != nil {
		t.Fatal(err)
	}
}
