package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// forward has nothing to do with the table: what does the proxy cost those who do not use it?
func (b *bench) forward() error {
	b.say("Transactions per second, and CPU time of the proxy for each.\n\n")
	heading := "raftproxy against the best of the other proxies: throughput, CPU"
	return b.table(b.all, "simple,extended,prepared", "1,8,32", heading, func(_ string, r []result) string {
		var said []string
		for i, c := range b.all {
			switch {
			case c.name == raftproxyName:
				said = slices.Insert(said, 0, b.against(i, r))
			case c.other:
				said = append(said, c.name+" "+b.against(i, r))
			}
		}
		return strings.Join(said, "; ")
	})
}

// against compares a raftproxy's results with those of the better ones of the other proxies.
func (b *bench) against(ours int, r []result) string {
	var tps, cpu bar
	for i, c := range b.all {
		if c.pid != 0 && c.name != raftproxyName && !c.other {
			tps = worse(tps, atLeast(1, r[ours].tps, r[i].tps))
			cpu = worse(cpu, atMost(1, r[ours].cpu, r[i].cpu))
		}
	}
	if cpu.ratios == nil {
		return "no other proxy is installed"
	}
	return verdict(tps, cpu)
}

// pair gives PostgreSQL and raftproxy.
func (b *bench) pair() (postgres, raftproxy candidate, err error) {
	postgres, ok := b.candidate(postgresName)
	raftproxy, ok2 := b.candidate(raftproxyName)
	if !ok || !ok2 {
		return postgres, raftproxy, errors.New("raftproxy does not run")
	}
	return postgres, raftproxy, nil
}

// fill gives the replicated table the keys that the table kv has.
func (b *bench) fill(port int) error {
	var sets []string
	for i := range keys {
		sets = append(sets, fmt.Sprintf("raftable('%d', 'value %d')", i+1, i+1))
	}
	return sql(b.ctx, port, "SELECT "+strings.Join(sets, ", "))
}

// local has raftproxy answer gets from the table, beside PostgreSQL looking up a primary key.
func (b *bench) local() error {
	postgres, raftproxy, err := b.pair()
	if err != nil {
		return err
	}
	if err := b.fill(raftproxy.port); err != nil {
		return err
	}
	postgres.scripts, err = b.scripts("postgres", "SELECT value FROM kv WHERE key = '%d'", "SELECT value FROM kv WHERE key = :key")
	if err != nil {
		return err
	}
	if raftproxy.scripts, err = b.scripts("raftproxy", "SELECT raftable('%d')", "SELECT raftable(:key)"); err != nil {
		return err
	}
	b.say("Gets per second: `SELECT raftable(…)` through raftproxy, and `SELECT value FROM kv WHERE key = …` of PostgreSQL without " +
		"a proxy.\n\n")
	bars := map[string]float64{"simple": 2.5, "extended": 1.5, "prepared": 1.5}
	return b.table([]candidate{postgres, raftproxy}, "simple,prepared", "8,32", "ratio", func(mode string, r []result) string {
		return verdict(atLeast(bars[mode], r[1].tps, r[0].tps))
	})
}

// rewrite has a call in a condition that PostgreSQL evaluates, beside the same condition with a constant.
func (b *bench) rewrite() error {
	postgres, raftproxy, err := b.pair()
	if err != nil {
		return err
	}
	if err := b.fill(raftproxy.port); err != nil {
		return err
	}
	const constant, call = "SELECT key FROM kv WHERE value = 'value %d'", "SELECT key FROM kv WHERE value = raftable('%d')"
	called := raftproxy
	postgres.name, raftproxy.name, called.name = "PostgreSQL, constant", "raftproxy, constant", "raftproxy, call"
	all := []candidate{postgres, raftproxy, called}
	for i, text := range []string{constant, constant, call} {
		if all[i].scripts, err = b.scripts("rewrite-"+strconv.Itoa(i), text, ""); err != nil {
			return err
		}
	}
	b.say("Transactions per second: `SELECT key FROM kv WHERE value = raftable('7')` and the same with `'value 7'`. The ratio is that of " +
		"the times that both take through raftproxy.\n\n")
	return b.table(all, "simple,prepared", "8,32", "ratio", func(_ string, r []result) string {
		return verdict(atMost(1.25, r[1].tps, r[2].tps))
	})
}

// texts is how many texts, with one key each, stand for those that an application has.
const texts = 10

// scripts writes scripts for pgbench: of a text with the number of a key in it, and of one with the variable key for the modes
// that have parameters; "" for none.
func (b *bench) scripts(name, text, parameter string) (func(mode string) []string, error) {
	var constants, parameters []string
	for i := range texts {
		constants = append(constants, filepath.Join(b.dir, fmt.Sprintf("%s-%d.sql", name, i)))
		if err := os.WriteFile(constants[i], []byte(fmt.Sprintf(text, i+1)+";\n"), 0o644); err != nil {
			return nil, err
		}
	}
	if parameter != "" {
		file := filepath.Join(b.dir, name+".sql")
		script := fmt.Sprintf("\\set key random(1, %d)\n%s;\n", keys, parameter)
		if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
			return nil, err
		}
		parameters = []string{file}
	}
	return func(mode string) []string {
		if mode == "simple" || parameters == nil {
			return constants
		}
		return parameters
	}, nil
}

var idleLine = regexp.MustCompile(`(?m)^(\d+) idle sessions: .* ([0-9.]+) KiB each$`)

// idle lets bench/idle measure what a session costs that does nothing.
func (b *bench) idle() error {
	path, err := filepath.Abs(*program)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(b.ctx, "go", "run", "./bench/idle", "-raftproxy", path)
	cmd.Stdout, cmd.Stderr = &said, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	found := idleLine.FindStringSubmatch(said.String())
	if found == nil {
		return fmt.Errorf("cannot read what bench/idle says: %s", said.String())
	}
	size, _ := strconv.ParseFloat(found[2], 64)
	b.head("sessions", "resident memory of raftproxy for each", "bar of 16 KiB")
	b.row(found[1], found[2]+" KiB", verdict(atMost(1, []float64{size}, []float64{16})))
	return nil
}
