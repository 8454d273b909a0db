package proxy

import (
	"errors"

	"github.com/jackc/pgproto3/v2"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// SQLSTATEs that the proxy itself raises. Those of the table come with the table's errors.
const (
	codeConnectionFailure   = "08001" // postgres cannot be reached; only ever at the start of a session
	codeOutcomeUnknown      = "40003"
	codeProtocolViolation   = "08P01"
	codeFeatureNotSupported = "0A000"
	codeInvalidText         = "22P02"
	codeNullNotAllowed      = "22004"
	codeActiveTransaction   = "25001"
	codeInFailedTransaction = "25P02"
	codeNotAuthorized       = "28000"
	codeUndefinedPortal     = "34000"
	codeInvalidParameter    = "22023"
	codeBadEncoding         = "22021"
	codeDuplicateCursor     = "42P03"
	codeIndeterminateType   = "42P18"
	codeTooManyConnections  = "53300"
	codeAdminShutdown       = "57P01"
	codeUntranslatable      = "22P05"
	codeInternal            = "XX000"
)

// pgError is an error as PostgreSQL's ErrorResponse carries it.
type pgError struct {
	code, message, detail, hint string
	position                    int // in characters from 1; 0 for none
}

func (e *pgError) Error() string { return e.message + " (SQLSTATE " + e.code + ")" }

// append writes the ErrorResponse message to dst.
func (e *pgError) append(dst []byte, severity string) []byte {
	m := pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity,
		Code: e.code, Message: e.message, Detail: e.detail, Hint: e.hint, Position: int32(e.position),
	}
	dst, _ = m.Encode(dst) // fails only on messages over 1 GiB
	return dst
}

// refusal turns what sqlrewrite says of a statement into an error.
func refusal(r *sqlrewrite.Refusal) *pgError {
	return &pgError{code: r.Code, message: r.Message, detail: r.Detail, hint: r.Hint, position: r.Position}
}

// tableError turns an error of the table into one for the client.
func tableError(err error) *pgError {
	var e *pgError
	if errors.As(err, &e) {
		return e
	}
	var s StateError
	if errors.As(err, &s) {
		return &pgError{code: s.SQLState(), message: s.Error(), detail: s.Detail(), hint: s.Hint()}
	}
	return &pgError{code: codeInternal, message: "raftable: " + err.Error(), detail: "Whether anything was set is not known."}
}

var errFailedTransaction = &pgError{
	code:    codeInFailedTransaction,
	message: "current transaction is aborted, commands ignored until end of transaction block",
}

func errNoPortal(name string) *pgError {
	return &pgError{code: codeUndefinedPortal, message: `portal "` + name + `" does not exist`}
}

func errMalformed() *pgError {
	return &pgError{code: codeProtocolViolation, message: "invalid message format"}
}

// asPgError sorts errors for the client from those that end the session.
func asPgError(err error) (e *pgError, fatal error) {
	if errors.As(err, &e) {
		return e, nil
	}
	return nil, err
}
