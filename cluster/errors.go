package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// SQLSTATE codes of the errors that this package returns.
const (
	CodeKeyTooLong      = "22001" // nothing set
	CodeInvalidEncoding = "22021" // nothing set
	CodeOutcomeUnknown  = "40003" // proposed, no answer in time
	CodeTooMuchInFlight = "53000" // nothing set
	CodeDiskFull        = "53100" // nothing set
	CodeQuota           = "53400" // nothing set; deletes still work
	CodeValueTooLarge   = "54000" // nothing set
	CodeUnavailable     = "55000" // surely not applied
	CodeCancelled       = "57014" // cancelled before it was proposed
)

// notApplied is the DETAIL of every error after which nothing was set for sure,
// where the message alone does not say so.
const notApplied = "not applied"

// Error is what every failing method of Node returns but Start, Ready and Close.
// The strings are meant for the fields of a PostgreSQL ErrorResponse.
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

var errClosed = errors.New("the node is closed")

func errKeyTooLong(limit int) *Error {
	return &Error{Code: CodeKeyTooLong,
		Message: fmt.Sprintf("value too long for type character varying(%d)", limit)}
}

func errInvalidEncoding(b []byte) *Error {
	var hex strings.Builder
	for _, c := range b {
		fmt.Fprintf(&hex, " 0x%02x", c)
	}
	return &Error{Code: CodeInvalidEncoding,
		Message: `invalid byte sequence for encoding "UTF8":` + hex.String()}
}

func errValueTooLarge(size int, limit int64) *Error {
	return &Error{Code: CodeValueTooLarge,
		Message: fmt.Sprintf("raftable value of %d bytes exceeds the limit of %d bytes", size, limit)}
}

func errQuota(quota int64) *Error {
	return &Error{Code: CodeQuota,
		Message:    fmt.Sprintf("raftable quota of %d bytes is used up", quota),
		DetailText: notApplied,
		HintText:   "Delete keys, which is always possible, or raise the quota."}
}

func errTooMuchInFlight() *Error {
	return &Error{Code: CodeTooMuchInFlight,
		Message:    "too many raftable sets wait for an answer on this node",
		DetailText: notApplied,
		HintText:   "Try again when some of them have ended."}
}

func errDiskFull(free uint64) *Error {
	return &Error{Code: CodeDiskFull,
		Message:    fmt.Sprintf("the disk of the raftable log is full: %d MiB are free", free>>20),
		DetailText: notApplied,
		HintText:   "Free disk space on this node, or set through another one."}
}

func errUnavailable(message, hint string, cause error) *Error {
	return &Error{Code: CodeUnavailable, Message: message, DetailText: notApplied, HintText: hint, Err: cause}
}

// errSuperseded is for commands of a process whose replica id was started again
// elsewhere, or whose data directory went back in time.
func errSuperseded(known, own uint64) *Error {
	return errUnavailable(
		fmt.Sprintf("this raftable member was started again elsewhere: the group knows start %d of it, this is start %d", known, own),
		"Two processes use one replica id, or the data directory was restored from a copy. Stop this one.", nil)
}

func errCancelled(cause error) *Error {
	return &Error{Code: CodeCancelled, Message: "canceling statement due to user request",
		DetailText: notApplied, Err: cause}
}

func errOutcomeUnknown(cause error) *Error {
	return &Error{Code: CodeOutcomeUnknown,
		Message:    "outcome of the raftable set is unknown",
		DetailText: "It was proposed to the group, and " + whyNoAnswer(cause) + ": it may have been applied, or may yet be.",
		HintText:   "Read the key to see, or set it again.",
		Err:        cause}
}

func whyNoAnswer(cause error) string {
	switch {
	case errors.Is(cause, context.Canceled):
		return "the wait for an answer was cancelled"
	case errors.Is(cause, errClosed):
		return "this node was closed before an answer came"
	}
	return "no answer came in time"
}
