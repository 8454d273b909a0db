package sqlrewrite

import "fmt"

// The refusals that are the proxy's own, not PostgreSQL's.

const (
	codeNotSupported = "0A000"

	hintPlaces = "Calls can be the output columns of a SELECT that has nothing else, as in SELECT raftable('key'), " +
		"and raftable() can stand alone in FROM, as in SELECT * FROM raftable()."
	hintArguments = "A key or value can be a string constant, NULL or a parameter, with or without a cast to text or varchar; " +
		"a timeout can be an integer, NULL or a parameter."
)

// refusePlace is for a call that can be served one day, in a place where it is not served today.
func refusePlace(pos int) *Refusal {
	return &Refusal{Code: codeNotSupported, Message: "raftable() cannot be used here yet", Hint: hintPlaces, Position: pos}
}

// refuseSet is for a set where none will ever be served: it would not be clear how often it runs.
func refuseSet(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable(key, value) cannot be used here",
		Hint: "A set can only be an output column of a SELECT, as in SELECT raftable('key', 'value').", Position: pos,
	}
}

// refuseArgument is for an argument that only postgres could evaluate.
func refuseArgument(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable() cannot be used with such an argument yet",
		Hint: hintArguments, Position: pos,
	}
}

func refuseOutput(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable() in FROM cannot be used with such an output column yet",
		Hint: "Use *, or columns by their names.", Position: pos,
	}
}

func refuseLongName(pos int) *Refusal {
	return &Refusal{
		Code: codeNotSupported, Message: "raftable() cannot be used in a statement with an identifier longer than 63 bytes yet",
		Position: pos,
	}
}

func refuseBackslash(pos int) *Refusal {
	return &Refusal{
		Code:     codeNotSupported,
		Message:  "raftable() cannot be used in a statement with backslashes in plain constants while standard_conforming_strings is off",
		Hint:     "Write such a constant as E'...', or pass it as a parameter.",
		Position: pos,
	}
}

// fail is an error as PostgreSQL would raise it.
func fail(pos int, code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...), Position: pos}
}
