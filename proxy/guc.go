package proxy

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// callSettings are the settings of a session that its calls depend on. Postgres keeps them, as it keeps every setting with
// a dot in its name, through SET LOCAL, ROLLBACK, RESET and DISCARD; they are asked for when they may have changed.
type callSettings struct {
	linearizable bool
	timeout      time.Duration
	// used: the session has said something of them.
	used bool
	// stale: they may have changed since they were asked for.
	stale bool
	seen  uint64   // owed.settingChanges when they were
	wrong *pgError // what was set can be no value
	texts [2]string
}

var settingNames = [2]string{"raftable.consistency", "raftable.timeout"}

// initial are the settings of a session that has not set any.
func (s *Server) initial() callSettings {
	return callSettings{linearizable: s.cfg.Linearizable, timeout: s.cfg.SetTimeout}
}

// useSettings notes that the session's settings may have been changed by what is forwarded now.
func (f *frontend) useSettings() {
	if !f.calls.used {
		f.calls.used = true
		f.watchTags()
	}
	f.calls.stale = true
}

// ready brings the settings up to date, and waits for what a linearizable read must see. The server owes nothing that
// could change them.
func (f *frontend) ready() error {
	if err := f.refreshSettings(); err != nil {
		return err
	}
	if !f.calls.linearizable {
		return nil
	}
	f.side.leave()
	ctx, done := f.s.statementContext()
	defer done()
	if e := f.s.barrier(ctx); e != nil {
		return e
	}
	return nil
}

// refreshSettings asks postgres for the settings if they may have changed.
func (f *frontend) refreshSettings() error {
	c := &f.calls
	if c.used && (c.stale || c.seen != f.settingChanges()) {
		if f.transaction().status == 'E' {
			return errFailedTransaction
		}
		c.seen = f.settingChanges()
		values, err := f.question("SELECT pg_catalog.current_setting(n, true) FROM (VALUES ('" +
			settingNames[0] + "'), ('" + settingNames[1] + "')) AS v(n)")
		if err != nil {
			return err
		}
		if len(values) == 2 {
			f.takeSettings(values)
			c.stale = false
		}
	}
	if c.wrong != nil {
		return c.wrong
	}
	return nil
}

// takeSettings reads what postgres has; NULL and the empty string are the server's defaults.
func (f *frontend) takeSettings(values [][]byte) {
	c := f.s.srv.initial()
	c.used, c.seen = true, f.calls.seen
	for i := range settingNames {
		c.texts[i] = string(values[i])
	}
	switch v := c.texts[0]; strings.ToLower(v) {
	case "":
	case "local", "linearizable":
		c.linearizable = strings.EqualFold(v, "linearizable")
	default:
		c.wrong = errSetting(settingNames[0], v, "Available values: local, linearizable.")
	}
	if v := c.texts[1]; v != "" {
		d, ok := parseTimeout(v)
		if !ok {
			c.wrong = errSetting(settingNames[1], v, `Give a time of 1 ms or more; valid units are "us", "ms", "s", "min", "h", and "d".`)
		}
		c.timeout = d
	}
	f.calls = c
	f.s.calls = c
}

func errSetting(name, value, hint string) *pgError {
	return &pgError{
		code: codeInvalidParameter, message: `invalid value for parameter "` + name + `": "` + value + `"`,
		detail: "Nothing was read or set.", hint: hint,
	}
}

// parseTimeout reads a time as PostgreSQL reads a setting in milliseconds; it is not ok for one that is not positive.
func parseTimeout(s string) (time.Duration, bool) {
	ms, ok := sqlrewrite.TimeoutOf(s)
	return time.Duration(ms) * time.Millisecond, ok
}

// shown is what SHOW says of a setting.
func (f *frontend) shown(name string) []byte {
	c := &f.calls
	if name == settingNames[0] {
		switch {
		case c.texts[0] != "":
			return []byte(c.texts[0])
		case c.linearizable:
			return []byte("linearizable")
		}
		return []byte("local")
	}
	if c.texts[1] != "" {
		return []byte(c.texts[1])
	}
	if c.timeout%time.Second == 0 {
		return []byte(strconv.Itoa(int(c.timeout/time.Second)) + "s")
	}
	return []byte(strconv.Itoa(int(c.timeout/time.Millisecond)) + "ms")
}

// showQuery is a SELECT that says what SHOW of a setting would.
func (s *Server) showQuery(name string) string {
	f := frontend{calls: s.initial()}
	return "SELECT coalesce(nullif(pg_catalog.current_setting('" + name + "', true), ''), '" + string(f.shown(name)) + `') AS "` + name + `"`
}

func (f *frontend) settingChanges() uint64 {
	o := &f.s.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.settingChanges + o.failures
}

// question asks the server something that the client must not notice, and gives the first column of the answer's rows.
func (f *frontend) question(sql string) ([][]byte, error) {
	const name = "raftproxy: a question"
	forwarded, unnamed, open := f.forwarded, f.serverUnnamed, f.openAtServer() || f.forwarded
	rows := &answerRows{}
	r := &reply{rows: rows}
	b := append([]byte{'P', 0, 0, 0, 0}, name...)
	b = append(append(append(b, 0), sql...), 0)
	// What a question that was broken off has left behind goes first.
	f.queue(closeOf('P', name), 'C'|quiet, nil)
	f.queue(closeOf('S', name), 'C'|quiet, nil)
	f.queue(finishMessage(append(b, 0, 0), 0), 'P'|quiet|replied, r)
	f.queueBind([]byte(name), []byte(name), &bindMessage{}, nil, 'B'|quiet|replied, r)
	f.queue(executeMessage(name), 'E'|quiet|replied, r)
	f.queue(closeOf('P', name), 'C'|quiet, nil)
	f.queue(closeOf('S', name), 'C'|quiet, nil)
	if !open {
		f.queue(syncMessage, 'S'|quiet|private, nil)
	}
	f.forwarded, f.serverUnnamed = forwarded, unnamed
	_, err := f.settle()
	if err == nil && rows.failed != nil {
		return nil, rows.failed
	}
	return rows.values, err
}

// barrier waits for what a linearizable read must see.
func (s *session) barrier(ctx context.Context) *pgError {
	ctx, cancel := context.WithTimeout(ctx, s.calls.timeout)
	defer cancel()
	if err := s.srv.cfg.Table.Barrier(ctx); err != nil {
		return tableError(err)
	}
	return nil
}

func (s *session) callTimeout() time.Duration { return s.calls.timeout }

func (s *session) linearizable() bool { return s.calls.linearizable }

// mentionsSetting says whether a startup packet sets one of the settings.
func mentionsSetting(startup []byte) bool {
	return bytes.Contains(bytes.ToLower(startup), []byte("raftable."))
}
