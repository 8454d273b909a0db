package sqlrewrite

import (
	"math"
	"strconv"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

const (
	settingConsistency = word + ".consistency"
	settingTimeout     = word + ".timeout"
)

// aboutWatch looks at the identifiers of a text for a statement about a setting of the function or its extension. It may see
// one where there is none.
type aboutWatch struct {
	extension bool // the word "extension" was there
	word      bool // the identifier before is the function's name
}

// add takes the next identifier, and reports whether there may be such a statement.
func (a *aboutWatch) add(text string, t token) bool {
	s := text[t.start:t.end]
	if t.kind == kQuoted {
		s = s[1 : len(s)-1]
	}
	was := a.word
	a.word = foldsTo(s, word)
	a.extension = a.extension || foldsTo(s, "extension")
	switch len(s) {
	case len("timeout"), len("consistency"):
		return was && (foldsTo(s, "timeout") || foldsTo(s, "consistency"))
	case len(word):
		return a.word && a.extension
	}
	return foldsTo(s, settingConsistency) || foldsTo(s, settingTimeout)
}

// commandOf reads a statement about a setting or the extension; it is ClassNone for others.
func commandOf(n *pg_query.Node) Statement {
	c := &Command{}
	switch s := n.GetNode().(type) {
	case *pg_query.Node_VariableSetStmt:
		c.Op, c.Setting = CommandSet, settingOf(s.VariableSetStmt.Name)
		if c.Setting != "" {
			if refusal := checkSet(c.Setting, s.VariableSetStmt); refusal != nil {
				return refused(refusal)
			}
		}
	case *pg_query.Node_VariableShowStmt:
		c.Op, c.Setting = CommandShow, settingOf(s.VariableShowStmt.Name)
	case *pg_query.Node_CreateExtensionStmt:
		if s.CreateExtensionStmt.Extname == word {
			return Statement{Class: ClassCommand, Command: &Command{Op: CommandCreateExtension, IfExists: s.CreateExtensionStmt.IfNotExists}}
		}
	case *pg_query.Node_DropStmt:
		d := s.DropStmt
		if d.RemoveType == pg_query.ObjectType_OBJECT_EXTENSION && len(d.Objects) == 1 && d.Objects[0].GetString_().GetSval() == word {
			return Statement{Class: ClassCommand, Command: &Command{Op: CommandDropExtension, IfExists: d.MissingOk}}
		}
	}
	if c.Setting == "" {
		return Statement{}
	}
	return Statement{Class: ClassCommand, Command: c}
}

// settingOf gives the setting in lower case, "" if it is none of ours. Names of settings are the same in all cases, even in quotes.
func settingOf(name string) string {
	switch {
	case foldsTo(name, settingConsistency):
		return settingConsistency
	case foldsTo(name, settingTimeout):
		return settingTimeout
	}
	return ""
}

// checkSet refuses a value that no session may have. What is no value at all is postgres' to refuse.
func checkSet(setting string, s *pg_query.VariableSetStmt) *Refusal {
	if s.Kind != pg_query.VariableSetKind_VAR_SET_VALUE || len(s.Args) != 1 {
		return nil
	}
	switch v := s.Args[0].GetAConst().GetVal().(type) {
	case *pg_query.A_Const_Sval:
		return CheckSetting(setting, v.Sval.Sval)
	case *pg_query.A_Const_Ival:
		return CheckSetting(setting, strconv.Itoa(int(v.Ival.Ival)))
	case *pg_query.A_Const_Fval:
		return CheckSetting(setting, v.Fval.Fval)
	}
	return nil
}

// CheckSetting gives PostgreSQL's error for a value that a setting cannot have, nil if it can have it. The setting is
// "raftable.consistency" or "raftable.timeout".
func CheckSetting(setting, value string) *Refusal {
	if setting == settingConsistency {
		if foldsTo(value, "local") || foldsTo(value, "linearizable") {
			return nil
		}
		r := invalidSetting(setting, value)
		r.Hint = "Available values: local, linearizable."
		return r
	}
	ms, refusal := parseTimeout(value)
	switch {
	case refusal != nil:
		return refusal
	case ms <= 0:
		return fail(0, "22023", "%d ms is outside the valid range for parameter \"%s\" (1 .. %d)", ms, settingTimeout, math.MaxInt32)
	}
	return nil
}

func invalidSetting(setting, value string) *Refusal {
	return fail(0, "22023", "invalid value for parameter \"%s\": \"%s\"", setting, value)
}

// TimeoutOf gives the milliseconds that a value of raftable.timeout means; it is not ok for a value that the setting cannot have.
func TimeoutOf(value string) (ms int, ok bool) {
	ms, refusal := parseTimeout(value)
	return ms, refusal == nil && ms > 0
}

// timeUnits are the units that a time may have, in milliseconds. PostgreSQL rounds to a multiple of the next smaller one first.
var timeUnits = map[string]struct{ ms, step float64 }{
	"us": {0.001, 0}, "": {1, 0.001}, "ms": {1, 0.001}, "s": {1000, 1}, "min": {60_000, 1000}, "h": {3_600_000, 60_000}, "d": {86_400_000, 3_600_000},
}

// octalPrefix gives the digits that a number begins with if C reads them as octal ones.
func octalPrefix(number string) string {
	s := strings.TrimLeft(number, "+-")
	if len(s) < 2 || s[0] != '0' || s[1]|0x20 == 'x' {
		return ""
	}
	if end := strings.IndexAny(s, ".eE"); end >= 0 {
		s = s[:end]
	}
	return s
}

// parseTimeout reads an integer setting with a unit of time as PostgreSQL does.
func parseTimeout(value string) (ms int, refusal *Refusal) {
	const blanks = " \t\n\v\f\r"
	s := strings.TrimLeft(value, blanks)
	number, digits := numberPrefix(s)
	n, err := strconv.ParseFloat(number, 64)
	if i, e := strconv.ParseInt(number, 0, 64); e == nil {
		n, err = float64(i), nil
	}
	if digits == 0 || err != nil {
		return 0, invalidSetting(settingTimeout, value)
	}
	unit, known := timeUnits[strings.Trim(s[len(number):], blanks)]
	if strings.TrimLeft(octalPrefix(number), "01234567") != "" {
		known = false // its number ends before the digit
	}
	if !known {
		r := invalidSetting(settingTimeout, value)
		r.Hint = `Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".`
		return 0, r
	}
	if n *= unit.ms; unit.step > 0 {
		n = math.RoundToEven(n/unit.step) * unit.step
	}
	n = math.RoundToEven(n)
	if n > math.MaxInt32 || n < math.MinInt32 {
		r := invalidSetting(settingTimeout, value)
		r.Hint = "Value exceeds integer range."
		return 0, r
	}
	return int(n), nil
}

// numberPrefix gives the number that s begins with, as C reads numbers, and how many digits it has.
func numberPrefix(s string) (number string, digits int) {
	i := 0
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		i++
	}
	if len(s) > i+2 && s[i] == '0' && s[i+1]|0x20 == 'x' {
		for i += 2; i < len(s) && strings.IndexByte("0123456789abcdefABCDEF", s[i]) >= 0; i++ {
			digits++
		}
		return s[:i], digits
	}
	for point := false; i < len(s) && (classes[s[i]] == cDigit || s[i] == '.' && !point); i++ {
		if s[i] == '.' {
			point = true
		} else {
			digits++
		}
	}
	if digits > 0 && i < len(s) && s[i]|0x20 == 'e' {
		j := i + 1
		if j < len(s) && (s[j] == '+' || s[j] == '-') {
			j++
		}
		if j < len(s) && classes[s[j]] == cDigit {
			for i = j; i < len(s) && classes[s[i]] == cDigit; i++ {
			}
		}
	}
	return s[:i], digits
}

// cursorHold is the option WITH HOLD of DECLARE.
const cursorHold = 0x0020

// controlOf says what a statement does to transactions.
func controlOf(n *pg_query.Node) Control {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_TransactionStmt:
		switch s.TransactionStmt.Kind {
		case pg_query.TransactionStmtKind_TRANS_STMT_BEGIN, pg_query.TransactionStmtKind_TRANS_STMT_START:
			return ControlBegin
		case pg_query.TransactionStmtKind_TRANS_STMT_SAVEPOINT, pg_query.TransactionStmtKind_TRANS_STMT_RELEASE,
			pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
			return ControlWithin
		case pg_query.TransactionStmtKind_TRANS_STMT_PREPARE:
			return ControlPrepare
		case pg_query.TransactionStmtKind_TRANS_STMT_COMMIT, pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK:
			switch {
			case s.TransactionStmt.Chain:
				return ControlWithin
			case s.TransactionStmt.Kind == pg_query.TransactionStmtKind_TRANS_STMT_COMMIT:
				return ControlCommit
			}
			return ControlRollback
		case pg_query.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED, pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
			return ControlAlone
		}
	case *pg_query.Node_VacuumStmt, *pg_query.Node_CreatedbStmt, *pg_query.Node_DropdbStmt, *pg_query.Node_AlterDatabaseStmt,
		*pg_query.Node_CreateTableSpaceStmt, *pg_query.Node_DropTableSpaceStmt, *pg_query.Node_ReindexStmt, *pg_query.Node_ClusterStmt,
		*pg_query.Node_AlterSystemStmt, *pg_query.Node_CreateSubscriptionStmt, *pg_query.Node_AlterSubscriptionStmt,
		*pg_query.Node_DropSubscriptionStmt:
		return ControlAlone
	case *pg_query.Node_DiscardStmt:
		if s.DiscardStmt.Target == pg_query.DiscardMode_DISCARD_ALL {
			return ControlAlone
		}
	case *pg_query.Node_IndexStmt:
		if s.IndexStmt.Concurrent {
			return ControlAlone
		}
	case *pg_query.Node_DropStmt:
		if s.DropStmt.Concurrent {
			return ControlAlone
		}
	case *pg_query.Node_DeclareCursorStmt:
		if s.DeclareCursorStmt.Options&cursorHold == 0 {
			return ControlNeedsBlock
		}
	case *pg_query.Node_VariableSetStmt:
		if s.VariableSetStmt.IsLocal || s.VariableSetStmt.Kind == pg_query.VariableSetKind_VAR_SET_MULTI && s.VariableSetStmt.Name == "TRANSACTION" {
			return ControlNeedsBlock
		}
	case *pg_query.Node_LockStmt, *pg_query.Node_ConstraintsSetStmt, *pg_query.Node_CallStmt, *pg_query.Node_DoStmt:
		return ControlNeedsBlock
	case *pg_query.Node_CopyStmt:
		if c := s.CopyStmt; c.IsFrom && c.Filename == "" && !c.IsProgram {
			return ControlCopyIn
		}
	}
	return ControlNone
}
