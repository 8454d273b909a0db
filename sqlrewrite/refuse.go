package sqlrewrite

import "fmt"

// The refusals that are the proxy's own, not PostgreSQL's.

const codeNotSupported = "0A000"

// refusePlace is for a call in a statement of a kind that cannot be served.
func refusePlace(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable() cannot be used here",
		Hint: "Call it in a SELECT, INSERT, UPDATE, DELETE, MERGE, COPY or CALL.", Position: pos,
	}
}

// refuseArgument is for an argument that only postgres can evaluate, in a statement that is to be answered without it.
func refuseArgument(pos int) *Refusal {
	return &Refusal{Code: codeNotSupported, Message: "raftable() cannot be used with such an argument", Position: pos}
}

// refuseOutput is for an output column that only postgres can evaluate.
func refuseOutput(pos int) *Refusal {
	return &Refusal{Code: codeNotSupported, Message: "raftable() cannot be used with such an output column", Position: pos}
}

// refuseSet is for a set where none will ever be served: it would not be clear how often it runs.
func refuseSet(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable(key, value) cannot be used here",
		Hint:     "A set can only be an output column of a SELECT, as in SELECT raftable('key', 'value'), or of RETURNING.",
		Position: pos,
	}
}

// refuseBesideSet is for a get or a list that should see what a set in the same list of columns has done.
func refuseBesideSet(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable() cannot be used in an expression beside a set that may change its result",
		Hint:     "Let it be an output column by itself, or use two statements.",
		Position: pos,
	}
}

// refuseSortKey is for a get that is run row by row and should also sort or group the rows.
func refuseSortKey(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable() beside a set cannot sort or group the rows",
		Hint: "Use two statements.", Position: pos,
	}
}

// fail is an error as PostgreSQL would raise it.
func fail(pos int, code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...), Position: pos}
}
