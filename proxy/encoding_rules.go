package proxy

import (
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding/japanese"
)

// The encodings of golang.org/x/text are those of the web. Some have characters that PostgreSQL does not have under the same
// name; these are refused, lest two clients mean different keys by the same bytes.

// exception is a byte that PostgreSQL takes for another character than encodings has it; 0 is none.
type exception struct {
	b byte
	r rune
}

// exceptions are those of encodings of single bytes.
var exceptions = map[string][]exception{
	"KOI8U":   {{0xae, '╝'}, {0xbe, '╬'}},
	"WIN1255": {{0xca, 0}},
}

// isISO says whether an encoding is one of single bytes that PostgreSQL gives the control characters of ISO 8859, which
// the web does not know.
func isISO(name string) bool {
	return strings.HasPrefix(name, "LATIN") || strings.HasPrefix(name, "ISO_")
}

// decodeByte gives the character of a byte where PostgreSQL has another than encodings; special says whether it has, and r is
// then 0 for none.
func decodeByte(name string, c byte) (r rune, special bool) {
	if isISO(name) && c >= 0x80 && c < 0xa0 {
		return rune(c), true
	}
	for _, x := range exceptions[name] {
		if x.b == c {
			return x.r, true
		}
	}
	return 0, false
}

// encodeRune is the way back.
func encodeRune(name string, r rune) (c byte, special bool) {
	if isISO(name) && r >= 0x80 && r < 0xa0 {
		return byte(r), true
	}
	for _, x := range exceptions[name] {
		if x.r == r {
			return x.b, true
		}
	}
	return 0, false
}

// hasSpecials says whether a text in UTF-8 or in an encoding may have what decodeByte and encodeRune are for.
func hasSpecials(name string) bool { return isISO(name) || exceptions[name] != nil }

// fitsEncoding says whether PostgreSQL may know a character of several bytes, lead and trail being the first two.
func fitsEncoding(name string, lead, trail byte) bool {
	switch name {
	case "EUC_KR", "EUC_CN":
		gbk := name == "EUC_CN" && (lead == 0xa2 && trail <= 0xb0 || lead == 0xa6 && trail > 0xd8 || lead == 0xa8 && trail >= 0xbb && trail <= 0xc4)
		return lead >= 0xa1 && trail >= 0xa1 && !gbk
	case "EUC_JP":
		return lead < 0xf5
	case "BIG5":
		return lead >= 0xa1 && lead <= 0xf9 && (lead != 0xf9 || trail < 0xd6) && (lead != 0xa3 || trail < 0xc0) && (lead < 0xc6 || lead > 0xc8 || lead == 0xc6 && trail < 0xa1)
	case "GBK":
		return !(lead == 0xa9 && trail >= 0x89 && trail <= 0x95) && !(lead == 0xfe && trail >= 0x50 && trail < 0xa1)
	}
	return true
}

// strangers are characters that PostgreSQL has otherwise, or not at all, beside the rows of fitsEncoding.
var strangers = map[string]map[string]bool{
	"EUC_JP":  setOf("\x8f\xa2\xb7", "\x8f\xa2\xc3"),
	"EUC_CN":  setOf("\xa2\xe3", "\xa1\xaa", "\xa1\xa4", "\x80"),
	"GBK":     setOf("\xa2\xe3", "\xa8\xbf", "\xa3\xa0", "\x80"),
	"GB18030": setOf("\xa3\xa0", "\x80"),
	"BIG5": setOf("\xa1\x45", "\xa1\x4e", "\xa1\x5a", "\xa1\xc2", "\xa1\xc3", "\xa1\xc5", "\xa1\xe3", "\xa1\xf2", "\xa1\xf3", "\xa1\xfe",
		"\xa2\x40", "\xa2\x41", "\xa2\x42", "\xa2\x44", "\xa2\x46", "\xa2\x47", "\xa2\xcc", "\xa2\xce"),
}

func setOf(list ...string) map[string]bool {
	m := map[string]bool{}
	for _, s := range list {
		m[s] = true
	}
	return m
}

// knownBytes says whether all characters of a text in an encoding may be known to PostgreSQL.
func knownBytes(name string, b []byte) bool {
	if strangers[name] == nil && name != "EUC_KR" {
		return true
	}
	for len(b) > 0 {
		n := min(characterLength(name, b), len(b))
		if b[0] >= 0x80 && (n > 1 && !fitsEncoding(name, b[0], b[1]) || strangers[name][string(b[:n])]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// characterLength is how many bytes the first character of a text in an encoding of several bytes takes.
func characterLength(name string, b []byte) int {
	switch c := b[0]; {
	case c <= 0x80: // the euro sign on the web
		return 1
	case name == "EUC_JP" && c == 0x8f:
		return 3
	case name == "GB18030" && len(b) > 1 && b[1] >= '0' && b[1] <= '9':
		return 4
	}
	return 2
}

// ibmKanji gives the bytes of characters that SJIS has twice as PostgreSQL sends them: those of IBM's rows, where
// golang.org/x/text has NEC's. It has numerals and some signs as well.
var ibmKanji = sync.OnceValue(func() map[string]string {
	m := map[string]string{}
	for lead := byte(0xfa); lead <= 0xfc; lead++ {
		for trail := byte(0x40); trail <= 0xfc; trail++ {
			b := []byte{lead, trail}
			if c, err := japanese.ShiftJIS.NewDecoder().Bytes(b); err == nil && utf8.RuneCount(c) == 1 {
				if nec, err := japanese.ShiftJIS.NewEncoder().Bytes(c); err == nil && (nec[0] == 0xed || nec[0] == 0xee || nec[0] == 0x87) {
					m[string(nec)] = string(b)
				}
			}
		}
	}
	return m
})

// preferIBM puts IBM's kanji in place of NEC's.
func preferIBM(b []byte) {
	for len(b) > 1 {
		switch c := b[0]; {
		case c < 0x80, c >= 0xa1 && c <= 0xdf:
			b = b[1:]
			continue
		case c == 0xed, c == 0xee, c == 0x87:
			copy(b, ibmKanji()[string(b[:2])])
		}
		b = b[2:]
	}
}

// hasOthers says whether a text in UTF-8 has control characters of ISO 8859, which stand for bytes that are no characters
// where characters have several bytes, or characters of private use, on which not all agree.
func hasOthers(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r >= 0x80 && r < 0xa0 || r >= 0xe000 && r <= 0xf8ff {
			return true
		}
		b = b[n:]
	}
	return false
}
