package main

import (
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/raftproxy/raftproxy/cluster"
	"github.com/raftproxy/raftproxy/internal/admin"
	"github.com/raftproxy/raftproxy/internal/config"
	"github.com/raftproxy/raftproxy/proxy"
)

// newLogger makes the program's logger; its level is a matter of the whole process, so that SIGHUP can change it.
func newLogger(w io.Writer, s *config.Settings) zerolog.Logger {
	setLevel(s.LogLevel)
	zerolog.TimeFieldFormat = time.RFC3339Nano
	if s.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000"}
	}
	return zerolog.New(zerolog.SyncWriter(w)).With().Timestamp().Logger()
}

// setLevel takes a level that check has let through.
func setLevel(name string) {
	level, err := zerolog.ParseLevel(name)
	if err != nil {
		level = zerolog.InfoLevel
	}
	zerolog.SetGlobalLevel(level)
}

func clusterConfig(s *config.Settings, log zerolog.Logger) cluster.Config {
	return cluster.Config{
		ReplicaID:          s.NodeID,
		RaftAddress:        s.RaftAddr,
		ListenAddress:      s.RaftListen,
		Members:            s.Peers,
		DataDir:            s.DataDir,
		ShmPath:            s.ShmPath,
		MaxValueSize:       int64(s.MaxValueSize),
		Quota:              int64(s.Quota),
		MaxInFlight:        s.MaxInFlight,
		RTT:                s.RaftRTT,
		ElectionRTT:        s.RaftElection,
		HeartbeatRTT:       s.RaftHeartbeat,
		SnapshotEntries:    s.RaftSnapshotEntries,
		CompactionOverhead: s.RaftLogOverhead,
		Logger:             log,
	}
}

func proxyConfig(s *config.Settings, table proxy.Table, log zerolog.Logger) proxy.Config {
	return proxy.Config{
		Upstream:       s.Upstream,
		Table:          table,
		Logger:         log,
		MaxClients:     s.MaxClients,
		StartupTimeout: s.StartupTimeout,
		SetTimeout:     s.SetTimeout,
		InspectLimit:   int(s.InspectLimit),
		NoIOUring:      s.IOUring == "off",
		NoSchedBatch:   s.SchedBatch == "off",
		Linearizable:   s.Consistency == "linearizable",
		Access:         accessRules(s),
	}
}

func accessRules(s *config.Settings) proxy.Access {
	return proxy.Access{
		ClientTLS: proxy.ClientTLS{
			Mode:     proxy.ClientTLSMode(s.ClientTLS),
			CertFile: s.ClientTLSCert,
			KeyFile:  s.ClientTLSKey,
			CAFile:   s.ClientTLSCA,
		},
		UpstreamTLS: proxy.UpstreamTLS{
			Mode:     proxy.UpstreamTLSMode(s.UpstreamTLS),
			CAFile:   s.UpstreamTLSCA,
			CertFile: s.UpstreamTLSCert,
			KeyFile:  s.UpstreamTLSKey,
		},
		ClientNetworks: s.ClientNetworks(),
		AllowTrust:     s.AllowTrust,
	}
}

// status is the table's status as the admin endpoint gives it, with what else is known of the node.
func status(c cluster.Status, sessions int) admin.Status {
	s := admin.Status{
		Version:      versionText(),
		Sessions:     sessions,
		ReplicaID:    c.ReplicaID,
		RaftAddress:  c.RaftAddress,
		LeaderID:     c.LeaderID,
		Term:         c.Term,
		AppliedIndex: c.AppliedIndex,
		CommitIndex:  c.CommitIndex,
		CommitLag:    c.CommitLag,
		Keys:         c.Keys,
		Bytes:        c.Bytes,
		Quota:        c.Quota,
		InFlight:     c.InFlight,
		DiskFree:     c.DiskFree,
		StateHash:    c.StateHash,
		Generation:   c.Generation,
		ShmPath:      c.ShmPath,
		Members:      make([]admin.Member, len(c.Members)),
		Ready:        c.Ready,
		ReadyReason:  c.ReadyReason,
	}
	for i, m := range c.Members {
		s.Members[i] = admin.Member{ID: m.ID, Address: m.Address, Reachable: m.Reachable, Self: m.Self}
	}
	return s
}
