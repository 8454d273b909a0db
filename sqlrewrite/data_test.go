package sqlrewrite

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what is read now into the files of testdata/sql")

// A sqlCase is a case of a file in testdata/sql.
type sqlCase struct {
	title, text, want string
	options           Options
	declares          bool
	declared          []uint32
}

// sqlFile is a file of cases, with what stands before the first.
type sqlFile struct {
	path, head string
	cases      []sqlCase
}

func readSQLFiles(t testing.TB) []sqlFile {
	paths, err := filepath.Glob("../testdata/sql/*.txt")
	if err != nil || len(paths) < 8 {
		t.Fatalf("found %d files of cases: %v", len(paths), err)
	}
	var files []sqlFile
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(b), "\n== ")
		f := sqlFile{path: path, head: parts[0]}
		for _, part := range parts[1:] {
			f.cases = append(f.cases, readSQLCase(t, path, part))
		}
		files = append(files, f)
	}
	return files
}

func readSQLCase(t testing.TB, path, s string) sqlCase {
	c := sqlCase{options: standard}
	var ok bool
	c.title, s, _ = strings.Cut(s, "\n")
	for strings.HasPrefix(s, "@ ") {
		var option string
		option, s, _ = strings.Cut(s, "\n")
		switch name, value, _ := strings.Cut(option[2:], " "); {
		case option == "@ standard_conforming_strings = off":
			c.options.StandardConformingStrings = false
		case name == "declare":
			c.declares = true
			for _, oid := range strings.Fields(value) {
				n, err := strconv.ParseUint(oid, 10, 32)
				if err != nil {
					t.Fatalf("%s: %s: %v", path, c.title, err)
				}
				c.declared = append(c.declared, uint32(n))
			}
		default:
			t.Fatalf("%s: %s: no such option: %s", path, c.title, option)
		}
	}
	if c.text, c.want, ok = strings.Cut(s, "\n----\n"); !ok {
		t.Fatalf("%s: %s: no line of four dashes", path, c.title)
	}
	c.want = strings.TrimSpace(c.want)
	return c
}

func (c *sqlCase) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n== %s\n", c.title)
	if !c.options.StandardConformingStrings {
		b.WriteString("@ standard_conforming_strings = off\n")
	}
	if c.declares {
		b.WriteString(strings.TrimSuffix("@ declare "+strings.Trim(fmt.Sprint(c.declared), "[]"), " ") + "\n")
	}
	fmt.Fprintf(&b, "%s\n----\n%s\n", c.text, c.want)
	return b.String()
}

// TestData compares what is read with what the files say.
func TestData(t *testing.T) {
	for _, f := range readSQLFiles(t) {
		out := f.head
		for _, c := range f.cases {
			got := describe(c)
			if got != c.want && !*rewrite {
				t.Errorf("%s: %s\n%s\ngot:\n%s\nwant:\n%s", filepath.Base(f.path), c.title, c.text, got, c.want)
			}
			c.want = got
			out += c.String()
		}
		if *rewrite {
			if err := os.WriteFile(f.path, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDataConcurrently reads all cases in many goroutines at once.
func TestDataConcurrently(t *testing.T) {
	files := readSQLFiles(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for _, f := range files {
				for _, c := range f.cases {
					if got := describe(c); got != c.want {
						t.Errorf("%s: %s: got:\n%s", filepath.Base(f.path), c.title, got)
					}
				}
			}
		})
	}
	group.Wait()
}

// TestUnreadable shows what cannot be written in a file of cases.
func TestUnreadable(t *testing.T) {
	for _, text := range []string{
		"", "raftable(", "SELECT raftable('k')\x00", "SELECT raftable('\xff')", "SELECT raftable('k') AS \xc3",
		"\ufeffSELECT raftable('k'); \x80", "SELECT raftable(" + strings.Repeat("(", 100_000) + "'k'",
		"SELECT raftable('k')" + strings.Repeat("+1", 100_000),
	} {
		if p := Parse(text, standard); p.Class != ClassNone || p.Statements != nil {
			t.Errorf("%.40q: class %d", text, p.Class)
		}
	}
}

// describe says what is read in a case, for a person.
func describe(c sqlCase) string {
	p := Parse(c.text, c.options)
	if p.Class == ClassNone {
		return "none"
	}
	var b strings.Builder
	for _, s := range p.Statements {
		b.WriteString(className(s.Class))
		if len(p.Statements) > 1 {
			fmt.Fprintf(&b, " %q", c.text[s.Start:s.End])
		}
		if s.Refusal != nil {
			b.WriteString(" " + describeRefusal(s.Refusal))
		}
		b.WriteString("\n")
		if s.Control != ControlNone {
			b.WriteString("  control " + [...]string{
				ControlBegin: "begin", ControlCommit: "commit", ControlRollback: "rollback", ControlPrepare: "prepare transaction",
				ControlWithin: "within a block", ControlNeedsBlock: "needs block", ControlCopyIn: "copy in", ControlAlone: "alone",
			}[s.Control] + "\n")
		}
		if s.Fetches != "" {
			fmt.Fprintf(&b, "  fetches %s\n", s.Fetches)
		}
		if s.FirstParam > 0 && s.Class == ClassNone {
			b.WriteString("  takes parameters\n")
		}
		switch {
		case s.Local != nil:
			describeLocal(&b, s.Local, c)
		case s.Command != nil:
			describeCommand(&b, s.Command)
		case s.Rewrite != nil:
			describeRewrite(&b, s, c)
		}
	}
	return strings.TrimSpace(b.String())
}

func className(c Class) string {
	return [...]string{
		ClassNone: "none", ClassStored: "stored", ClassLocal: "local", ClassCommand: "command",
		ClassRewritten: "rewritten", ClassHarvested: "harvested", ClassRefused: "refused",
	}[c]
}

func describeRefusal(r *Refusal) string {
	s := r.Code
	if r.Position > 0 {
		s += fmt.Sprintf(" at %d", r.Position)
	}
	s += ": " + r.Message
	if r.Detail != "" {
		s += "\n  detail: " + r.Detail
	}
	if r.Hint != "" {
		s += "\n  hint: " + r.Hint
	}
	return s
}

func describeLocal(b *strings.Builder, l *Local, c sqlCase) {
	for _, col := range l.Columns {
		fmt.Fprintf(b, "  %s = %s", col.Name, [...]string{"get", "set", "records", "key", "value"}[col.Op])
		for i, a := range col.Args {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(" " + describeArg(a))
		}
		b.WriteString("\n")
	}
	if len(l.Params) > 0 {
		b.WriteString("  params")
		for i, p := range l.Params {
			if i == 5 {
				fmt.Fprintf(b, " ... (%d)", len(l.Params))
				break
			}
			b.WriteString(" " + [...]string{"none", "varchar", "text", "int4"}[p])
		}
		b.WriteString("\n")
	}
	if r := l.RefuseParams(); r != nil {
		fmt.Fprintf(b, "  simple query: %s\n", describeRefusal(r))
	}
	if types, r := l.ResolveParams(c.declared); r != nil {
		fmt.Fprintf(b, "  declared: %s\n", describeRefusal(r))
	} else if c.declares {
		fmt.Fprintf(b, "  declared %v\n", types)
	}
}

func describeCommand(b *strings.Builder, c *Command) {
	fmt.Fprintf(b, "  %s", [...]string{"set", "show", "create extension", "drop extension"}[c.Op])
	if c.Setting != "" {
		b.WriteString(" " + c.Setting)
	}
	if c.IfExists {
		b.WriteString(", if it is due")
	}
	b.WriteString("\n")
}

func describeRewrite(b *strings.Builder, s Statement, c sqlCase) {
	r := s.Rewrite
	if r.Literals {
		b.WriteString("  literals\n")
	}
	if r.Prepares != "" {
		fmt.Fprintf(b, "  prepares %s\n", r.Prepares)
	}
	first := s.MaxParam + 1
	fmt.Fprintf(b, "  sql %s\n", strings.ReplaceAll(r.Text(c.text, first), "\n", "\n      "))
	for i, v := range r.Values {
		fmt.Fprintf(b, "  $%d = %s", first+i, [...]string{"get", "object", "list", "rows"}[v.Kind])
		if v.Kind == ValueGet {
			b.WriteString(" " + describeArg(v.Key))
		}
		b.WriteString("\n")
	}
	for i, h := range r.Harvest {
		fmt.Fprintf(b, "  column %d = %s = %s of %d@%d\n", i, h.Name, [...]string{"get", "set"}[h.Op], h.Args, h.Position)
	}
	if f := r.Conflict(c.declared); f != nil {
		fmt.Fprintf(b, "  when it is prepared: %s at %d: %s (%s)\n", f.Code, f.Position, f.Message, f.Detail)
	}
	if e := r.For(c.declared); !slices.Equal(e.Pieces, r.Pieces) {
		fmt.Fprintf(b, "  declared sql %s\n", e.Text(c.text, max(first, len(c.declared)+1)))
	}
}

func describeArg(a Arg) string {
	var s string
	switch {
	case a.Param > 0:
		s = fmt.Sprintf("$%d", a.Param)
	case a.Null:
		s = "NULL"
	case a.Type == oidInt4:
		s = a.Value
	default:
		s = "'" + strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(a.Value) + "'"
	}
	s += fmt.Sprintf("@%d", a.Position)
	if a.Type != 0 {
		s += " " + map[uint32]string{oidText: "text", oidVarchar: "varchar", oidInt4: "int4"}[a.Type]
	}
	return s
}
