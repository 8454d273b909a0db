package proxy

import (
	"bytes"
	"errors"
	"testing"

	"github.com/rs/zerolog"
)

// pieces cuts data into pieces whose lengths cuts says.
func pieces(data, cuts []byte) [][]byte {
	var out [][]byte
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		out, data = append(out, bytes.Clone(data[:n])), data[n:]
	}
	return out
}

// FuzzFrames feeds any bytes, cut anyhow, in both directions: what has no call in it comes out as it went in, but for what
// is held back until it is whole.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x0dSELECT 1\x00X\x00\x00\x00\x04"), []byte{0})
	f.Add([]byte("P\x00\x00\x00\x10\x00SELECT 1\x00\x00\x00B\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04"), []byte{3, 1})
	f.Add([]byte("Q\x00\x00\x00\x00"), []byte{2})
	f.Add([]byte("Z\x00\x00\x00\x05TS\x00\x00\x00\x18client_encoding\x00UTF8\x00E\x00\x00\x00\x05\x00"), []byte{1, 4})
	f.Add([]byte("d\xff\xff\xff\xff"), []byte{200})
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		if mentionsCall(data) {
			t.Skip() // would wait for a server
		}
		srv, err := New(Config{Upstream: "127.0.0.1:1", Table: newMapTable()})
		if err != nil {
			t.Fatal(err)
		}
		var toServer, toClient bytes.Buffer
		s := newSession(srv, &fakeConn{write: func(b []byte) { toClient.Write(b) }},
			&fakeConn{write: func(b []byte) { toServer.Write(b) }}, zerolog.Nop())
		s.owed.close() // what would wait for the server gives up
		for _, p := range pieces(data, cuts) {
			if err := s.front.feed(bytes.Clone(p)); errors.Is(err, errTerminated) {
				return // a portal with a name is looked after, behind all that is in front of it
			} else if err != nil {
				t.Fatal(err)
			}
			if err := s.back.feed(p); err != nil {
				t.Fatal(err)
			}
		}
		if got := append(toServer.Bytes(), s.front.held...); !bytes.Equal(got, data) {
			t.Errorf("to the server went %q of %q", got, data)
		}
		if got := append(toClient.Bytes(), s.back.hdr[:s.back.hdrLen]...); !bytes.Equal(got, data) {
			t.Errorf("to the client went %q of %q", got, data)
		}
	})
}

// FuzzBind decodes any bytes as the body of a Bind message.
func FuzzBind(f *testing.F) {
	f.Add([]byte("\x00s\x00\x00\x00\x00\x01\x00\x00\x00\x01k\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x01\x00\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var m bindMessage
		if !m.decode(body) {
			return
		}
		// What was decoded, written again, is what was read.
		var b []byte
		put := func(n int) { b = append(b, byte(n>>8), byte(n)) }
		codes := func(c []int16) {
			put(len(c))
			for _, v := range c {
				put(int(uint16(v)))
			}
		}
		b = append(append(b, m.portal...), 0)
		b = append(append(b, m.statement...), 0)
		codes(m.formats)
		put(len(m.values))
		for _, v := range m.values {
			if v == nil {
				b = append(b, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			b = appendValue(b, v)
		}
		codes(m.resultFormats)
		if !bytes.Equal(b, body) {
			t.Errorf("%q was read as %q", body, b)
		}
	})
}
