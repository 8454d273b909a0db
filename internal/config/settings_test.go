package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// parse fills settings as the program does: from arguments, environment and the text of a YAML file, if any.
func parse(t *testing.T, args []string, env map[string]string, file string) (*Settings, error) {
	t.Helper()
	for _, s := range All() {
		if _, ok := os.LookupEnv(s.Env); ok {
			t.Setenv(s.Env, "") // restored at the end of the test
			_ = os.Unsetenv(s.Env)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	if file != "" {
		path := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := env["RAFTPROXY_CONFIG"]; ok {
			t.Setenv("RAFTPROXY_CONFIG", path)
		} else {
			args = append(args, "--config", path)
		}
	}
	var cli struct {
		Serve struct {
			Settings `embed:""`
		} `cmd:""`
	}
	parser, err := kong.New(&cli, kong.Configuration(YAML))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(append([]string{"serve"}, args...))
	return &cli.Serve.Settings, err
}

func TestPrecedence(t *testing.T) {
	type env = map[string]string
	level := func(s *Settings) any { return s.LogLevel }
	for _, tc := range []struct {
		name string
		args []string
		env  env
		file string
		get  func(*Settings) any
		want any
	}{
		{"default", nil, nil, "", level, "info"},
		{"file over default", nil, nil, "log-level: error\n", level, "error"},
		{"env over default", nil, env{"RAFTPROXY_LOG_LEVEL": "warn"}, "", level, "warn"},
		{"env over file", nil, env{"RAFTPROXY_LOG_LEVEL": "warn"}, "log-level: error\n", level, "warn"},
		{"flag over default", []string{"--log-level=debug"}, nil, "", level, "debug"},
		{"flag over file", []string{"--log-level=debug"}, nil, "log-level: error\n", level, "debug"},
		{"flag over env and file", []string{"--log-level=debug"}, env{"RAFTPROXY_LOG_LEVEL": "warn"}, "log-level: error\n", level, "debug"},
		{"file named by the environment", nil, env{"RAFTPROXY_CONFIG": ""}, "log-level: error\n", level, "error"},
		{"another setting of the file", []string{"--log-level=debug"}, nil, "log-level: error\nnode-id: 3\n",
			func(s *Settings) any { return s.NodeID }, uint64(3)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parse(t, tc.args, tc.env, tc.file)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.get(s); got != tc.want {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// TestSameFromEverywhere gives every kind of value by flag, by environment and by file, in each way a file can write it.
func TestSameFromEverywhere(t *testing.T) {
	want := func() *Settings {
		return &Settings{
			NodeID: 2, Peers: Peers{1: "a:7001", 2: "b:7002"}, Listen: []string{"127.0.0.1:1", "/tmp/s"},
			Quota: 64 << 20, SetTimeout: 1500 * time.Millisecond, MaxClients: 7,
		}
	}
	pick := func(s *Settings) *Settings {
		return &Settings{NodeID: s.NodeID, Peers: s.Peers, Listen: s.Listen, Quota: s.Quota, SetTimeout: s.SetTimeout, MaxClients: s.MaxClients}
	}
	for _, tc := range []struct {
		name string
		args []string
		env  map[string]string
		file string
	}{
		{name: "flags", args: []string{"--node-id=2", "--peers=1=a:7001,2=b:7002", "--listen=127.0.0.1:1,/tmp/s", "--quota=64MiB", "--set-timeout=1.5s", "--max-clients=7"}},
		{name: "repeated flags", args: []string{"--node-id=2", "--peers=1=a:7001", "--peers=2=b:7002", "--listen=127.0.0.1:1", "--listen=/tmp/s", "--quota=67108864", "--set-timeout=1500ms", "--max-clients=7"}},
		{name: "environment", env: map[string]string{"RAFTPROXY_NODE_ID": "2", "RAFTPROXY_PEERS": "1=a:7001, 2=b:7002", "RAFTPROXY_LISTEN": "127.0.0.1:1,/tmp/s", "RAFTPROXY_QUOTA": "64 MB", "RAFTPROXY_SET_TIMEOUT": "1.5s", "RAFTPROXY_MAX_CLIENTS": "7"}},
		{name: "file of texts", file: "# a comment\nnode-id: \"2\"\npeers: 1=a:7001,2=b:7002\nlisten: 127.0.0.1:1,/tmp/s\nquota: 64MiB\nset-timeout: 1.5s\nmax-clients: \"7\"\n"},
		{name: "file of lists and numbers", file: "node-id: 2\npeers:\n  - 1=a:7001\n  - 2=b:7002\nlisten: [127.0.0.1:1, /tmp/s]\nquota: 67108864\nset-timeout: 1.5s\nmax-clients: 7\n"},
		{name: "file with a mapping", file: "node-id: 2\npeers: {1: a:7001, 2: b:7002}\nlisten:\n- 127.0.0.1:1\n- /tmp/s\nquota: 65536kB\nset-timeout: 1s500ms\nmax-clients: 7\n"},
		{name: "file with a mapping of texts", file: "node-id: 2\npeers:\n  \"1\": a:7001\n  \"2\": b:7002\nlisten: [\"127.0.0.1:1\", \"/tmp/s\"]\nquota: 64MB\nset-timeout: 1500ms\nmax-clients: 7\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parse(t, tc.args, tc.env, tc.file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want(), pick(s)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want string // part of the one line
	}{
		{"unknown flag", []string{"--lisen=x"}, nil, "", `unknown flag --lisen`},
		{"unknown key", nil, nil, "node-id: 1\nlisten-address: x\n", `line 2: unknown setting "listen-address"`},
		{"unknown key, close to one", nil, nil, "lisen: x\n", `line 1: unknown setting "lisen"; did you mean "listen"?`},
		{"underscores", nil, nil, "data_dir: x\n", `did you mean "data-dir"?`},
		{"a file in a file", nil, nil, "config: other.yaml\n", `unknown setting "config"`},
		{"twice", nil, nil, "node-id: 1\nquota: 1MB\nnode-id: 2\n", `node-id`},
		{"no value", nil, nil, "node-id:\n", `line 1: node-id has no value`},
		{"nested", nil, nil, "node:\n  id: 1\n", `unknown setting "node"`},
		{"nested value", nil, nil, "listen:\n- {a: b}\n", `expected text or a number`},
		{"not a mapping", nil, nil, "- node-id\n", `line 1: expected settings`},
		{"not YAML", nil, nil, "a: b: c\n", `mapping values are not allowed`},
		{"no file", []string{"--config=/nonexistent/file"}, nil, "", `/nonexistent/file`},
		{"not a number", []string{"--node-id=one"}, nil, "", `--node-id`},
		{"negative", []string{"--node-id=-1"}, nil, "", `--node-id`},
		{"not a number in the environment", nil, map[string]string{"RAFTPROXY_NODE_ID": "one"}, "", `RAFTPROXY_NODE_ID`},
		{"time without unit", nil, nil, "set-timeout: 5\n", `--set-timeout`},
		{"size with another unit", []string{"--quota=1TB"}, nil, "", `"1TB" is not a size`},
		{"size below zero", []string{"--quota=-1"}, nil, "", `--quota`},
		{"size past all", []string{"--quota=99999999999GB"}, nil, "", `too large`},
		{"peer without id", []string{"--peers=host:7001"}, nil, "", `"host:7001" is not a member`},
		{"peer twice", []string{"--peers=1=a:1,1=b:1"}, nil, "", `member 1 is there twice`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse(t, tc.args, tc.env, tc.file)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %v", err)
			}
		})
	}
}

// good is a set of arguments without a fault.
func good(more ...string) []string {
	return append([]string{"--node-id=1", "--peers=1=10.0.0.1:7001,2=10.0.0.2:7001,3=10.0.0.3:7001", "--data-dir=data"}, more...)
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want []string // the beginning of each fault's line
	}{
		{"good", good(), nil},
		{"good with everything", good("--raft-address=10.0.0.1:7001", "--raft-listen=:7001", "--listen=/run/s", "--listen=[::1]:0", "--upstream=/run/p", "--admin=off", "--shm-path=/dev/shm/x", "--drain-timeout=0s"), nil},
		{"nothing", nil, []string{"node-id: is not set", "data-dir: is not set", "peers: is not set"}},
		{"not a member", good("--node-id=4"), []string{"peers: has no member 4"}},
		{"member 0", []string{"--node-id=1", "--data-dir=d", "--peers=0=a:1,1=b:1"}, []string{"peers: member 0 cannot be"}},
		{"members at one address", []string{"--node-id=1", "--data-dir=d", "--peers=1=a:1,2=a:1"}, []string{"peers: members 1 and 2 have the same address a:1"}},
		{"members without an address", []string{"--node-id=1", "--data-dir=d", "--peers=1=a,2=:1,3=b:0,4=0.0.0.0:1"},
			[]string{`peers: member 1: "a" is not host:port`, `peers: member 2: ":1" names no host`, `peers: member 3: nobody can connect to port 0`, `peers: member 4: "0.0.0.0:1" names no host`}},
		{"raft address of somebody else", good("--raft-address=10.0.0.9:7001"), []string{`raft-address: "10.0.0.9:7001" is not what peers say of member 1`}},
		{"raft-listen", good("--raft-listen=10.0.0.1"), []string{`raft-listen: "10.0.0.1" is not host:port`}},
		{"relative shm path", good("--shm-path=table"), []string{`shm-path: "table" is relative`}},
		{"listen", good("--listen=6432"), []string{`listen: "6432" is not host:port`}},
		{"listen port", good("--listen=a:65536"), []string{`listen: "a:65536" is not host:port`}},
		{"listen twice", good("--listen=a:1,a:1"), []string{"listen: a:1 is there twice"}},
		{"listen socket", good("--listen=/" + strings.Repeat("x", 107)), []string{"listen: \"/xxx"}},
		{"upstream", good("--upstream=relative/path"), []string{`upstream: "relative/path" is not host:port`}},
		{"upstream port 0", good("--upstream=a:0"), []string{"upstream: nobody can connect"}},
		{"upstream is the proxy", good("--upstream=a:1", "--listen=a:1"), []string{"upstream: a:1 is an address that raftproxy listens on"}},
		{"admin", good("--admin="), []string{`admin: "" is not host:port`}},
		{"good with TLS", good("--client-tls=require", "--client-tls-cert=c", "--client-tls-key=k", "--client-tls-ca=a", "--upstream-tls=verify-ca", "--upstream-tls-ca=a", "--upstream-tls-cert=c", "--upstream-tls-key=k"), nil},
		{"good with networks", good("--client-cidrs=10.0.0.0/8,192.0.2.7", "--client-cidrs=2001:db8::/32", "--allow-trust-from-network"), nil},
		{"verify-full with the system's authorities", good("--upstream-tls=verify-full"), nil},
		{"TLS without a certificate", good("--client-tls=allow"), []string{"client-tls-cert: is not set, although client-tls is allow"}},
		{"certificate without a key", good("--client-tls=allow", "--client-tls-cert=c"), []string{"client-tls-key: is not set: name the file that belongs to client-tls-cert"}},
		{"key without a certificate", good("--upstream-tls=prefer", "--upstream-tls-key=k"), []string{"upstream-tls-cert: is not set: name the file that belongs to upstream-tls-key"}},
		{"files for TLS that is off", good("--client-tls-cert=c", "--client-tls-key=k", "--upstream-tls-ca=a"), []string{"client-tls: is off", "upstream-tls: is disable"}},
		{"verify-ca without authorities", good("--upstream-tls=verify-ca"), []string{"upstream-tls-ca: is not set"}},
		{"words of TLS", good("--client-tls=on", "--client-tls-cert=c", "--client-tls-key=k", "--upstream-tls=allow"), []string{`client-tls: "on" is not known`, `upstream-tls: "allow" is not known`}},
		{"networks", good("--client-cidrs=10.0.0.0/33,localhost,10.0.0.1"), []string{`client-cidrs: "10.0.0.0/33" is no network`, `client-cidrs: "localhost" is no network`}},
		{"limits", good("--max-clients=0", "--max-in-flight=-1", "--startup-timeout=0s", "--set-timeout=-1s", "--drain-timeout=-1s"),
			[]string{"max-clients: 0", "max-in-flight: -1", "startup-timeout: 0s", "set-timeout: -1s", "drain-timeout: -1s"}},
		{"sizes", good("--inspect-limit=2GiB", "--max-value-size=65MiB", "--quota=0"),
			[]string{"inspect-limit: 2GiB", "max-value-size: 65MiB", "quota: 0"}},
		{"no inspection", good("--inspect-limit=0"), []string{"inspect-limit: 0"}},
		{"raft", good("--raft-rtt=1500us", "--raft-heartbeat-ticks=0", "--raft-election-ticks=0", "--raft-snapshot-entries=0"),
			[]string{"raft-rtt: 1.5ms", "raft-heartbeat-ticks: 0", "raft-election-ticks: 0", "raft-snapshot-entries: 0"}},
		{"elections too soon", good("--raft-heartbeat-ticks=5", "--raft-election-ticks=10"), []string{"raft-election-ticks: 10 is too short"}},
		{"words", good("--consistency=eventual", "--log-level=trace", "--log-format=text"),
			[]string{`consistency: "eventual"`, `log-level: "trace"`, `log-format: "text"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parse(t, tc.args, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			got := s.Check()
			if len(got) != len(tc.want) {
				t.Fatalf("faults %q, want %q", got, tc.want)
			}
			for i, f := range got {
				line := f.String()
				if !strings.HasPrefix(line, tc.want[i]) || strings.Contains(line, "\n") || f.Remedy == "" {
					t.Errorf("fault %q, want %q", line, tc.want[i])
				}
			}
		})
	}
}

func TestCompletes(t *testing.T) {
	s, err := parse(t, good(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if f := s.Check(); len(f) != 0 || s.RaftAddr != "10.0.0.1:7001" {
		t.Fatalf("raft-address %q, faults %v", s.RaftAddr, f)
	}
}

func TestChanged(t *testing.T) {
	a, err := parse(t, good(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := parse(t, good("--log-level=debug", "--listen=a:1", "--peers=4=a:1"), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := Changed(a, b); !slices.Equal(got, []string{"peers", "listen", "log-level"}) {
		t.Fatalf("changed: %v", got)
	}
	if got := Changed(a, a); got != nil {
		t.Fatalf("changed from itself: %v", got)
	}
	if Reloadable("listen") || !Reloadable("log-level") {
		t.Fatal("what SIGHUP reloads")
	}
	for _, name := range reloadable {
		if !known(name) {
			t.Errorf("%s is no setting", name)
		}
	}
	r := *a
	r.Reload(b)
	if got := Changed(a, &r); !slices.Equal(got, []string{"log-level"}) {
		t.Fatalf("reloaded: %v", got)
	}
}

func TestClientNetworks(t *testing.T) {
	s, err := parse(t, good(), nil, "client-cidrs: [10.1.2.3/8, 192.0.2.7, \"2001:db8::/32\"]\nallow-trust-from-network: true\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range s.ClientNetworks() {
		got = append(got, n.String())
	}
	if !slices.Equal(got, []string{"10.1.2.3/8", "192.0.2.7/32", "2001:db8::/32"}) || !s.AllowTrust {
		t.Fatalf("networks %v, allow-trust-from-network %v", got, s.AllowTrust)
	}
}

func TestSizeText(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Size
		back string
	}{
		{"0", 0, "0"}, {"1", 1, "1"}, {"1B", 1, "1"}, {"1024", 1024, "1KiB"}, {"1kB", 1024, "1KiB"},
		{"1536", 1536, "1536"}, {"16 MiB", 16 << 20, "16MiB"}, {"3GB", 3 << 30, "3GiB"},
	} {
		var s Size
		if err := s.UnmarshalText([]byte(tc.text)); err != nil || s != tc.want || s.String() != tc.back {
			t.Errorf("%q: got %d %q, %v; want %d %q", tc.text, s, s, err, tc.want, tc.back)
		}
	}
}

func FuzzYAML(f *testing.F) {
	f.Add("node-id: 1\npeers: {1: a:7001}\n")
	f.Add("listen: [a, b]\nquota: 1MB\n")
	f.Add("- 1\n")
	f.Add("? {a: b}\n: c\n")
	f.Fuzz(func(_ *testing.T, text string) {
		// Whatever the file, there is an answer and no panic.
		var cli struct {
			Settings `embed:""`
		}
		parser, err := kong.New(&cli)
		if err != nil {
			panic(err)
		}
		resolver, err := YAML(strings.NewReader(text))
		if err != nil {
			return
		}
		kong.Resolvers(resolver).Apply(parser) //nolint:errcheck // it cannot fail
		_, _ = parser.Parse(nil)
	})
}

// TestDocumented compares docs/configuration.md with the struct: every setting has its row, with the right names, default
// and meaning, and there is no other row.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `--") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	for _, s := range All() {
		yaml, value := "`"+s.Name+"`", "none"
		if !known(s.Name) {
			yaml = "none"
		}
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		want = append(want, "| `--"+s.Name+"` | `"+s.Env+"` | "+yaml+" | "+value+" | "+s.Help+" |")
	}
	slices.Sort(got) // the document has them by topic
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("docs/configuration.md (+) is not what the settings say (-):\n%s", diff)
	}
}
