package cluster

// SQLSTATE codes of the errors that this package returns.
const (
	CodeKeyTooLong      = "22001" // nothing set
	CodeInvalidEncoding = "22021" // nothing set
	CodeTooMuchInFlight = "53000" // nothing set
	CodeDiskFull        = "53100" // nothing set
	CodeQuota           = "53400" // nothing set; deletes still work
	CodeValueTooLarge   = "54000" // nothing set
	CodeUnavailable     = "55000" // surely not applied
	CodeCancelled       = "57014" // cancelled before it was proposed
	CodeOutcomeUnknown  = "40003" // proposed, no answer in time
	CodeInternal        = "XX000" // a fault of this program
)

// Error is what every failing method of Node returns. The strings are meant
// for the fields of a PostgreSQL ErrorResponse.
type Error struct {
	Code       string // SQLSTATE
	Message    string
	DetailText string // empty: none
	HintText   string // empty: none
	Err        error  // the cause, may be nil
}

// Error returns the message alone, without detail, hint or code.
func (e *Error) Error() string { return e.Message }

// SQLState returns the five-character code.
func (e *Error) SQLState() string { return e.Code }

// Detail returns the DETAIL text, empty if there is none.
func (e *Error) Detail() string { return e.DetailText }

// Hint returns the HINT text, empty if there is none.
func (e *Error) Hint() string { return e.HintText }

// Unwrap returns the cause, nil if there is none.
func (e *Error) Unwrap() error { return e.Err }
