package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// machine says when and on what the figures were made, and what else the machine was doing.
func machine(out io.Writer) {
	_, _ = fmt.Fprintf(out, "%s, %d cores of %s, %s/%s; %s.\n", time.Now().Format("2 January 2006"), runtime.NumCPU(), processor(),
		runtime.GOOS, runtime.GOARCH, strings.Join(versions(), ", "))
	_, _ = fmt.Fprintf(out, "Medians of %d runs, those of pgbench of %d s each after %d s that do not count, in turns of %v.\n",
		*rounds, *seconds, *warmUp, turn)
	if load := load(); load > float64(runtime.NumCPU())/4 {
		_, _ = fmt.Fprintf(out, "\n**The machine had other work to do (a load of %.1f at the start): neither the figures nor the ratios are to be "+
			"relied on.**\n", load)
	}
}

// load is how many processes of others want to run.
func load() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	load, _ := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	return load
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, ok := strings.Cut(string(b), "model name")
	if !ok {
		return "unknown kind"
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(strings.TrimLeft(line, "\t :"))
}

// versions is what is installed of what is compared, each in the first words of its own account.
func versions() (out []string) {
	server, err := pgtest.Program("postgres")
	if err != nil {
		server = "postgres"
	}
	for _, v := range []struct {
		program, arg, name string
	}{{server, "--version", postgresName}, {"pgbouncer", "--version", pgbouncerName}, {"haproxy", "-v", haproxyName}} {
		said, err := exec.Command(v.program, v.arg).Output()
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(said)) {
			if word[0] >= '0' && word[0] <= '9' {
				out = append(out, v.name+" "+word)
				break
			}
		}
	}
	return out
}
