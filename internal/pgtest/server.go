// Package pgtest runs throw-away PostgreSQL servers, for tests and for the demo. A server lives in a temporary
// directory, listens on loopback and on a unix socket, and cannot outlive the process that started it. The package
// knows nothing about proxies or tables, and its core does not need the testing package.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/raftproxy/raftproxy/internal/child"
	"github.com/raftproxy/raftproxy/internal/pgprobe"
)

// Superuser and DefaultDatabase are what every server has; DefaultPassword is the superuser's unless Options say else.
const (
	Superuser       = "postgres"
	DefaultDatabase = "postgres"
	DefaultPassword = "raftproxy test"
)

const (
	startLimit  = 60 * time.Second // to answer after the start, with a machine that is busy
	stopGrace   = 20 * time.Second // for an orderly end
	portTries   = 10
	pollEvery   = 10 * time.Millisecond
	logTailSize = 4 << 10
)

// Options of a server. The zero value is a server that trusts everybody.
type Options struct {
	Auth      string   // how clients prove who they are: trust (default), md5, scram-sha-256, or another word of pg_hba.conf
	Password  string   // of the superuser; default DefaultPassword
	Config    []string // lines for postgresql.conf, after ours
	Initdb    []string // further arguments of initdb, such as "--encoding=EUC_JP"
	Dir       string   // where to put the server's directory; default: the place for temporary files
	Templates string   // where data directories made by initdb are kept to be copied; default: a shared place there
}

// Server is one PostgreSQL server. Its methods are safe for concurrent use.
type Server struct {
	dir      string // holds everything; removed by Close
	bin      string
	acc      account
	port     int
	password string

	mu     sync.Mutex // held over starts and ends
	proc   *child.Process
	closed bool
}

// Start makes a server and waits until it takes connections. The caller must Close it.
func Start(ctx context.Context, o Options) (*Server, error) {
	bin, err := BinDir()
	if err != nil {
		return nil, err
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	dir, err := acc.tempDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin, acc: acc, password: o.Password}
	if s.password == "" {
		s.password = DefaultPassword
	}
	if err := s.create(o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.firstRun(ctx); err != nil {
		err = fmt.Errorf("%w\n%s", err, s.LogTail())
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// create lays out the directory: data from the template, the socket's place and the configuration.
func (s *Server) create(o Options) error {
	auth := o.Auth
	if auth == "" {
		auth = "trust"
	}
	if o.Templates == "" {
		o.Templates = defaultTemplates(s.acc)
	}
	args := append([]string{"--auth", auth, "--encoding=UTF8", "--locale=C"}, o.Initdb...)
	from, err := template(s.acc, o.Templates, s.bin, s.password, args)
	if err != nil {
		return err
	}
	if err := copyTree(from, s.DataDir()); err != nil {
		return err
	}
	if err := s.acc.mkdir(s.SocketDir()); err != nil {
		return err
	}
	if err := os.Chmod(s.SocketDir(), 0o755); err != nil {
		return err
	}
	return s.configure(o.Config)
}

// configure appends to postgresql.conf. Nothing here outlives a server that is killed: dynamic shared memory is kept in
// the data directory and not in /dev/shm. There is no fsync, since what must survive here is a crash of the server only.
func (s *Server) configure(more []string) error {
	lines := append([]string{
		"listen_addresses = '127.0.0.1'",
		"unix_socket_directories = '" + s.SocketDir() + "'",
		"dynamic_shared_memory_type = mmap",
		"shared_buffers = 16MB",
		"fsync = off",
		"synchronous_commit = off",
		"full_page_writes = off",
		"autovacuum = off",
		"log_line_prefix = '%m [%p] %q%u@%d '",
	}, more...)
	f, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + strings.Join(lines, "\n") + "\n")
	return errors.Join(err, f.Close())
}

// firstRun starts the server on a port from the kernel, and on another one when somebody else takes that in between.
func (s *Server) firstRun(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 1; ; try++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.port = port
		err = s.run(ctx)
		if err == nil || try == portTries || !strings.Contains(s.LogTail(), "could not create any TCP/IP sockets") {
			return err
		}
	}
}

// run starts the server on s.port and waits until it takes connections on both of its addresses.
func (s *Server) run(ctx context.Context) error {
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := s.acc.command(s.dir, filepath.Join(s.bin, "postgres"), "-D", s.DataDir(), "-p", strconv.Itoa(s.port))
	cmd.Stdout, cmd.Stderr = log, log
	// SIGQUIT makes the server end its own children and give its shared memory back at once.
	if s.proc, err = child.Start(cmd, syscall.SIGQUIT); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, addr := range []string{s.Socket(), s.Addr()} {
		for {
			err := pgprobe.Ready(ctx, addr)
			if err == nil && s.proc.Running() {
				break
			}
			select {
			case <-s.proc.Done():
				return fmt.Errorf("postgres ended at its start: %v", s.proc.Wait())
			case <-ctx.Done():
				return fmt.Errorf("postgres took no connection at %s in time: %w", addr, err)
			case <-time.After(pollEvery):
			}
		}
	}
	return nil
}

// Port is the TCP port on 127.0.0.1. It stays the same over Stop, Kill and Restart.
func (s *Server) Port() int { return s.port }

// Addr is 127.0.0.1:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// SocketDir is what libpq wants as a host for the unix socket.
func (s *Server) SocketDir() string { return filepath.Join(s.dir, "s") }

// Socket is the path of the unix socket.
func (s *Server) Socket() string {
	return filepath.Join(s.SocketDir(), ".s.PGSQL."+strconv.Itoa(s.port))
}

// DataDir is the data directory; pg_hba.conf and the like are in it.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// LogFile is where the server writes its log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "log") }

// Password is the superuser's.
func (s *Server) Password() string { return s.password }

// Pid is the process id of the postmaster of the latest start.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.Pid()
}

// Done is closed when the postmaster of the latest start has ended.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.Done()
}

// URL connects the superuser over TCP.
func (s *Server) URL() string { return URL(s.Addr(), s.password) }

// URL is a connection string of the superuser for the server, or the proxy, at addr (host:port).
func URL(addr, password string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(Superuser, password), Host: addr, Path: "/" + DefaultDatabase,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// LogTail is the end of the server's log, to be shown when something went wrong.
func (s *Server) LogTail() string {
	f, err := os.Open(s.LogFile())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	size := min(info.Size(), logTailSize)
	b := make([]byte, size)
	n, _ := f.ReadAt(b, info.Size()-size)
	return string(b[:n])
}

// Stop ends the server in order, throwing its clients out. A stopped server stays stopped without an error.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Server) stop() error {
	if s.proc == nil {
		return nil
	}
	return s.proc.Stop(syscall.SIGINT, stopGrace)
}

// Kill ends the server and all its processes by SIGKILL, as a crash would.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.Running() {
		return nil
	}
	children := childrenOf(s.proc.Pid())
	err := s.proc.Kill()
	for _, pid := range children {
		// Each has a process group of its own, which the kill of the postmaster's did not reach.
		err = errors.Join(err, killAndWait(pid))
	}
	return err
}

// Restart stops the server where it runs, and starts it again on its old addresses.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("the server is closed")
	}
	if err := s.stop(); err != nil {
		return err
	}
	return s.run(ctx)
}

// Close ends the server and removes all it left. Closing twice does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.stop()
	removeInterlock(s.DataDir())
	return errors.Join(err, os.RemoveAll(s.dir))
}

// freePort asks the kernel for a port that nobody listens on. Somebody may before the caller does.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
