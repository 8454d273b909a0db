package main

import (
	"context"
	"errors"

	"github.com/raftproxy/raftproxy/cluster"
	"github.com/raftproxy/raftproxy/internal/admin"
	"github.com/raftproxy/raftproxy/internal/pgprobe"
)

// errStarting is why nothing but health and readiness is answered at first.
var errStarting = errors.New("the node is starting: the table is not loaded yet")

// adminOptions connects the endpoint to the parts of the node.
func (n *node) adminOptions() admin.Options {
	return admin.Options{
		Open: func() (admin.Table, error) {
			if table := n.table.Load(); table != nil {
				return table, nil
			}
			return nil, errStarting
		},
		Status: func() admin.Status { return status(n.table.Load().Status(), n.sessions()) },
		Checks: []admin.Check{
			{Name: "postgres", Probe: func(ctx context.Context) error { return pgprobe.Ready(ctx, n.settings.Upstream) }},
			{Name: "replica", Probe: func(context.Context) error { return ready(n.table.Load()) }},
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
		Logger:       n.log.With().Str("part", "admin").Logger(),
	}
}

// ready asks a table that may not have started.
func ready(table *cluster.Node) error {
	if table == nil {
		return errStarting
	}
	return table.Ready()
}
