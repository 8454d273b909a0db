package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// machine says when and on what the figures were made, and what else the machine was doing.
func machine(out io.Writer) {
	fmt.Fprintf(out, "%s, %d cores of %s, %s/%s; %s.\n", time.Now().Format("2 January 2006"), runtime.NumCPU(), processor(),
		runtime.GOOS, runtime.GOARCH, strings.Join(versions(), ", "))
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Fprintf(out, "Load of the machine by others at the start: %s.\n", strings.Fields(string(load))[0])
	}
	fmt.Fprintf(out, "Medians of %d runs, those of pgbench of %d s each.\n", *rounds, *seconds)
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
