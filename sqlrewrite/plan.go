package sqlrewrite

// Options are the settings of a session that change how its text is read.
type Options struct {
	// StandardConformingStrings is the session's setting of that name (on by default). When it is
	// off, backslashes in plain quoted constants are escapes.
	StandardConformingStrings bool
	// OnServer says that postgres is to run everything: what would be ClassLocal is ClassRewritten or ClassHarvested.
	OnServer bool
}

// Class says what is to become of a statement. The order matters: a plan has the highest class of its
// statements.
type Class uint8

const (
	// ClassNone is a statement without a call, or a text that cannot be read.
	ClassNone Class = iota
	// ClassStored is a definition that postgres keeps and that has a call in it.
	ClassStored
	// ClassLocal is a statement that can be answered from the table alone.
	ClassLocal
	// ClassCommand is a statement about the function itself: one of its settings, or its extension.
	ClassCommand
	// ClassRewritten is a statement that postgres runs with values from the table put in.
	ClassRewritten
	// ClassHarvested is one of which postgres evaluates the arguments of calls, which are then run row by row.
	ClassHarvested
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
	// ClassNone and there are no Executions.
	Statements []Statement
	// Executions are the EXECUTE statements, also inside of EXPLAIN and CREATE TABLE AS.
	Executions []Execution
}

// Statement is one statement of a text.
type Statement struct {
	Class Class
	// Start and End are the statement's byte range in the text, without the semicolon, but with the
	// blanks and comments around it.
	Start, End int
	// MaxParam is the highest number of a parameter ($1, ...) in the statement; 0 if it has none, or is one for which postgres looks
	// for none before it runs. In a PREPARE the types that it declares count too.
	MaxParam int
	// FirstParam is the offset in the text of the first parameter of the client's, of which there is none in a simple query; 0 if
	// there is none. Those of a PREPARE or of a function's body are not the client's.
	FirstParam int
	// Fetches is the name of the cursor that a FETCH gives rows of, "" for other statements.
	Fetches string
	// Control says what the statement does to transactions, also for ClassNone.
	Control Control
	// Fills says that postgres runs the statement to its end before it answers anything, which it does for all but a SELECT that
	// only reads.
	Fills bool
	// Local is set for ClassLocal.
	Local *Local
	// Rewrite is set for ClassRewritten and ClassHarvested. A ClassLocal statement with parameters has it too: it is what to run
	// where the parameters have types that ResolveParams refuses with 0A000.
	Rewrite *Rewrite
	// Command is set for ClassCommand.
	Command *Command
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

// Control says what a statement among others in one query string needs to know of transactions.
type Control uint8

const (
	// ControlNone is every other statement.
	ControlNone Control = iota
	// ControlBegin opens a transaction block: BEGIN, START TRANSACTION.
	ControlBegin
	// ControlCommit ends one: COMMIT, END.
	ControlCommit
	// ControlRollback ends one: ROLLBACK, but not to a savepoint.
	ControlRollback
	// ControlPrepare ends one: PREPARE TRANSACTION.
	ControlPrepare
	// ControlWithin is only for a block that has been opened by a statement: SAVEPOINT, RELEASE, ROLLBACK TO, and COMMIT and
	// ROLLBACK with AND CHAIN, which leave a block open.
	ControlWithin
	// ControlNeedsBlock runs in a transaction block only, for which that of a query string counts: DECLARE without HOLD,
	// LOCK, SET LOCAL and the like. Or, as CALL and DO, it could end the transaction itself if it were in no block.
	ControlNeedsBlock
	// ControlCopyIn is COPY FROM STDIN.
	ControlCopyIn
	// ControlAlone may run in no transaction block, and so in no query string of several statements: VACUUM, CREATE DATABASE and
	// the like. Some of them may all the same, which postgres knows.
	ControlAlone
)

// Command is a statement about a setting of the function or its extension.
type Command struct {
	Op CommandOp
	// Setting is "raftable.consistency" or "raftable.timeout", lower case; empty for an extension.
	Setting string
	// IfExists is IF NOT EXISTS of CREATE and IF EXISTS of DROP.
	IfExists bool
}

// CommandOp is what a Command does.
type CommandOp uint8

const (
	// CommandSet is SET or RESET of one of the settings, in any form. Postgres runs it as it is; values that no
	// session may have are refused (22023).
	CommandSet CommandOp = iota
	// CommandShow is SHOW of one of the settings.
	CommandShow
	// CommandCreateExtension is CREATE EXTENSION raftable.
	CommandCreateExtension
	// CommandDropExtension is DROP EXTENSION raftable, alone.
	CommandDropExtension
)

// Rewrite says what postgres is to run in place of a statement: the client's text with pieces put in for the calls.
// The text has all parameters of the client's under their own numbers.
type Rewrite struct {
	// Pieces make up the text, in order.
	Pieces []Piece
	// Values are what the pieces refer to.
	Values []Value
	// Literals says that postgres takes no parameters in this statement: values must be constants in the text.
	Literals bool
	// Harvest are the output columns that the proxy runs for each row. Column i has the name HarvestName(i) in the
	// text that is sent, and is an array of text: the call's arguments in the order key, value, timeout.
	Harvest []Harvest
	// Prepares is the name of the statement that a PREPARE makes; "" for other statements. Its values must be added
	// to the arguments of every EXECUTE, in order, as constants: see Executions.
	Prepares string
	// Calls are the calls that were replaced, for error messages.
	Calls []Replaced

	evaluated *Rewrite   // see For
	conflicts []conflict // see Conflict
}

// Piece is a part of a rewritten text.
type Piece struct {
	// Kind says which of the other fields counts.
	Kind PieceKind
	// Start and End are the range of the client's text that stands here, in bytes.
	Start, End int
	// Text is SQL of ours.
	Text string
	// Value is the number of a value that stands here as $n or as a constant.
	Value int
	// Call is the number of the call in Rewrite.Calls that a piece of ours belongs to.
	Call int
}

// PieceKind is what a Piece is.
type PieceKind uint8

const (
	// PieceClient is text of the client's.
	PieceClient PieceKind = iota
	// PieceText is text of ours.
	PieceText
	// PieceValue is a value.
	PieceValue
)

// Replaced is a call that the text no longer has.
type Replaced struct {
	// Name is as written: raftable or public.raftable, folded.
	Name string
	// Position is that of the call, in characters of the whole text from 1.
	Position int

	args []replacedArg
}

// replacedArg is what messages say of an argument.
type replacedArg struct {
	name string // in named notation
	slot int    // which of the function's parameters it is
	typ  string // as far as the text has it
	// param is the number of the parameter that the argument is, 0 if it is anything else or has a cast.
	param int
}

// Value is something from the table that a rewritten text needs.
type Value struct {
	Kind ValueKind
	// Key is the key of a ValueGet: a constant or a parameter.
	Key Arg
}

// ValueKind is what a Value is. In a text each has the type that is named here.
type ValueKind uint8

const (
	// ValueGet is the value of one key, as text; NULL where there is none.
	ValueGet ValueKind = iota
	// ValueObject is the whole table as one object of keys and values, as jsonb, to look keys up in.
	ValueObject
	// ValueList is the same as json, in key order.
	ValueList
	// ValueRows is the whole table as an array of objects with a key and a value each, as json, in key order.
	ValueRows
)

// Harvest is an output column whose arguments postgres evaluates.
type Harvest struct {
	// Op is OpSet or OpGet.
	Op Op
	// Name is the column's name as the client is to see it.
	Name string
	// Args is how many arguments the array has.
	Args int
	// Position is that of the call, in characters of the whole text from 1.
	Position int
}
