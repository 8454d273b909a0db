package sqlrewrite

// Options are the settings of a session that change how its text is read.
type Options struct {
	// StandardConformingStrings is the session's setting of that name (on by default). When it is
	// off, a text with a call and with a backslash in a plain quoted constant is refused.
	StandardConformingStrings bool
}

// Class says what is to become of a statement. The order matters: a plan has the highest class of its
// statements.
type Class uint8

const (
	// ClassNone is a statement without a call, or a text that cannot be read.
	ClassNone Class = iota
	// ClassLocal is a statement that can be answered from the table alone.
	ClassLocal
	// ClassStored is a definition that postgres keeps and that has a call in it.
	ClassStored
	// ClassRefused is a statement with a call that cannot be served.
	ClassRefused
)

// Plan is what a text contains. It is not changed after Parse, may be shared between goroutines, and
// keeps no part of the text alive.
type Plan struct {
	// Class is ClassNone when no statement has a call or when the text cannot be read; the whole text
	// is then to be forwarded. Otherwise it is the highest class of Statements, which may be mixed.
	Class Class
	// Statements are in text order. Empty statements are left out, as postgres does. Nil when Class is
	// ClassNone.
	Statements []Statement
}

// Statement is one statement of a text.
type Statement struct {
	Class Class
	// Start and End are the statement's byte range in the text, without the semicolon, but with the
	// blanks and comments around it.
	Start, End int
	// Local is set for ClassLocal.
	Local *Local
	// Refusal is set for ClassRefused.
	Refusal *Refusal
}

// Refusal is the error a client shall see, in the fields of an ErrorResponse.
type Refusal struct {
	Code, Message, Detail, Hint string
	// Position counts characters of the whole text from 1; 0 means none.
	Position int
}

// Local is a statement that the table alone can answer.
type Local struct {
	// Columns are the output columns in order; they are evaluated from left to right.
	Columns []Column
	// From says that the rows come from raftable() in FROM: every column is OpKey or OpValue. When it
	// is false there is one row, unless a column is OpListRecord.
	From bool
	// Params[i] is the type that the text deduces for $i+1.
	Params []ParamType

	calls []call // in the order in which they are analysed
}

// Column is one output column.
type Column struct {
	Name string
	Op   Op
	// Args are key, value and timeout, as many as the call has, in this order whatever the notation.
	Args []Arg
	// Position is that of the call, in characters of the whole text from 1.
	Position int
}

// Op is what a column does.
type Op uint8

const (
	// OpGet gives the value of Args[0], as text; NULL where there is no such key or the key is NULL.
	OpGet Op = iota
	// OpSet sets Args[0] to Args[1], with a time limit of Args[2] milliseconds if there is one. Its
	// result is an empty void.
	OpSet
	// OpListRecord is raftable() in the target list: a set of records (key, value).
	OpListRecord
	// OpKey is the key of a row of raftable() in FROM, as varchar.
	OpKey
	// OpValue is the value of a row of raftable() in FROM, as text.
	OpValue
)

// Arg is an argument of a call: a parameter or a constant.
type Arg struct {
	// Param is the number of the parameter, from 1; 0 is a constant.
	Param int
	// Null is a constant NULL.
	Null bool
	// Value is the constant. A timeout is a decimal number within the range of int4.
	Value string
	// Type is the OID that the text gives the argument: 0 (an unknown literal or a parameter without a
	// cast), 25, 1043 or 23.
	Type uint32
	// Position is that of the argument, in characters of the whole text from 1.
	Position int
}

// ParamType is the type that a text deduces for a parameter.
type ParamType uint8

const (
	// ParamNone is a parameter that is not used.
	ParamNone ParamType = iota
	// ParamKey is varchar (1043).
	ParamKey
	// ParamValue is text (25).
	ParamValue
	// ParamTimeout is int4 (23).
	ParamTimeout
)
