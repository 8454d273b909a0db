package proxy

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/raftproxy/raftproxy/internal/pgtest"
)

// encodingOracle has PostgreSQL convert one character after the other, and gives NULL for those that it cannot.
const encodingOracle = `
CREATE FUNCTION decoded(b bytea, encoding name) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN encode(convert_to(convert_from(b, encoding), 'UTF8'), 'hex'); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$;
CREATE FUNCTION encoded(c text, encoding name) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN encode(convert_to(c, encoding), 'hex'); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$;
`

// foreignCharacters are SQL for the byte sequences of an encoding that may be characters, beyond ASCII.
func foreignCharacters(name string) string {
	const single = "SELECT set_byte('\\x00', 0, a) AS c FROM generate_series(128, 255) a"
	const double = " UNION ALL SELECT set_byte(set_byte('\\x0000', 0, a), 1, b) FROM generate_series(129, 254) a, generate_series(48, 254) b"
	switch name {
	case "EUC_JP":
		return single + double + " UNION ALL SELECT set_byte(set_byte('\\x8f0000', 1, a), 2, b) FROM generate_series(161, 254) a, generate_series(161, 254) b"
	case "GB18030":
		return single + double + " UNION ALL SELECT set_byte(set_byte('\\x81300030', 2, a), 1, b) FROM generate_series(129, 254) a, generate_series(48, 57) b"
	case "SJIS", "EUC_KR", "UHC", "EUC_CN", "GBK", "BIG5":
		return single + double
	}
	return single
}

// pairs asks for rows of two columns.
func pairs(t *testing.T, w *wireConn, sql string) map[string]string {
	t.Helper()
	out := map[string]string{}
	w.deadline()
	w.send(query(sql))
	for {
		typ, body, err := w.read()
		switch {
		case err != nil:
			t.Fatal(err)
		case typ == 'E':
			t.Fatalf("%s: %s", sql, errorFields(body))
		case typ == 'Z':
			return out
		case typ == 'D':
			f := strings.Split(strings.TrimPrefix(dataRow(body), " "), " ")
			out[strings.Trim(f[0], `"`)] = strings.Trim(f[1], `"`)
		}
	}
}

// TestEncodingsAgainstPostgres converts all characters of all encodings in both directions, as PostgreSQL does. In encodings of
// several bytes some are refused.
func TestEncodingsAgainstPostgres(t *testing.T) {
	pg := pgtest.New(t, pgtest.Options{})
	w := dialWire(t, pg.Addr())
	w.ask(encodingOracle)
	for name := range encodings {
		if testing.Short() && multibyte[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g := settings{foreignEncoding: name}
			decoded := pairs(t, w, fmt.Sprintf("SELECT encode(c, 'hex'), decoded(c, '%s') FROM (%s) s", name, foreignCharacters(name)))
			differ, refused := 0, 0
			for in, want := range decoded {
				b, _ := hex.DecodeString(in)
				got := "NULL"
				if out, e := g.toUTF8(b); e == nil {
					got = hex.EncodeToString(out)
				}
				if got == "NULL" && want != "NULL" && multibyte[name] {
					refused++
				} else if got != want {
					if differ++; differ < 50 {
						t.Errorf("%s is %s in UTF-8, want %s", in, got, want)
					}
				}
			}
			last := 0xffff
			if !multibyte[name] {
				last = 0x2fff
			}
			encoded := pairs(t, w, fmt.Sprintf("SELECT n, encoded(chr(n), '%s') FROM generate_series(128, %d) n WHERE n NOT BETWEEN 55296 AND 57343", name, last))
			other := 0
			for in, want := range encoded {
				var n rune
				_, _ = fmt.Sscan(in, &n)
				got := "NULL"
				if out, e := g.fromUTF8(utf8.AppendRune(nil, n)); e == nil {
					got = hex.EncodeToString(out)
				}
				if got == "NULL" && want != "NULL" && multibyte[name] {
					refused++
				} else if got != want {
					if other++; other < 50 {
						t.Errorf("U+%04X is %s, want %s", n, got, want)
					}
				}
			}
			t.Logf("%d are refused", refused)
			if differ+other > 0 {
				t.Errorf("%d and %d of %d and %d", differ, other, len(decoded), len(encoded))
			}
		})
	}
}
