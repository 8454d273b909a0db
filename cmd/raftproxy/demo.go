package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/raftproxy/raftproxy/internal/demo"
)

type demoCmd struct {
	Nodes int `name:"nodes" default:"3" help:"How many nodes, 1 to 9."`
}

// Run runs the demo with this very program as its nodes.
func (c *demoCmd) Run(s streams) error {
	if c.Nodes < 1 || c.Nodes > demo.MaxNodes {
		return &usageError{[]string{"nodes: the demo runs 1 to 9 nodes: choose a number from 1 to 9"}}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return demo.Run(ctx, demo.Options{Binary: self, Nodes: c.Nodes, Out: s.out})
}
