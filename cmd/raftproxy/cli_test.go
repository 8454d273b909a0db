package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/raftproxy/raftproxy/cluster"
	"github.com/raftproxy/raftproxy/internal/config"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	bad := filepath.Join(dir, "bad.yaml")
	for path, text := range map[string]string{
		good: "node-id: 1\npeers: {1: 127.0.0.1:7001}\ndata-dir: " + dir + "\n",
		bad:  "node-id: 1\nlisten-on: 127.0.0.1:6432\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name      string
		env       []string
		args      string
		code      int
		out       string
		complaint string
	}{
		{"good settings", nil, "check-config --config " + good, 0, "the settings are good\n", ""},
		{"good settings by the environment", []string{"RAFTPROXY_CONFIG=" + good}, "check-config", 0, "the settings are good\n", ""},
		{"bad flag over good settings", nil, "check-config --config " + good + " --listen nowhere", 2, "", `listen: "nowhere" is not host:port`},
		{"bad setting in the environment", []string{"RAFTPROXY_QUOTA=much"}, "check-config --config " + good, 2, "", "RAFTPROXY_QUOTA"},
		{"unknown key", nil, "check-config --config " + bad, 2, "", `line 2: unknown setting "listen-on"`},
		{"serve with an unknown key", nil, "serve --config " + bad, 2, "", `line 2: unknown setting "listen-on"`},
		{"serve with a bad setting", nil, "serve --config " + good + " --upstream=x", 2, "", `upstream: "x" is not host:port`},
		{"serve with an unknown flag", nil, "serve --nodeid 1", 2, "", "unknown flag --nodeid"},
		{"no command", nil, "", 2, "", "expected one of"},
		{"unknown command", nil, "start", 2, "", "start"},
		{"too many demo nodes", nil, "demo --nodes 10", 2, "", "1 to 9"},
		{"no demo nodes", nil, "demo --nodes 0", 2, "", "1 to 9"},
		{"set without a value", nil, "set k", 2, "", `expected "<value>"`},
		{"get from nobody", nil, "get k --admin 127.0.0.1:1", 1, "", "node at 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"list a segment that is not there", nil, "list --shm /nonexistent", 1, "", "/nonexistent"},
		{"list a file that is no segment", nil, "list --shm " + good, 1, "", "not a raftproxy shared-memory segment"},
		{"linearizable list of a segment", nil, "list --linearizable --shm " + good, 2, "", "leave out --shm"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			runProgram(t, tc.env, strings.Fields(tc.args)...).check(t, tc.code, tc.out, tc.complaint)
		})
	}
}

func TestEveryFaultHasALine(t *testing.T) {
	r := runProgram(t, nil, "serve")
	lines := strings.Split(strings.TrimSpace(r.errOut), "\n")
	if r.code != 2 || len(lines) != 3 {
		t.Fatalf("exit code %d: %s", r.code, r.errOut)
	}
	for i, setting := range []string{"node-id", "data-dir", "peers"} {
		if !strings.HasPrefix(lines[i], "raftproxy: "+setting+": is not set: ") {
			t.Errorf("line %d: %s", i+1, lines[i])
		}
	}
}

func TestVersionAndHelp(t *testing.T) {
	r := runProgram(t, nil, "version")
	if r.code != 0 || !strings.HasPrefix(r.out, "raftproxy ") || strings.Count(r.out, "\n") != 1 {
		t.Errorf("version: %+v", r)
	}
	r = runProgram(t, nil, "serve", "--help")
	if r.code != 0 || r.errOut != "" {
		t.Errorf("help: %+v", r)
	}
	for _, s := range config.All() {
		// A switch takes no value.
		if !strings.Contains(r.out, "--"+s.Name+"=") && !strings.Contains(r.out, "--"+s.Name+" ") {
			t.Errorf("the help of serve does not name --%s", s.Name)
		}
	}
}

// TestStatusIsComplete fills a status of the table with something in every field, and wants to find all of it again.
func TestStatusIsComplete(t *testing.T) {
	var from cluster.Status
	fill(reflect.ValueOf(&from).Elem(), new(int))
	want, got := map[string]any{}, map[string]any{}
	for _, c := range []struct {
		v    any
		into *map[string]any
	}{{from, &want}, {status(from, 77), &got}} {
		b, err := json.Marshal(c.v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, c.into); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range want {
		if !reflect.DeepEqual(got[name], value) {
			t.Errorf("%s: the table says %v, the admin endpoint %v", name, value, got[name])
		}
	}
	if got["sessions"] != 77.0 || got["version"] == "" {
		t.Errorf("sessions %v, version %v", got["sessions"], got["version"])
	}
}

// fill puts different values that are not zero into everything in v.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.String:
		v.SetString(strings.Repeat("x", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		panic("a kind of field that this test does not know: " + v.Kind().String())
	}
}

// TestDefaultsAreTheirs compares the documented defaults with those of the packages that they are for.
func TestDefaultsAreTheirs(t *testing.T) {
	for _, s := range config.All() {
		if s.Env != "" {
			if _, ok := os.LookupEnv(s.Env); ok {
				t.Skipf("%s is set", s.Env)
			}
		}
	}
	c, _, err := parse([]string{"serve"}, streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	s := &c.Serve.Settings
	for _, d := range []struct {
		name      string
		got, want any
	}{
		{"max-value-size", int64(s.MaxValueSize), cluster.DefaultMaxValueSize},
		{"quota", int64(s.Quota), cluster.DefaultQuota},
		{"max-in-flight", s.MaxInFlight, cluster.DefaultMaxInFlight},
		{"raft-rtt", s.RaftRTT, time.Duration(cluster.DefaultRTT)},
		{"raft-election-ticks", s.RaftElection, uint64(cluster.DefaultElectionRTT)},
		{"raft-heartbeat-ticks", s.RaftHeartbeat, uint64(cluster.DefaultHeartbeatRTT)},
		{"raft-snapshot-entries", s.RaftSnapshotEntries, uint64(cluster.DefaultSnapshotEntries)},
		{"raft-log-overhead", s.RaftLogOverhead, uint64(cluster.DefaultCompactionOverhead)},
	} {
		if d.got != d.want {
			t.Errorf("%s is %v by default, the table's own default is %v", d.name, d.got, d.want)
		}
	}
}
