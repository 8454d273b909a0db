package proxy

import (
	"strconv"

	"github.com/raftproxy/raftproxy/sqlrewrite"
)

// queryMessages are what the server gets of a statement of a simple query, but for the Bind, and what becomes of the answers.
type queryMessages struct {
	m     *remote
	parse []byte
	// Of Parse and Bind, of Describe, of Execute, and of the Execute of a query's last statement.
	reply, describe, run, last *reply
}

// make makes the messages of m.
func (q *queryMessages) make(g *settings) (e *pgError) {
	if q.parse, e = q.m.parseMessage("", g); e != nil {
		return e
	}
	variant := func(holdComplete, dropNoData bool) *reply {
		r := q.m.reply(nil)
		r.query, r.holdComplete, r.dropNoData = true, holdComplete, dropNoData
		return r
	}
	q.reply, q.describe, q.run, q.last = q.m.reply(nil), variant(false, true), variant(false, false), variant(true, false)
	return nil
}

// prepareQuery makes the messages of a part once for all times that it is run, unless they differ from time to time, or
// belong to a session.
func (t *part) prepareQuery(text string) {
	if t.rewrite == nil || t.params > 0 || t.rewrite.Literals || t.rewrite.Prepares != "" || len(t.rewrite.Harvest) > 0 {
		return
	}
	q := &queryMessages{m: newRemote(text, t, nil)}
	if q.make(&settings{}) == nil {
		t.query = q
	}
}

// cursorFormats asks for the format that a FETCH has in a query, which is the cursor's. Bind would make it that of the client.
func (b *batch) cursorFormats(t *part) ([]int16, error) {
	f := b.f
	if t.fetches == "" {
		return nil, nil
	}
	if state, err := f.settle(); err != nil || state == settledSkipping || f.transaction().status == 'E' {
		return nil, err
	}
	sql, e := f.settings.fromUTF8([]byte("SELECT is_binary FROM pg_catalog.pg_cursors WHERE name = " + sqlrewrite.Quote(&t.fetches)))
	if e != nil {
		return nil, e
	}
	rows, err := f.question(string(sql))
	if err != nil || len(rows) != 1 || string(rows[0]) != "t" {
		return nil, err
	}
	return []int16{1}, nil
}

// withParameters has the server say what it says of parameters in a simple query: that there are none, unless it finds another
// mistake before. The statement is the only one of a simple query that comes in the same transaction.
func (b *batch) withParameters(t *part, rw *sqlrewrite.Rewrite) error {
	if done, err := b.settle(); done || err != nil {
		return err
	}
	if len(rw.Harvest) > 0 {
		return b.fail(b.noParameter(t)) // the arguments may stand in another order in the text that is sent
	}
	m := newRemote(b.prog.text, &part{rewrite: rw, params: t.params, arguments: t.arguments, fills: t.fills}, nil)
	m.literals = make([]*string, len(rw.Values))
	msg, r, err := b.queryMessage(m, rw.Literal(b.prog.text, m.literals))
	if err != nil {
		return b.failWith(err)
	}
	if !b.block {
		b.f.queue(msg, 'Q'|replied, r)
		return nil
	}
	b.f.queue(msg, 'Q'|quietAnswer|replied, r)
	b.statement("ROLLBACK", quiet)
	b.f.endQuery()
	return nil
}

// noParameter is the error of the first parameter in a simple query.
func (b *batch) noParameter(t *part) *pgError {
	number := b.prog.text[t.firstParam+1 : t.end]
	end := 0
	for end < len(number) && number[end] >= '0' && number[end] <= '9' {
		end++
	}
	n, _ := strconv.Atoi(number[:end]) // the parser has read it
	return &pgError{code: "42P02", message: "there is no parameter $" + itoa(n), position: characters(b.prog.text[:t.firstParam]) + 1}
}
