package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"unicode/utf8"
)

// SQLSTATEs that this package itself gives.
const (
	codeNoData      = "02000"
	codeBadText     = "22021"
	codeTooLarge    = "54000"
	codeInternal    = "XX000"
	codeBadOption   = "22023"
	codeUnavailable = "55000"
)

// httpStatus is how HTTP calls a SQLSTATE; what is not here is an internal error.
var httpStatus = map[string]int{
	codeNoData:      http.StatusNotFound,
	codeBadOption:   http.StatusBadRequest,
	codeBadText:     http.StatusBadRequest,            // invalid UTF-8
	"22001":         http.StatusBadRequest,            // key too long
	"22004":         http.StatusBadRequest,            // NULL key
	codeTooLarge:    http.StatusRequestEntityTooLarge, // value too large
	"53400":         http.StatusInsufficientStorage,   // quota
	"53100":         http.StatusInsufficientStorage,   // disk full
	"53000":         http.StatusTooManyRequests,       // too much in flight
	codeUnavailable: http.StatusServiceUnavailable,    // no leader, surely not applied
	"57014":         http.StatusServiceUnavailable,    // given up before it was proposed
	"40003":         http.StatusGatewayTimeout,        // outcome unknown
	"42501":         http.StatusForbidden,
}

// key serves one key; escaped is the rest of the path, which may be anything.
func (s *Server) key(w http.ResponseWriter, r *http.Request, table Table, escaped string) {
	key, err := url.PathUnescape(escaped)
	if err != nil {
		fail(w, http.StatusBadRequest, &Failure{Message: "the key is not percent-encoded: " + err.Error()})
		return
	}
	if f := badText("key", []byte(key)); f != nil {
		failState(w, f)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.o.Timeout)
	defer cancel()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		err = s.get(ctx, w, r, table, []byte(key))
	case http.MethodPut:
		err = s.put(ctx, w, r, table, []byte(key))
	case http.MethodDelete:
		if err = table.Delete(ctx, []byte(key)); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	default:
		notAllowed(w, r, "GET, HEAD, PUT, DELETE")
		return
	}
	if err != nil {
		s.o.Logger.Debug().Err(err).Str("method", r.Method).Str("key", key).Msg("admin request failed")
		failState(w, err)
	}
}

func (s *Server) get(ctx context.Context, w http.ResponseWriter, r *http.Request, table Table, key []byte) error {
	if err := s.catchUp(ctx, r, table); err != nil {
		return err
	}
	value, found := table.Get(nil, key)
	if !found {
		return &Failure{SQLState: codeNoData, Message: fmt.Sprintf("there is no key %q", key)}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(value)
	return nil
}

func (s *Server) put(ctx context.Context, w http.ResponseWriter, r *http.Request, table Table, key []byte) error {
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.MaxValueSize))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Failure{SQLState: codeTooLarge, Message: fmt.Sprintf("the value is larger than %d bytes", tooLarge.Limit),
			Detail: "Nothing was set.", Hint: "The setting max-value-size is the limit."}
	}
	if err != nil {
		return &Failure{Message: "the value could not be read: " + err.Error(), Detail: "Nothing was set.", SQLState: codeBadText}
	}
	if f := badText("value", value); f != nil {
		return f
	}
	if err := table.Set(ctx, key, value); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// list streams the whole table as {"keys":[…]}, an entry a line.
func (s *Server) list(w http.ResponseWriter, r *http.Request, table Table) {
	ctx, cancel := context.WithTimeout(r.Context(), s.o.Timeout)
	defer cancel()
	if err := s.catchUp(ctx, r, table); err != nil {
		failState(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// Whether it was written in full the client sees by the end of the JSON.
	_ = WriteList(w, table.List)
}

// WriteList writes what all yields as the JSON of GET /v1/keys, and stops at the first error of w.
func WriteList(w io.Writer, all func(yield func(key, value []byte) bool)) error {
	out := bufio.NewWriterSize(w, 64<<10)
	_, err := out.WriteString("{\"keys\":[")
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	sep := "\n"
	all(func(key, value []byte) bool {
		line.Reset()
		line.WriteString(sep)
		sep = ","
		// Encode ends the line.
		if err = e.Encode(Entry{Key: string(key), Value: string(value)}); err == nil {
			_, err = out.Write(line.Bytes())
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	if _, err := out.WriteString("]}\n"); err != nil {
		return err
	}
	return out.Flush()
}

// catchUp makes the reads that follow linearizable where the request, or else the default, wants that.
func (s *Server) catchUp(ctx context.Context, r *http.Request, table Table) error {
	switch c := r.URL.Query().Get("consistency"); c {
	case "":
		if !s.o.Linearizable {
			return nil
		}
	case "local":
		return nil
	case "linearizable":
	default:
		return &Failure{SQLState: codeBadOption, Message: fmt.Sprintf("consistency %q is not known", c), Hint: "Use local or linearizable."}
	}
	return table.Barrier(ctx)
}

// badText says what PostgreSQL's text cannot hold. The result is a nil error where there is nothing.
func badText(what string, b []byte) error {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return nil
	}
	return &Failure{SQLState: codeBadText, Message: "the " + what + " is not UTF-8 text without zero bytes", Detail: "Nothing was set."}
}

// failState answers with what is known of err.
func failState(w http.ResponseWriter, err error) {
	var f *Failure
	var s StateError
	switch {
	case errors.As(err, &f):
	case errors.As(err, &s):
		f = &Failure{SQLState: s.SQLState(), Message: s.Error(), Detail: s.Detail(), Hint: s.Hint()}
	default:
		f = &Failure{SQLState: codeInternal, Message: err.Error(), Detail: "Whether anything was set is not known."}
	}
	status, ok := httpStatus[f.SQLState]
	if !ok {
		status = http.StatusInternalServerError
	}
	fail(w, status, f)
}
