package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// caseFile is one of testdata/sql/oracle; its README has the format.
type caseFile struct {
	path, name string
	head       string // up to the first case, as it is written
	setup      string
	table      map[string]string
	cases      []*testCase
}

// testCase is one case: steps of one session.
type testCase struct {
	title    string
	modes    []string
	encoding string
	before   []string  // run on the session first, unseen
	rebuild  bool      // the setup has to be run again afterwards
	stall    bool      // the proxy's table stands still
	then     []*string // keys and values that the proxy's table must have afterwards
	steps    []*step
}

// step is a statement, or a query string of several.
type step struct {
	lines    []string // as written, up to what is said
	text     string
	params   []*string
	declared []string // types
	limit    int
	refused  bool // by the proxy, at this place
	position int
	ours     bool // what is said is written by hand, and the oracle is not asked
	plan     bool // rows are not compared
	binary   bool // parameters are sent as they are, in the binary format
	want     []string
}

func readCaseFiles(t *testing.T) (files []*caseFile) {
	t.Helper()
	paths, err := filepath.Glob("../../testdata/sql/oracle/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		if filepath.Base(path) == "pending.txt" {
			continue
		}
		f, err := readCaseFile(path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files = append(files, f)
	}
	return files
}

func readCaseFile(path string) (*caseFile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &caseFile{path: path, name: strings.TrimSuffix(filepath.Base(path), ".txt"), table: map[string]string{}}
	titles := map[string]bool{}
	sections := strings.Split("\n"+string(b), "\n== ")
	f.head = strings.TrimLeft(sections[0], "\n")
	for _, section := range sections[1:] {
		title, body, _ := strings.Cut(section, "\n")
		switch {
		case title == "setup":
			f.head += "\n== " + section
			f.setup = body
		case title == "table":
			f.head += "\n== " + section
			words, err := splitWords(strings.ReplaceAll(body, "\n", " "))
			if err != nil || len(words)%2 != 0 {
				return nil, fmt.Errorf("table: %q %v", words, err)
			}
			for pair := range slices.Chunk(words, 2) {
				f.table[pair[0]] = pair[1]
			}
		case titles[title]:
			return nil, fmt.Errorf("two cases are called %q", title)
		default:
			titles[title] = true
			c := &testCase{title: title}
			if err := c.read(body); err != nil {
				return nil, fmt.Errorf("%s: %w", title, err)
			}
			f.cases = append(f.cases, c)
		}
	}
	return f, nil
}

// read reads the paragraphs of a case. One that has nothing but directives and comments belongs to the next.
func (c *testCase) read(body string) error {
	s := &step{}
	for line := range strings.SplitSeq(body+"\n", "\n") {
		said, isSaid := strings.CutPrefix(line, "< ")
		switch {
		case line == "" && s.text == "":
		case line == "":
			s.text = writeOut(s.text)
			c.steps = append(c.steps, s)
			s = &step{}
		case isSaid:
			s.want = append(s.want, said)
		case s.text == "" && strings.HasPrefix(line, "#"):
			s.lines = append(s.lines, line)
		case s.text == "" && strings.HasPrefix(line, "@ "):
			s.lines = append(s.lines, line)
			words, err := splitWords(line[2:])
			if err != nil {
				return err
			}
			if err := c.directive(s, words[0], words[1:], strings.TrimPrefix(line[2:], words[0]+" ")); err != nil {
				return fmt.Errorf("%s: %w", line, err)
			}
		default:
			s.lines = append(s.lines, line)
			if s.text != "" {
				s.text += "\n"
			}
			s.text += line
		}
	}
	if len(c.steps) == 0 {
		return fmt.Errorf("no statement")
	}
	return nil
}

func (c *testCase) directive(s *step, name string, words []string, rest string) (err error) {
	switch name {
	case "modes":
		c.modes = words
	case "encoding":
		c.encoding = words[0]
	case "before":
		c.before = append(c.before, rest)
	case "rebuild":
		c.rebuild = true
	case "stall":
		c.stall = true
	case "then":
		if c.then, err = values(rest); err != nil {
			return err
		}
	case "params":
		if s.params, err = values(rest); err != nil {
			return err
		}
	case "declare":
		s.declared = words
	case "limit":
		s.limit, err = strconv.Atoi(words[0])
	case "refused":
		s.refused = true
		if len(words) > 0 {
			s.position, err = strconv.Atoi(words[0])
		}
	case "ours":
		s.ours = true
	case "plan":
		s.plan = true
	case "binary":
		s.binary = true
	default:
		return fmt.Errorf("no such directive")
	}
	return err
}

// values reads Go-quoted strings and bare words; NULL without quotes is none.
func values(line string) (list []*string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if word, rest, _ := strings.Cut(line, " "); word == "NULL" {
			list, line = append(list, nil), rest
			continue
		}
		word, rest, err := firstWord(line)
		if err != nil {
			return nil, err
		}
		list, line = append(list, &word), rest
	}
	return list, nil
}

func splitWords(line string) (words []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var word string
		if word, line, err = firstWord(line); err != nil {
			return nil, err
		}
		words = append(words, word)
	}
	return words, nil
}

func firstWord(line string) (word, rest string, err error) {
	if line[0] != '"' {
		word, rest, _ = strings.Cut(line, " ")
		return word, rest, nil
	}
	q, err := strconv.QuotedPrefix(line)
	if err != nil {
		return "", "", fmt.Errorf("%w: %s", err, line)
	}
	word, err = strconv.Unquote(q)
	return writeOut(word), line[len(q):], err
}

// times is a text that is to be written many times: {text*1000}.
var times = regexp.MustCompile(`\{([^{}*]+)\*(\d+)\}`)

func writeOut(s string) string {
	return times.ReplaceAllStringFunc(s, func(m string) string {
		p := times.FindStringSubmatch(m)
		n, _ := strconv.Atoi(p[2])
		return strings.Repeat(p[1], n)
	})
}

// write writes the file with what the oracle said.
func (f *caseFile) write() error {
	var b strings.Builder
	b.WriteString(strings.TrimRight(f.head, "\n") + "\n")
	for _, c := range f.cases {
		fmt.Fprintf(&b, "\n== %s\n", c.title)
		for i, s := range c.steps {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(strings.Join(s.lines, "\n") + "\n")
			for _, w := range s.want {
				b.WriteString("< " + w + "\n")
			}
		}
	}
	return os.WriteFile(f.path, []byte(b.String()), 0o644)
}
