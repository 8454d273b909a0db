// Command raftproxy runs a node of a replicated key-value table in front of a PostgreSQL server, and talks to nodes that
// run. It only reads the command line and puts the other packages together.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/raftproxy/raftproxy/internal/config"
)

// Exit codes. A node or a command that failed gives exitFailed, a wrong command line or setting exitUsage.
const (
	exitFailed = 1
	exitUsage  = 2
)

// version is set by the linker for releases.
var version string

// cli is the command line.
type cli struct {
	Serve       serveCmd       `cmd:"" help:"Run a node until SIGTERM or SIGINT."`
	Demo        demoCmd        `cmd:"" help:"Run a whole group on this machine, each node with a throw-away PostgreSQL, until Ctrl-C."`
	Get         getCmd         `cmd:"" help:"Print the value of a key."`
	Set         setCmd         `cmd:"" help:"Set a key."`
	Delete      deleteCmd      `cmd:"" help:"Delete a key. One that is not there is no error."`
	List        listCmd        `cmd:"" help:"Print all keys and values, by key."`
	Status      statusCmd      `cmd:"" help:"Print what a node knows about itself and its group."`
	CheckConfig checkConfigCmd `cmd:"" help:"Check the settings that serve would run with, and run nothing."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, os.Exit))
}

// parse reads a command line. exit is called for --help.
func parse(args []string, s streams, exit func(int)) (*cli, *kong.Context, error) {
	c := &cli{}
	parser, err := kong.New(c,
		kong.Name("raftproxy"),
		kong.Description("A PostgreSQL proxy with a key-value table that is replicated over Raft."),
		kong.Configuration(config.YAML),
		kong.Writers(s.out, s.err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return nil, nil, err // the declarations above are wrong
	}
	ctx, err := parser.Parse(args)
	return c, ctx, err
}

// usageError is a wrong command line or wrong settings: a line each.
type usageError struct{ lines []string }

// Error is all lines.
func (e *usageError) Error() string { return strings.Join(e.lines, "\n") }

// run is main without the process around it.
func run(args []string, s streams, exit func(int)) (code int) {
	_, ctx, err := parse(args, s, exit)
	if err != nil {
		report(s.err, strings.ReplaceAll(err.Error(), "\n", " "))
		return exitUsage
	}
	err = ctx.Run(s, arguments(args))
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		report(s.err, usage.lines...)
		return exitUsage
	default:
		report(s.err, err.Error())
		return exitFailed
	}
}

// arguments are the command line as it was given, for a command that reads it again.
type arguments []string

// report writes lines for a person, each with the program's name before it.
func report(w io.Writer, lines ...string) {
	for _, line := range lines {
		_, _ = fmt.Fprintln(w, "raftproxy: "+strings.TrimSpace(line))
	}
}

// check turns faults of settings into an error.
func check(s *config.Settings) error {
	faults := s.Check()
	if len(faults) == 0 {
		return nil
	}
	e := &usageError{}
	for _, f := range faults {
		e.lines = append(e.lines, f.String())
	}
	return e
}

type checkConfigCmd struct {
	config.Settings `embed:""`
}

// Run reports whether the settings are good.
func (c *checkConfigCmd) Run(s streams) error {
	if err := check(&c.Settings); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out, "the settings are good")
	return err
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s streams) error {
	_, err := fmt.Fprintf(s.out, "raftproxy %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// versionText is the version that the linker or the module system knows.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
