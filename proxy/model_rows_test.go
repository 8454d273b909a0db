package proxy

import (
	"strconv"
	"strings"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// Texts of the model that have rows, or run others. The table "rows" has three: h0, h1 and h2 as k, NULL as bad in the second.
const (
	textRows       = "SELECT n FROM rows"
	textRewritten  = "SELECT n FROM rows WHERE raftable('k') IS NULL"
	textHarvested  = "SELECT raftable(k, v), n FROM rows"
	textBadRow     = "SELECT raftable(bad, v) FROM rows"
	textFill       = "INSERT INTO rows SELECT 1 RETURNING raftable(k, v)"
	textBadFill    = "INSERT INTO rows SELECT 1 RETURNING raftable(bad, v)"
	textPrepare    = "PREPARE c AS SELECT n FROM rows WHERE raftable('k') IS NULL"
	textExecute    = "EXECUTE c"
	textExecuteA   = "EXECUTE a"
	textDeallocate = "DEALLOCATE ALL"
	textSetting    = "SET raftable.timeout = '1s'"
)

// rowTexts are texts that may be prepared, batchTexts those that may stand in a query string only.
var (
	rowTexts   = []string{textRows, textRewritten, textHarvested, textBadRow, textRewritten, textHarvested}
	batchTexts = []string{
		textFill, textBadFill, textPrepare, textExecute, textExecuteA, textDeallocate, textSetting,
		strings.Join([]string{textRows, textOurs, textRewritten}, "; "),
		strings.Join([]string{textHarvested, textPlain, textOurs}, "; "),
		strings.Join([]string{textHarvested, textFail, textOurs}, "; "),
		strings.Join([]string{textPlain, textBadRow, textPlain}, "; "),
		strings.Join([]string{textOurs, textBad, textOurs}, "; "),
		strings.Join([]string{textPlain, textOurs, textPlain, textFail}, "; "),
		strings.Join([]string{textFill, textRewritten, textHarvested}, "; "),
		strings.Join([]string{textRewritten, textBadFill}, "; "),
		strings.Join([]string{textBegin, textHarvested, textOurs}, "; "),
		strings.Join([]string{textHarvested, textEnd, textRewritten}, "; "),
		strings.Join([]string{textPrepare, textExecute, textHarvested}, "; "),
		strings.Join([]string{textExecuteA, textOurs, textExecute}, "; "),
		strings.Join([]string{textDeallocate, textExecuteA, textOurs}, "; "),
		strings.Join([]string{textSetting, textHarvested}, "; "),
	}
)

// rowsOf is what the model knows of the rows of a text.
type rowsOf struct {
	n         int
	harvested bool
	bad       int  // the number of the row whose set fails; < 0 for none
	fills     bool // it runs to its end before it answers
}

// rows says what rows a text has; n is 0 for those that have none. Behind the proxy texts are known by what it puts in.
func (m *model) rows(text string) rowsOf {
	r := rowsOf{bad: -1, fills: strings.HasPrefix(text, "INSERT")}
	call := strings.Contains(text, "raftable(k") || strings.Contains(text, "raftable(bad") || strings.Contains(text, "raftable(NULL")
	switch {
	case m.native && call, !m.native && strings.Contains(text, sqlrewrite.HarvestName(0)):
		r.harvested, r.n = true, 1
		if strings.Contains(text, "raftable(NULL") || strings.Contains(text, `"varchar"(NULL`) {
			r.bad = 0
		}
	case m.native && text == textOurs, !m.native && strings.Contains(text, "AS raftable"):
		r.n = 1
	}
	if strings.Contains(text, " rows") {
		r.n = 3
		if strings.Contains(text, "bad") {
			r.bad = 1
		}
	}
	return r
}

// describe is the RowDescription of a text with rows.
func (m *model) describe(text string) {
	if r := m.rows(text); r.harvested && !m.native {
		columns := []string{sqlrewrite.HarvestName(0)}
		if strings.Contains(text, ", n FROM") {
			columns = append(columns, "n")
		}
		m.say('T', string(description(columns...)))
		return
	}
	m.say('T', "")
}

// key is the key in a row.
func (m *model) key(i int) string { return m.prefix + "h" + strconv.Itoa(i) }

// setUpTo does the sets of the first rows.
func (m *model) setUpTo(n int) {
	for i := range n {
		m.sets[m.key(i)] = "v"
	}
}

// fetch says the rows of a text from one on, limit of them at most (0 for all); next is the row after. It is not ok if a set
// fails, which happens where the functions are.
func (m *model) fetch(text string, from, limit int) (next int, ok bool) {
	r := m.rows(text)
	for i := from; i < r.n && (limit == 0 || i-from < limit); i++ {
		next = i + 1
		switch {
		case !r.harvested:
			m.say('D', "")
			continue
		case m.native && i == r.bad:
			return next, false
		case m.native:
			m.sets[m.key(i)] = "v"
			m.say('D', "")
			continue
		}
		key := m.key(i)
		if i == r.bad {
			key = "NULL"
		}
		values := []any{"{" + key + ",v}"}
		if strings.Contains(text, ", n FROM") {
			values = append(values, "1")
		}
		m.say('D', string(row(values...)))
	}
	return max(next, from), true
}

// executed is the text that an EXECUTE runs, and whether there is one; for others it is the text itself.
func (m *model) executed(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, "EXECUTE ")
	if !ok {
		return text, true
	}
	inner := m.stmts[rest[:1]]
	return inner, inner != ""
}

// prepares makes the statement of a PREPARE; handled says whether the text is one.
func (m *model) prepares(text string) (handled, ok bool) {
	if !strings.HasPrefix(text, "PREPARE c") {
		return false, false
	}
	if m.stmts["c"] != "" {
		return true, false
	}
	m.stmts["c"] = text
	return true, true
}

// deallocate drops all statements that have a name.
func (m *model) deallocate() {
	for name := range m.stmts {
		if name != "" && name != "raftproxy" {
			delete(m.stmts, name)
		}
	}
}

// question answers what the proxy asks on its own; asked says whether the text is such a question.
func (m *model) question(text string) (asked bool) {
	if name, ok := strings.CutPrefix(text, "SELECT statement FROM pg_catalog.pg_prepared_statements WHERE name = '"); ok {
		if text := m.stmts[strings.TrimSuffix(name, "'")]; text != "" {
			m.say('D', string(row(text)))
		}
	} else if strings.HasPrefix(text, "SELECT pg_catalog.current_setting") {
		m.say('D', string(row(nil)))
		m.say('D', string(row(nil)))
	} else {
		return false
	}
	m.say('C', "SELECT 1\x00")
	return true
}
