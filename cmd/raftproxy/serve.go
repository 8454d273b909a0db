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
	n, err := startNode(&c.Settings, newLogger(s.err, &c.Settings))
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")) // one line, whatever it is made of
	}
	n.reload = func() (*config.Settings, error) { return again(args, s) }
	return n.run(signals)
}

// node is a running node: everything that serve has put together.
type node struct {
	settings *config.Settings
	log      zerolog.Logger
	table    *cluster.Node
	proxy    *proxy.Server
	admin    *admin.Server // nil where it is off
	clients  []net.Listener
	adminL   net.Listener
	failed   chan error // what a listener ended with
	draining atomic.Bool
	reload   func() (*config.Settings, error)
}

// startNode binds all addresses before anything else starts, so that a node that cannot serve does not join its group.
func startNode(s *config.Settings, log zerolog.Logger) (n *node, err error) {
	n = &node{settings: s, log: log, failed: make(chan error, len(s.Listen)+1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closeAll())
		}
	}()
	for _, address := range s.Listen {
		l, err := listen(address)
		if err != nil {
			return n, fmt.Errorf("listen: cannot listen for clients on %s: %w: stop what uses it or choose another address", address, cause(err))
		}
		n.clients = append(n.clients, l)
	}
	if s.Admin != config.Off {
		if n.adminL, err = listen(s.Admin); err != nil {
			return n, fmt.Errorf("admin: cannot listen on %s: %w: stop what uses it or choose another address", s.Admin, cause(err))
		}
	}
	if n.table, err = cluster.Start(clusterConfig(s, log.With().Str("component", "cluster").Logger())); err != nil {
		return n, err
	}
	if n.proxy, err = proxy.New(proxyConfig(s, n.table, log.With().Str("component", "proxy").Logger())); err != nil {
		return n, err
	}
	if n.adminL != nil {
		n.admin = admin.New(n.adminOptions())
	}
	return n, nil
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
	if n.admin != nil {
		n.log.Info().Str("address", n.adminL.Addr().String()).Msg("admin endpoint is up")
		go func() {
			if err := n.admin.Serve(n.adminL); err != nil {
				n.failed <- fmt.Errorf("admin: %w", err)
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
	if n.table != nil {
		return n.table.Close()
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
	for _, name := range config.Changed(n.settings, s) {
		if !config.Reloadable(name) {
			n.log.Warn().Str("setting", name).Msg("changed, but only a restart brings it into effect")
		}
	}
	n.settings.LogLevel = s.LogLevel
	setLevel(s.LogLevel)
	n.log.Info().Str("log_level", s.LogLevel).Msg("settings were reloaded")
}

// again parses the command line, the environment and the file once more.
func again(args arguments, s streams) (*config.Settings, error) {
	c, _, err := parse(args, streams{s.in, io.Discard, io.Discard}, func(int) {})
	if err != nil {
		return nil, err
	}
	return &c.Serve.Settings, check(&c.Serve.Settings)
}

// adminOptions connects the endpoint to the parts of the node.
func (n *node) adminOptions() admin.Options {
	return admin.Options{
		Table:  n.table,
		Status: func() admin.Status { return status(n.table.Status(), n.proxy.Sessions()) },
		Checks: []admin.Check{
			{Name: "postgres", Probe: func(ctx context.Context) error { return pgprobe.Ready(ctx, n.settings.Upstream) }},
			{Name: "replica", Probe: func(context.Context) error { return n.table.Ready() }},
			{Name: "serving", Probe: func(context.Context) error {
				if n.draining.Load() {
					return errors.New("the node is shutting down")
				}
				return nil
			}},
		},
		MaxValueSize: int64(n.settings.MaxValueSize),
		Timeout:      n.settings.SetTimeout,
		Linearizable: n.settings.Consistency == "linearizable",
		Logger:       n.log.With().Str("component", "admin").Logger(),
	}
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
