package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/cluster"
	"github.com/raftproxy/raftproxy/internal/admin"
	"github.com/raftproxy/raftproxy/internal/config"
	"github.com/raftproxy/raftproxy/internal/pgprobe"
	"github.com/raftproxy/raftproxy/proxy"
)

// adminGrace is how long requests to the admin endpoint may take after the sessions have ended.
const adminGrace = 2 * time.Second

type serveCmd struct {
	config.Settings `embed:""`
}

// Run runs a node until a signal ends it.
func (c *serveCmd) Run(s streams, args arguments) error {
	if err := check(&c.Settings); err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	n := newNode(&c.Settings, newLogger(s.err, &c.Settings))
	n.reload = func() (*config.Settings, error) { return again(args, s) }
	switch err := n.start(signals); {
	case errors.Is(err, errStopped):
		return n.closeAll()
	case err != nil:
		err = errors.Join(err, n.closeAll())
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")) // one line, whatever it is made of
	}
	return n.run(signals)
}

// errStopped means that a signal came before the node had started.
var errStopped = errors.New("stopped while starting")

// node is everything that serve puts together.
type node struct {
	settings *config.Settings
	log      zerolog.Logger
	table    atomic.Pointer[cluster.Node] // nil until the log is replayed
	proxy    *proxy.Server                // nil until then, too
	sessions func() int                   // of the proxy
	load     func() (*cluster.Node, error)
	admin    *admin.Server // nil where it is off
	clients  []net.Listener
	adminL   net.Listener
	failed   chan error // what a listener ended with
	draining atomic.Bool
	reload   func() (*config.Settings, error)
}

func newNode(s *config.Settings, log zerolog.Logger) *node {
	return &node{
		settings: s, log: log, failed: make(chan error, len(s.Listen)+1), sessions: func() int { return 0 },
		load: func() (*cluster.Node, error) {
			return cluster.Start(clusterConfig(s, log.With().Str("part", "cluster").Logger()))
		},
	}
}

// start binds all addresses before anything else, so that a node that cannot serve does not join its group. The admin
// endpoint is up while the table is loaded, which may take minutes. After an error the caller closes the node.
func (n *node) start(signals <-chan os.Signal) error {
	if err := accessRules(n.settings).Check(); err != nil {
		return fmt.Errorf("%w: correct the settings client-tls-… and upstream-tls-…", err)
	}
	if err := n.bind(); err != nil {
		return err
	}
	n.serveAdmin()
	type started struct {
		table *cluster.Node
		err   error
	}
	result := make(chan started, 1)
	go func() {
		table, err := n.load()
		result <- started{table, err}
	}()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				n.hangup()
				continue
			}
			// A start cannot be called off, but nothing that is acknowledged is lost by an end without ceremony.
			n.log.Info().Stringer("signal", sig).Msg("stopped while starting")
			return errStopped
		case err := <-n.failed:
			return err
		case r := <-result:
			if r.err != nil {
				return r.err
			}
			var err error
			n.proxy, err = proxy.New(proxyConfig(n.settings, r.table, n.log.With().Str("part", "proxy").Logger()))
			if err == nil {
				n.sessions = n.proxy.Sessions
			}
			n.table.Store(r.table)
			return err
		}
	}
}

// bind listens on all addresses.
func (n *node) bind() (err error) {
	for _, address := range n.settings.Listen {
		l, err := listen(address)
		if err != nil {
			return fmt.Errorf("listen: cannot listen for clients on %s: %w: stop what uses it or choose another address", address, cause(err))
		}
		n.clients = append(n.clients, l)
	}
	if n.settings.Admin == config.Off {
		return nil
	}
	if n.adminL, err = listen(n.settings.Admin); err != nil {
		return fmt.Errorf("admin: cannot listen on %s: %w: stop what uses it or choose another address", n.settings.Admin, cause(err))
	}
	n.admin = admin.New(n.adminOptions())
	return nil
}

// serveAdmin answers on the admin endpoint, where there is one.
func (n *node) serveAdmin() {
	if n.admin == nil {
		return
	}
	n.log.Info().Str("address", n.adminL.Addr().String()).Msg("admin endpoint is up")
	go func() {
		if err := n.admin.Serve(n.adminL); err != nil {
			n.failed <- fmt.Errorf("admin: %w", err)
		}
	}()
}

// run serves until a signal says to end, and then drains. A listener that fails ends the node with an error.
func (n *node) run(signals <-chan os.Signal) error {
	for _, l := range n.clients {
		n.log.Info().Str("address", l.Addr().String()).Str("upstream", n.settings.Upstream).Msg("listening for clients")
		go func() {
			if err := n.proxy.Serve(l); !errors.Is(err, proxy.ErrServerClosed) {
				n.failed <- fmt.Errorf("listen: %s: %w", l.Addr(), err)
			}
		}()
	}
	n.log.Info().Uint64("node_id", n.settings.NodeID).Str("version", versionText()).Int("pid", os.Getpid()).Msg("started")
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				n.hangup()
				continue
			}
			n.log.Info().Stringer("signal", sig).Int("sessions", n.proxy.Sessions()).Dur("drain_timeout_ms", n.settings.DrainTimeout).Msg("draining")
			n.drain(signals)
			err := n.closeAll()
			n.log.Info().Msg("stopped")
			return err
		case err := <-n.failed:
			return errors.Join(err, n.closeAll())
		}
	}
}

// drain lets sessions end by themselves for the drain timeout. A second SIGTERM or SIGINT cuts that short.
func (n *node) drain(signals <-chan os.Signal) {
	n.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), n.settings.DrainTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.proxy.Shutdown(ctx) }()
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				n.log.Warn().Stringer("signal", sig).Msg("closing sessions at once")
				cancel()
			}
		case err := <-done:
			if err != nil {
				n.log.Warn().Err(err).Msg("sessions were closed before they ended")
			}
			return
		}
	}
}

// closeAll ends whatever has started. It is fit for a node that has started half-way.
func (n *node) closeAll() error {
	if n.proxy != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // the time for sessions is over
		_ = n.proxy.Shutdown(ctx)
	}
	for _, l := range n.clients {
		_ = l.Close() // by now closed, unless nothing served it
	}
	if n.admin != nil {
		ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
		defer cancel()
		_ = n.admin.Shutdown(ctx)
	}
	if n.adminL != nil {
		_ = n.adminL.Close()
	}
	if table := n.table.Load(); table != nil {
		return table.Close()
	}
	return nil
}

// hangup reads the settings again and takes over what can change while the node runs.
func (n *node) hangup() {
	s, err := n.reload()
	if err != nil {
		n.log.Error().Err(err).Msg("settings were not reloaded")
		return
	}
	if err := n.setAccess(s); err != nil {
		n.log.Error().Err(err).Msg("settings were not reloaded")
		return
	}
	for _, name := range config.Changed(n.settings, s) {
		if !config.Reloadable(name) {
			n.log.Warn().Str("setting", name).Msg("changed, but only a restart brings it into effect")
		}
	}
	n.settings.Reload(s)
	setLevel(s.LogLevel)
	n.log.Info().Str("log_level", s.LogLevel).Msg("settings were reloaded")
}

// setAccess brings the access rules in s into effect, with their files as they are now. They hold for new clients.
func (n *node) setAccess(s *config.Settings) error {
	if n.proxy == nil {
		return accessRules(s).Check()
	}
	return n.proxy.SetAccess(accessRules(s))
}

// again parses the command line, the environment and the file once more.
func again(args arguments, s streams) (*config.Settings, error) {
	c, _, err := parse(args, streams{s.in, io.Discard, io.Discard}, func(int) {})
	if err != nil {
		return nil, err
	}
	return &c.Serve.Settings, check(&c.Serve.Settings)
}

// listen binds host:port or the path of a unix socket. A socket that a process left when it was killed is replaced.
func listen(address string) (net.Listener, error) {
	network := pgprobe.Network(address)
	l, err := net.Listen(network, address)
	if network != "unix" {
		return l, err
	}
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(address) {
		if err := os.Remove(address); err != nil {
			return nil, err
		}
		l, err = net.Listen(network, address)
	}
	if err != nil {
		return nil, err
	}
	// As PostgreSQL's own socket: whoever may reach it may try to log in.
	if err := os.Chmod(address, 0o777); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// abandoned says whether path is a socket on which nobody listens.
func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// cause is what the system said, without the operation and the address, which the caller names itself.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
