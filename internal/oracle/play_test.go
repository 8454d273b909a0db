package oracle

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The modes in which a case is run.
const (
	modeSimple   = "simple"   // a Query for each step
	modeText     = "text"     // the extended protocol with the unnamed statement, a Sync behind each step
	modeBinary   = "binary"   // the same with results, and parameters where we can, in the binary format
	modePrepared = "prepared" // a named statement; a case of one step runs twice, with another table the second time
	modeLimited  = "limited"  // few rows at a time
	modePipeline = "pipeline" // all steps in the extended protocol, sent at once, with one Sync behind
)

var allModes = []string{modeSimple, modeText, modeBinary, modePrepared, modeLimited, modePipeline}

// modesOf gives the modes of a case. The first is the one that is written into the file.
func modesOf(c *testCase) []string {
	special := slices.ContainsFunc(c.steps, func(s *step) bool { return s.refused || s.ours })
	withParams := slices.ContainsFunc(c.steps, func(s *step) bool { return s.params != nil || s.declared != nil })
	counted := 1
	if slices.ContainsFunc(c.steps, func(s *step) bool { return s.plan }) {
		counted = 0 // how many rows a plan has may differ
	}
	switch {
	case c.modes != nil:
		return c.modes
	case special && withParams:
		return []string{modeText}
	case special:
		return []string{modeSimple, modeText}
	case withParams:
		return []string{modeText, modeSimple, modeBinary, modePrepared, modeLimited}[:4+counted]
	case len(c.steps) == 1:
		return allModes[:4+counted]
	case counted == 0:
		return slices.DeleteFunc(slices.Clone(allModes), func(m string) bool { return m == modeLimited })
	}
	return allModes
}

var typeOIDs = map[string]int32{
	"unspecified": 0, "bool": 16, "bytea": 17, "char": 18, "name": 19, "int8": 20, "int2": 21, "int4": 23, "text": 25, "oid": 26, "json": 114,
	"float8": 701, "unknown": 705, "bpchar": 1042, "varchar": 1043, "date": 1082, "numeric": 1700, "regclass": 2205,
	"uuid": 2950, "jsonb": 3802, "text[]": 1009, "varchar[]": 1015,
}

func (s *step) oids(names *names) []int32 {
	var oids []int32
	for _, d := range s.declared {
		oid, ok := typeOIDs[d]
		for known, name := range names.known {
			if name == d {
				oid, ok = int32(known), true
			}
		}
		if !ok {
			panic("no such type: " + d)
		}
		oids = append(oids, oid)
	}
	return oids
}

// sendParse gathers a Parse.
func (w *conn) sendParse(name string, s *step) {
	oids := s.oids(w.names)
	parts := []any{name, s.text, int16(len(oids))}
	for _, o := range oids {
		parts = append(parts, o)
	}
	w.message('P', parts...)
}

// sendBind gathers a Bind. In the binary mode parameters are binary where their declared types are known to look the same
// in both formats, or are integers.
func (w *conn) sendBind(portal, name string, s *step, mode string) {
	parts := []any{portal, name}
	var formats, params []any
	anyBinary := false
	for i, p := range s.params {
		format, value := int16(0), []byte(nil)
		if p != nil {
			value = []byte(*p)
		}
		if s.binary {
			format = 1
		} else if mode == modeBinary && i < len(s.declared) {
			if b, ok := binaryValue(s.declared[i], value); ok {
				format, value = 1, b
			}
		}
		anyBinary = anyBinary || format == 1
		formats = append(formats, format)
		if p == nil {
			params = append(params, int32(-1))
		} else {
			params = append(params, int32(len(value)), value)
		}
	}
	if !anyBinary {
		formats = nil
	}
	parts = append(append(parts, int16(len(formats))), formats...)
	parts = append(append(parts, int16(len(s.params))), params...)
	if mode == modeBinary {
		parts = append(parts, int16(1), int16(1))
	} else {
		parts = append(parts, int16(0))
	}
	w.message('B', parts...)
}

func binaryValue(typ string, value []byte) ([]byte, bool) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	switch typ {
	case "text", "varchar", "bpchar", "name", "unknown":
		return value, true
	case "int4":
		return binary.BigEndian.AppendUint32(nil, uint32(n)), err == nil
	case "int8":
		return binary.BigEndian.AppendUint64(nil, uint64(n)), err == nil
	case "int2":
		return binary.BigEndian.AppendUint16(nil, uint16(n)), err == nil
	}
	return nil, false
}

func (w *conn) execute(limit int) { w.message('E', "", int32(limit)) }

// playStep runs a step in a mode and tells what was said. between is called between the two runs of a prepared statement;
// without it there is one.
func (w *conn) playStep(s *step, mode string, between func() error) (said []string) {
	if s.plan && mode == modeLimited {
		mode = modeText // how many rows a plan has is nobody's business
	}
	switch mode {
	case modeSimple:
		said = w.query(s.text)
	case modeText, modeBinary:
		w.sendParse("", s)
		w.message('D', byte('S'), "")
		w.sendBind("", "", s, mode)
		w.message('D', byte('P'), "")
		w.execute(s.limit)
		w.message('S')
		said = w.until('Z')
	case modePrepared:
		said = w.playPrepared(s, between)
	case modeLimited:
		said = w.playLimited(s)
	default:
		panic("no such mode: " + mode)
	}
	if s.plan {
		said = withoutRows(said)
	}
	return said
}

func (w *conn) playPrepared(s *step, between func() error) (said []string) {
	w.sendParse("s", s)
	w.message('D', byte('S'), "s")
	w.message('S')
	said = w.until('Z')
	for n := range 2 {
		if n == 1 {
			if between == nil {
				break
			}
			if err := between(); err != nil {
				return append(said, err.Error())
			}
		}
		w.sendBind("", "s", s, modePrepared)
		w.execute(s.limit)
		w.message('S')
		said = append(said, w.until('Z')...)
	}
	w.message('C', byte('S'), "s")
	w.message('S')
	return append(said, w.until('Z')...)
}

// rounds is how many times rows are asked for before they are left lying.
const rounds = 6

func (w *conn) playLimited(s *step) (said []string) {
	w.sendParse("", s)
	w.sendBind("p", "", s, modeLimited)
	w.message('D', byte('P'), "p")
	for range rounds {
		w.message('E', "p", int32(max(s.limit, 2)))
		w.message('H')
		said = append(said, w.until('s', 'C', 'I', 'E')...)
		if w.err != nil || !strings.HasPrefix(said[len(said)-1], "s") {
			break
		}
	}
	w.message('C', byte('P'), "p") // which in a transaction outlives the Sync
	w.message('S')
	return append(said, w.until('Z')...)
}

// playPipeline sends all steps at once.
func (w *conn) playPipeline(steps []*step) []string {
	for _, s := range steps {
		w.sendParse("", s)
		w.sendBind("", "", s, modePipeline)
		w.message('D', byte('P'), "")
		w.execute(s.limit)
	}
	w.message('S')
	return w.until('Z')
}

// withoutRows leaves a sign for any number of rows.
func withoutRows(said []string) (out []string) {
	for _, line := range said {
		if !strings.HasPrefix(line, "D") {
			out = append(out, line)
		} else if len(out) == 0 || out[len(out)-1] != "D (a plan)" {
			out = append(out, "D (a plan)")
		}
	}
	return out
}

// checkRefused says what is wrong with an answer that should be a refusal.
func checkRefused(said []string, position int) error {
	errors := 0
	for _, line := range said {
		switch {
		case strings.HasPrefix(line, `E S="ERROR" C="0A000"`) && strings.Contains(line, ` H="`):
			errors++
			if position > 0 && !strings.Contains(line, fmt.Sprintf(` P="%d"`, position)) {
				return fmt.Errorf("not refused at %d: %s", position, line)
			}
		case line[0] == 'E', line[0] == 'D', line[0] == 'C':
			return fmt.Errorf("not refused: %s", line)
		}
	}
	if errors != 1 {
		return fmt.Errorf("not refused: %q", said)
	}
	return nil
}
