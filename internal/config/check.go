package config

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds that no setting goes past.
const (
	maxSocketPath = 107      // bytes of a unix socket's path on Linux
	hardMaxValue  = 64 << 20 // bytes of a value
	hardMaxQuota  = 1 << 40  // bytes of the table
	maxStatement  = 1 << 30  // bytes of a PostgreSQL message
	minRTT        = time.Millisecond
)

// Fault is one thing wrong with the settings.
type Fault struct {
	Setting string // the name of the flag without --
	Problem string // what is wrong
	Remedy  string // what to do
}

// String is one line.
func (f Fault) String() string { return f.Setting + ": " + f.Problem + ": " + f.Remedy }

// faults collects them.
type faults []Fault

func (f *faults) add(setting, remedy, problem string, args ...any) {
	*f = append(*f, Fault{Setting: setting, Problem: fmt.Sprintf(problem, args...), Remedy: remedy})
}

// Check completes the settings with what follows from others and lists everything that is wrong with them. It looks at
// nothing outside of them: no file and no network.
func (s *Settings) Check() []Fault {
	s.complete()
	var f faults
	s.checkGroup(&f)
	s.checkAddresses(&f)
	s.checkSecurity(&f)
	s.checkLimits(&f)
	s.checkRaft(&f)
	f.oneOf("io-uring", s.IOUring, "auto", "off")
	f.oneOf("sched-batch", s.SchedBatch, "auto", "off")
	f.oneOf("consistency", s.Consistency, "local", "linearizable")
	f.oneOf("log-level", s.LogLevel, "debug", "info", "warn", "error")
	f.oneOf("log-format", s.LogFormat, "json", "console")
	return f
}

func (s *Settings) checkGroup(f *faults) {
	if s.NodeID == 0 {
		f.add("node-id", "give this member its number, such as --node-id 1", "is not set")
	}
	if s.DataDir == "" {
		f.add("data-dir", "name a directory on a disk that keeps what was written, such as --data-dir /var/lib/raftproxy", "is not set")
	}
	if s.ShmPath != "" && !filepath.IsAbs(s.ShmPath) {
		f.add("shm-path", "give an absolute path, such as /dev/shm/raftproxy/table", "%q is relative", s.ShmPath)
	}
	if len(s.Peers) == 0 {
		f.add("peers", "list every member, this one included, such as --peers 1=10.0.0.1:7001,2=10.0.0.2:7001,3=10.0.0.3:7001", "is not set")
		return
	}
	users := map[string]uint64{}
	for _, id := range slices.Sorted(maps.Keys(s.Peers)) {
		address := s.Peers[id]
		if id == 0 {
			f.add("peers", "number members from 1", "member 0 cannot be")
		}
		if problem := reachable(address); problem != "" {
			f.add("peers", "write the member like 1=10.0.0.1:7001", "member %d: %s", id, problem)
		}
		if other, twice := users[address]; twice {
			f.add("peers", "give each member its own address", "members %d and %d have the same address %s", other, id, address)
		}
		users[address] = id
	}
	own, member := s.Peers[s.NodeID]
	if s.NodeID != 0 && !member {
		f.add("peers", "add this node to the list, which is the same on all members", "has no member %d, which is this node", s.NodeID)
	}
	if member && s.RaftAddr != own {
		f.add("raft-address", "make them equal, and bind elsewhere with --raft-listen if need be", "%q is not what peers say of member %d, %q", s.RaftAddr, s.NodeID, own)
	}
}

func (s *Settings) checkAddresses(f *faults) {
	if s.RaftListen != "" {
		if problem := bindable(s.RaftListen); problem != "" {
			f.add("raft-listen", "write it like 0.0.0.0:7001", "%s", problem)
		}
	}
	if s.Admin != Off {
		if problem := bindable(s.Admin); problem != "" {
			f.add("admin", "write it like 127.0.0.1:8001, or off", "%s", problem)
		}
	}
	const clientRemedy = "write it like 127.0.0.1:6432 or /run/raftproxy/.s.PGSQL.6432"
	if len(s.Listen) == 0 {
		f.add("listen", clientRemedy, "is empty")
	}
	for i, l := range s.Listen {
		if problem := clientAddress(l, bindable); problem != "" {
			f.add("listen", clientRemedy, "%s", problem)
		}
		if slices.Contains(s.Listen[:i], l) {
			f.add("listen", "remove one of them", "%s is there twice", l)
		}
		if l == s.Upstream {
			f.add("upstream", "give the address of PostgreSQL itself", "%s is an address that raftproxy listens on", l)
		}
	}
	if problem := clientAddress(s.Upstream, reachable); problem != "" {
		f.add("upstream", "write it like 127.0.0.1:5432 or /run/postgresql/.s.PGSQL.5432", "%s", problem)
	}
}

func (s *Settings) checkSecurity(f *faults) {
	f.oneOf("client-tls", s.ClientTLS, "off", "allow", "require")
	f.pair("client-tls-cert", s.ClientTLSCert, "client-tls-key", s.ClientTLSKey)
	if s.ClientTLS == "off" && s.ClientTLSCert+s.ClientTLSKey+s.ClientTLSCA != "" {
		f.add("client-tls", "set it to allow or require, or remove the settings client-tls-…", "is off, although there are files for it")
	}
	if s.ClientTLS != "off" && s.ClientTLSCert+s.ClientTLSKey == "" {
		f.add("client-tls-cert", "name a certificate, and its key by client-tls-key", "is not set, although client-tls is %s", s.ClientTLS)
	}
	for _, text := range s.ClientCIDRs {
		if _, err := network(text); err != nil {
			f.add("client-cidrs", "write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7", "%q is no network", text)
		}
	}
	f.oneOf("upstream-tls", s.UpstreamTLS, "disable", "prefer", "require", "verify-ca", "verify-full")
	f.pair("upstream-tls-cert", s.UpstreamTLSCert, "upstream-tls-key", s.UpstreamTLSKey)
	if s.UpstreamTLS == "disable" && s.UpstreamTLSCA+s.UpstreamTLSCert+s.UpstreamTLSKey != "" {
		f.add("upstream-tls", "set it to verify-full, or remove the settings upstream-tls-…", "is disable, although there are files for it")
	}
	if s.UpstreamTLS == "verify-ca" && s.UpstreamTLSCA == "" {
		f.add("upstream-tls-ca", "name a file of authorities", "is not set, although upstream-tls is verify-ca")
	}
}

// pair wants both settings or none.
func (f *faults) pair(a, valueA, b, valueB string) {
	if valueA == "" {
		a, valueA, b, valueB = b, valueB, a, valueA
	}
	if valueA != "" && valueB == "" {
		f.add(b, "name the file that belongs to "+a, "is not set")
	}
}

func (s *Settings) checkLimits(f *faults) {
	f.atLeast("max-clients", s.MaxClients, 1)
	f.atLeast("max-in-flight", s.MaxInFlight, 1)
	f.positive("startup-timeout", s.StartupTimeout)
	f.positive("set-timeout", s.SetTimeout)
	if s.DrainTimeout < 0 {
		f.add("drain-timeout", "use 0s to close sessions at once", "%v is less than nothing", s.DrainTimeout)
	}
	if s.InspectLimit < 1 || s.InspectLimit > maxStatement {
		f.add("inspect-limit", "use 1 to 1GiB, the size of PostgreSQL's largest message", "%v cannot be", s.InspectLimit)
	}
	if s.MaxValueSize < 1 || s.MaxValueSize > hardMaxValue {
		f.add("max-value-size", "use 1 to 64MiB", "%v cannot be", s.MaxValueSize)
	}
	if s.Quota < 1 || s.Quota > hardMaxQuota {
		f.add("quota", "use 1 to 1024GiB", "%v cannot be", s.Quota)
	}
}

func (s *Settings) checkRaft(f *faults) {
	if s.RaftRTT < minRTT || s.RaftRTT%minRTT != 0 {
		f.add("raft-rtt", "use whole milliseconds, such as 20ms", "%v cannot be", s.RaftRTT)
	}
	if s.RaftHeartbeat < 1 {
		f.add("raft-heartbeat-ticks", "use 1 or more", "0 cannot be")
	}
	if s.RaftElection <= 2*s.RaftHeartbeat {
		f.add("raft-election-ticks", "use more than twice raft-heartbeat-ticks, better ten times", "%d is too short for heartbeats every %d ticks", s.RaftElection, s.RaftHeartbeat)
	}
	if s.RaftSnapshotEntries < 1 {
		f.add("raft-snapshot-entries", "use 1 or more", "0 cannot be")
	}
}

func (f *faults) oneOf(setting, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.add(setting, "use "+strings.Join(allowed, ", "), "%q is not known", value)
	}
}

func (f *faults) atLeast(setting string, value, least int) {
	if value < least {
		f.add(setting, fmt.Sprintf("use %d or more", least), "%d is too small", value)
	}
}

func (f *faults) positive(setting string, value time.Duration) {
	if value <= 0 {
		f.add(setting, "use a time such as 5s", "%v is no time at all", value)
	}
}

// clientAddress checks an address of PostgreSQL's protocol: a socket path, or host:port by the other check.
func clientAddress(address string, hostPort func(string) string) string {
	if !strings.HasPrefix(address, "/") {
		return hostPort(address)
	}
	if len(address) > maxSocketPath {
		return fmt.Sprintf("%q is longer than the %d bytes of a socket's path", address, maxSocketPath)
	}
	return ""
}

// bindable says what is wrong with an address to listen on. No host means all of them, port 0 one from the kernel.
func bindable(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Sprintf("%q is not host:port", address)
	}
	return ""
}

// reachable says what is wrong with an address to connect to.
func reachable(address string) string {
	if problem := bindable(address); problem != "" {
		return problem
	}
	host, port, _ := net.SplitHostPort(address)
	if n, _ := strconv.Atoi(port); n == 0 {
		return fmt.Sprintf("nobody can connect to port 0 of %q", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Sprintf("%q names no host to connect to", address)
	}
	return ""
}
