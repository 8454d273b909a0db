package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// The load of the bulk suites is a client that does next to nothing, since it shares the machine with what is measured: what it
// sends is made beforehand, and of what comes it looks at the end only.
type bulkClient struct {
	net.Conn
	buf []byte
}

const (
	bulkRead  = 256 << 10
	copyData  = 8 << 10 // bytes of rows in a message, as psql has it
	bulkLimit = 5 * time.Minute
)

// connectBulk logs in where nobody is asked for a password.
func connectBulk(port int) (*bulkClient, error) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	c := &bulkClient{Conn: conn, buf: make([]byte, bulkRead)}
	_ = c.SetDeadline(time.Now().Add(bulkLimit))
	start := append([]byte{0, 0, 0, 0, 0, 3, 0, 0}, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	binary.BigEndian.PutUint32(start, uint32(len(start)))
	if _, err = c.Write(start); err == nil {
		_, err = c.ready()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func message(typ byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...)
}

func query(text string) []byte { return message('Q', text+"\x00") }

// readyForQuery is the end of every answer outside of a transaction.
var readyForQuery = message('Z', "I")

// ready reads up to ReadyForQuery, and says how many bytes came. An answer of one read may be an error, and is looked into.
func (c *bulkClient) ready() (total int, err error) {
	var tail []byte
	for {
		n, err := c.Read(c.buf)
		if err != nil {
			return total, err
		}
		total += n
		b := c.buf[:n]
		if b[0] == 'E' && total == n {
			return total, fmt.Errorf("the server says %q", b)
		}
		// The end may come in pieces.
		tail = append(tail, b[max(0, n-len(readyForQuery)):]...)
		tail = tail[max(0, len(tail)-len(readyForQuery)):]
		if bytes.Equal(tail, readyForQuery) {
			return total, nil
		}
	}
}

// do sends a query and reads its answer, of which it wants so many bytes at least.
func (c *bulkClient) do(text string, least int) error {
	if _, err := c.Write(query(text)); err != nil {
		return err
	}
	n, err := c.ready()
	if err == nil && n < least {
		err = fmt.Errorf("an answer of %d bytes is too short", n)
	}
	return err
}

// copyRows sends rows. The answer to the query is CopyInResponse.
func (c *bulkClient) copyRows(messages []byte) error {
	if _, err := c.Write(query("COPY bulk FROM STDIN")); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, c.buf[:5]); err != nil {
		return err
	}
	if c.buf[0] != 'G' {
		return fmt.Errorf("COPY is answered by a message of type %q", c.buf[0])
	}
	if _, err := io.ReadFull(c, c.buf[:binary.BigEndian.Uint32(c.buf[1:])-4]); err != nil {
		return err
	}
	if _, err := c.Write(messages); err != nil {
		return err
	}
	if _, err := c.Write(message('c', "")); err != nil {
		return err
	}
	_, err := c.ready()
	return err
}

// bulkRows is the rows, in CopyData messages.
func bulkRows(count int) (messages []byte) {
	var rows []byte
	for i := range count {
		rows = fmt.Appendf(rows, "%d\tthis is what stands in row %d\n", i, i)
		if len(rows) >= copyData || i == count-1 {
			messages = append(messages, message('d', string(rows))...)
			rows = rows[:0]
		}
	}
	return messages
}

// bulk measures one thing with every candidate in turn. before is done with the server itself and not measured.
func (b *bench) bulk(what, before string, do func(c *bulkClient) error) error {
	took, used := make([][]float64, len(b.all)), make([][]float64, len(b.all))
	for range *rounds {
		for i, c := range b.all {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			if before != "" {
				if err := sql(b.ctx, b.all[0].port, before); err != nil {
					return err
				}
			}
			client, err := connectBulk(c.port)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			cpu, began := cpuTime(c.pid), time.Now()
			err = do(client)
			took[i] = append(took[i], time.Since(began).Seconds())
			used[i] = append(used[i], float64((cpuTime(c.pid)-cpu).Microseconds())/1000)
			client.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	cells := []string{what}
	var ours, pgbouncer []float64
	for i, c := range b.all {
		cell := fmt.Sprintf("%.2f s", median(took[i]))
		switch c.name {
		case raftproxyName:
			ours = used[i]
		case pgbouncerName:
			pgbouncer = used[i]
		}
		if c.pid != 0 {
			cell += fmt.Sprintf(", %.0f ms", median(used[i]))
		}
		cells = append(cells, cell)
	}
	last := "PgBouncer is not installed"
	if pgbouncer != nil {
		last = verdict(atMost(1, ours, pgbouncer))
	}
	b.row(append(cells, last)...)
	return nil
}

func (b *bench) bulkHead() {
	b.say("Time from the query to the end of the answer, and CPU time of the proxy.\n\n")
	b.head(append(append([]string{"what"}, names(b.all)...), "raftproxy against PgBouncer: CPU")...)
}

// copyIn copies rows in.
func (b *bench) copyIn() error {
	messages := bulkRows(*rows)
	b.bulkHead()
	what := fmt.Sprintf("`COPY FROM STDIN`, %d rows, %d MB", *rows, len(messages)/1_000_000)
	return b.bulk(what, "TRUNCATE bulk", func(c *bulkClient) error { return c.copyRows(messages) })
}

// results reads a large result, and copies rows out.
func (b *bench) results() error {
	fill := fmt.Sprintf("TRUNCATE bulk; INSERT INTO bulk SELECT i, 'this is what stands in row ' || i FROM generate_series(1, %d) i; VACUUM bulk", *rows)
	if err := sql(b.ctx, b.all[0].port, fill); err != nil {
		return err
	}
	b.bulkHead()
	for _, text := range []string{"SELECT * FROM bulk", "COPY bulk TO STDOUT"} {
		err := b.bulk(fmt.Sprintf("`%s`, %d rows", text, *rows), "", func(c *bulkClient) error { return c.do(text, 30*(*rows)) })
		if err != nil {
			return err
		}
	}
	return nil
}
