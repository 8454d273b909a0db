// Command idle measures what an idle session costs raftproxy in memory: it opens many sessions to a server of its own that
// answers nothing but the startup, and compares the process's resident memory before and after.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	program  = flag.String("raftproxy", "bin/raftproxy", "the binary to measure")
	sessions = flag.Int("sessions", 5000, "how many sessions")
)

func main() {
	flag.Parse()
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("idle: ", err)
	}
}

func run() error {
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "idle")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "server")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	go serve(l)
	client := filepath.Join(dir, "client")
	raft, err := freePort()
	if err != nil {
		return err
	}
	admin, err := freePort()
	if err != nil {
		return err
	}
	cmd := exec.Command(*program, "serve", "--node-id", "1", "--listen", client, "--upstream", socket,
		"--raft-address", raft, "--peers", "1="+raft, "--data-dir", filepath.Join(dir, "data"),
		"--shm-path", filepath.Join(dir, "table"), "--admin", admin, "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	first, err := connect(client)
	if err != nil {
		return err
	}
	defer first.Close()
	before := resident(cmd.Process.Pid)
	for range *sessions {
		c, err := connect(client)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	after := resident(cmd.Process.Pid)
	fmt.Printf("%d idle sessions: %d KiB before, %d KiB after, %.1f KiB each\n", *sessions, before, after, float64(after-before)/float64(*sessions))
	return nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// serve lets everybody in.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			var size [4]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(size[:]))-4); err != nil {
				return
			}
			_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x01Z\x00\x00\x00\x05I"))
			_, _ = io.Copy(io.Discard, c)
		}()
	}
}

// connect opens a session and waits until it is ready.
func connect(path string) (net.Conn, error) {
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			b := append([]byte{0, 0, 0, 0, 0, 3, 0, 0}, "user\x00u\x00\x00"...)
			binary.BigEndian.PutUint32(b, uint32(len(b)))
			if _, err = c.Write(b); err == nil {
				_, err = io.ReadFull(c, make([]byte, 9+13+6))
			}
			if err == nil {
				return c, nil
			}
			c.Close()
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond) // the pace of the polling
	}
}

// resident is a process's resident memory in KiB.
func resident(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, _ := strconv.Atoi(strings.Fields(rest)[0])
	return n
}
