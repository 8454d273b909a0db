// Package config is the settings of a node: one struct that flags, environment and a YAML file fill, and the checks that
// turn a wrong setting into one clear line. It must not know what the settings are used for.
package config

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/alecthomas/kong"
)

// Settings of a node. A setting is named the same everywhere: --node-id as a flag, RAFTPROXY_NODE_ID in the environment,
// node-id in the YAML file. Flags win over the environment, that over the file, that over the default.
type Settings struct {
	Config kong.ConfigFlag `name:"config" env:"RAFTPROXY_CONFIG" placeholder:"FILE" group:"General" help:"YAML file with settings by the names of the flags."`

	NodeID     uint64   `name:"node-id" env:"RAFTPROXY_NODE_ID" placeholder:"N" group:"Group" help:"Number of this member in the group, from 1. Never reused for another member or another disk."`
	Peers      Peers    `name:"peers" env:"RAFTPROXY_PEERS" placeholder:"ID=HOST:PORT,…" group:"Group" help:"The first members of the group with the addresses at which they reach each other, this node included. Used at the first start only."`
	RaftAddr   string   `name:"raft-address" env:"RAFTPROXY_RAFT_ADDRESS" placeholder:"HOST:PORT" group:"Group" help:"Address at which the other members reach this one. Default: this node's address in peers."`
	RaftListen string   `name:"raft-listen" env:"RAFTPROXY_RAFT_LISTEN" placeholder:"HOST:PORT" group:"Group" help:"Address to bind for the other members, where it is not raft-address."`
	DataDir    string   `name:"data-dir" env:"RAFTPROXY_DATA_DIR" placeholder:"DIR" group:"Group" help:"Directory of the Raft log and the snapshots. Made if missing."`
	ShmPath    string   `name:"shm-path" env:"RAFTPROXY_SHM_PATH" placeholder:"PATH" group:"Group" help:"File of the shared-memory segment. Default: a path in /dev/shm that depends on data-dir."`
	Listen     []string `name:"listen" env:"RAFTPROXY_LISTEN" default:"127.0.0.1:6432" group:"Clients" help:"Where clients connect: host:port, or the absolute path of a unix socket. May repeat."`
	Upstream   string   `name:"upstream" env:"RAFTPROXY_UPSTREAM" default:"127.0.0.1:5432" group:"Clients" help:"The PostgreSQL server: host:port, or the absolute path of its unix socket."`
	Admin      string   `name:"admin" env:"RAFTPROXY_ADMIN" default:"127.0.0.1:8001" group:"General" help:"Address of the admin HTTP endpoint, or off. It asks for no password: keep it on loopback."`

	MaxClients     int           `name:"max-clients" env:"RAFTPROXY_MAX_CLIENTS" default:"10000" group:"Clients" help:"Client sessions at the same time; more are refused."`
	StartupTimeout time.Duration `name:"startup-timeout" env:"RAFTPROXY_STARTUP_TIMEOUT" default:"30s" group:"Clients" help:"Time for a client to connect and log in."`
	DrainTimeout   time.Duration `name:"drain-timeout" env:"RAFTPROXY_DRAIN_TIMEOUT" default:"30s" group:"Clients" help:"Time for sessions to end by themselves after SIGTERM, before they are closed."`
	InspectLimit   Size          `name:"inspect-limit" env:"RAFTPROXY_INSPECT_LIMIT" default:"16MiB" group:"Clients" help:"Size of the largest statement that is looked through for raftable() calls; larger ones are forwarded as they are."`
	IOUring        string        `name:"io-uring" env:"RAFTPROXY_IO_URING" default:"auto" group:"Clients" help:"How to wait for sockets: auto (with io_uring where the system has it and allows it, else with epoll) or off (with epoll)."`
	SchedBatch     string        `name:"sched-batch" env:"RAFTPROXY_SCHED_BATCH" default:"auto" group:"Clients" help:"The scheduling class of threads that forward: auto (SCHED_BATCH, which interrupts nobody, while that takes no time) or off (the one that raftproxy was started in)."`

	ClientTLS       string   `name:"client-tls" env:"RAFTPROXY_CLIENT_TLS" default:"off" group:"Security" help:"TLS for clients: off, allow (those that ask for it) or require (clients without it are refused, but for those on unix sockets). SIGHUP reloads it."`
	ClientTLSCert   string   `name:"client-tls-cert" env:"RAFTPROXY_CLIENT_TLS_CERT" placeholder:"FILE" group:"Security" help:"PEM file with the certificate that clients see, and those between it and its authority. SIGHUP reloads it."`
	ClientTLSKey    string   `name:"client-tls-key" env:"RAFTPROXY_CLIENT_TLS_KEY" placeholder:"FILE" group:"Security" help:"PEM file with the key of client-tls-cert. SIGHUP reloads it."`
	ClientTLSCA     string   `name:"client-tls-ca" env:"RAFTPROXY_CLIENT_TLS_CA" placeholder:"FILE" group:"Security" help:"PEM file with the authorities of clients' certificates; a client that shows another certificate is refused. SIGHUP reloads it."`
	ClientCIDRs     []string `name:"client-cidrs" env:"RAFTPROXY_CLIENT_CIDRS" placeholder:"CIDR" group:"Security" help:"Networks that clients may connect from, such as 10.0.0.0/8. May repeat. Default: all. Unix sockets are not concerned. SIGHUP reloads it."`
	AllowTrust      bool     `name:"allow-trust-from-network" env:"RAFTPROXY_ALLOW_TRUST_FROM_NETWORK" group:"Security" help:"Let clients in from other machines even where PostgreSQL asks them for no password. SIGHUP reloads it."`
	UpstreamTLS     string   `name:"upstream-tls" env:"RAFTPROXY_UPSTREAM_TLS" default:"disable" group:"Security" help:"TLS to PostgreSQL, as sslmode of libpq: disable, prefer, require, verify-ca or verify-full. A unix socket has none. SIGHUP reloads it."`
	UpstreamTLSCA   string   `name:"upstream-tls-ca" env:"RAFTPROXY_UPSTREAM_TLS_CA" placeholder:"FILE" group:"Security" help:"PEM file with the authorities that PostgreSQL's certificate may come from. Default for verify-full: those of the system. SIGHUP reloads it."`
	UpstreamTLSCert string   `name:"upstream-tls-cert" env:"RAFTPROXY_UPSTREAM_TLS_CERT" placeholder:"FILE" group:"Security" help:"PEM file with a certificate to show to PostgreSQL. SIGHUP reloads it."`
	UpstreamTLSKey  string   `name:"upstream-tls-key" env:"RAFTPROXY_UPSTREAM_TLS_KEY" placeholder:"FILE" group:"Security" help:"PEM file with the key of upstream-tls-cert. SIGHUP reloads it."`

	SetTimeout   time.Duration `name:"set-timeout" env:"RAFTPROXY_SET_TIMEOUT" default:"5s" group:"Table" help:"Time for a set, a delete or a linearizable read, where the call itself gives none."`
	Consistency  string        `name:"consistency" env:"RAFTPROXY_CONSISTENCY" default:"local" group:"Table" help:"How get and list read: local (this node's replica as it is) or linearizable (after a wait, if need be, for every set acknowledged on any node before)."`
	MaxValueSize Size          `name:"max-value-size" env:"RAFTPROXY_MAX_VALUE_SIZE" default:"1MiB" group:"Table" help:"Size of the largest value, at most 64MiB."`
	Quota        Size          `name:"quota" env:"RAFTPROXY_QUOTA" default:"256MiB" group:"Table" help:"Size of all keys and values together, beyond which this node refuses sets."`
	MaxInFlight  int           `name:"max-in-flight" env:"RAFTPROXY_MAX_IN_FLIGHT" default:"2048" group:"Table" help:"Sets and deletes of this node that may wait for the group at the same time; more are refused."`

	RaftRTT             time.Duration `name:"raft-rtt" env:"RAFTPROXY_RAFT_RTT" default:"50ms" group:"Raft" help:"One Raft tick: at least the round trip between members and a disk write."`
	RaftElection        uint64        `name:"raft-election-ticks" env:"RAFTPROXY_RAFT_ELECTION_TICKS" default:"10" group:"Raft" help:"Ticks without a leader until an election starts."`
	RaftHeartbeat       uint64        `name:"raft-heartbeat-ticks" env:"RAFTPROXY_RAFT_HEARTBEAT_TICKS" default:"1" group:"Raft" help:"Ticks between heartbeats of the leader."`
	RaftSnapshotEntries uint64        `name:"raft-snapshot-entries" env:"RAFTPROXY_RAFT_SNAPSHOT_ENTRIES" default:"100000" group:"Raft" help:"Log entries after which a snapshot is taken."`
	RaftLogOverhead     uint64        `name:"raft-log-overhead" env:"RAFTPROXY_RAFT_LOG_OVERHEAD" default:"10000" group:"Raft" help:"Log entries kept before a snapshot, for members that lag behind."`

	LogLevel  string `name:"log-level" env:"RAFTPROXY_LOG_LEVEL" default:"info" group:"General" help:"Least level to log: debug, info, warn or error. SIGHUP reloads it."`
	LogFormat string `name:"log-format" env:"RAFTPROXY_LOG_FORMAT" default:"json" group:"General" help:"How to log: json (a line of JSON each) or console (for people)."`
}

// Off is the value of admin that means: no admin endpoint.
const Off = "off"

// Complete fills in what follows from other settings. Check calls it.
func (s *Settings) complete() {
	if s.RaftAddr == "" {
		s.RaftAddr = s.Peers[s.NodeID]
	}
}

// Setting describes one setting for documentation and for checks of names.
type Setting struct {
	Name    string // the flag without --, which is the YAML key too
	Env     string
	Default string // empty: none
	Help    string
	index   int // of the struct field
}

// All lists the settings in the order of the struct.
func All() []Setting {
	t := reflect.TypeFor[Settings]()
	all := make([]Setting, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		all = append(all, Setting{
			Name: tag.Get("name"), Env: tag.Get("env"), Default: tag.Get("default"), Help: tag.Get("help"), index: i,
		})
	}
	return all
}

// reloadable are the settings that SIGHUP brings into effect.
var reloadable = []string{
	"log-level", "client-tls", "client-tls-cert", "client-tls-key", "client-tls-ca", "client-cidrs", "allow-trust-from-network",
	"upstream-tls", "upstream-tls-ca", "upstream-tls-cert", "upstream-tls-key",
}

// Reloadable says whether SIGHUP brings a change of the setting into effect.
func Reloadable(name string) bool { return slices.Contains(reloadable, name) }

// Reload takes the reloadable settings over from another. It writes nothing else.
func (s *Settings) Reload(from *Settings) {
	to, v := reflect.ValueOf(s).Elem(), reflect.ValueOf(from).Elem()
	for _, setting := range All() {
		if Reloadable(setting.Name) {
			to.Field(setting.index).Set(v.Field(setting.index))
		}
	}
}

// ClientNetworks are client-cidrs, after a Check without a fault. A single address is a network, too.
func (s *Settings) ClientNetworks() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range s.ClientCIDRs {
		if n, err := network(text); err == nil {
			all = append(all, n)
		}
	}
	return all
}

func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Prefix(a.BitLen())
	}
	return netip.ParsePrefix(text)
}

// Changed names the settings that differ between a and b.
func Changed(a, b *Settings) []string {
	var names []string
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, s := range All() {
		if !reflect.DeepEqual(va.Field(s.index).Interface(), vb.Field(s.index).Interface()) {
			names = append(names, s.Name)
		}
	}
	return names
}

// known says whether name may stand in a YAML file.
func known(name string) bool {
	return name != "config" && slices.ContainsFunc(All(), func(s Setting) bool { return s.Name == name })
}
