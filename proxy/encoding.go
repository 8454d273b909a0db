package proxy

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// encodings are what client_encoding may be beside UTF8 and SQL_ASCII, by the names that the server reports.
var encodings = map[string]encoding.Encoding{
	"LATIN1": charmap.ISO8859_1, "LATIN2": charmap.ISO8859_2, "LATIN3": charmap.ISO8859_3, "LATIN4": charmap.ISO8859_4,
	"ISO_8859_5": charmap.ISO8859_5, "ISO_8859_6": charmap.ISO8859_6, "ISO_8859_7": charmap.ISO8859_7,
	"ISO_8859_8": charmap.ISO8859_8, "LATIN5": charmap.ISO8859_9, "LATIN6": charmap.ISO8859_10,
	"LATIN7": charmap.ISO8859_13, "LATIN8": charmap.ISO8859_14, "LATIN9": charmap.ISO8859_15, "LATIN10": charmap.ISO8859_16,
	"KOI8R": charmap.KOI8R, "KOI8U": charmap.KOI8U, "WIN866": charmap.CodePage866, "WIN874": charmap.Windows874,
	"WIN1250": charmap.Windows1250, "WIN1251": charmap.Windows1251, "WIN1252": charmap.Windows1252,
	"WIN1253": charmap.Windows1253, "WIN1254": charmap.Windows1254, "WIN1255": charmap.Windows1255,
	"WIN1256": charmap.Windows1256, "WIN1257": charmap.Windows1257, "WIN1258": charmap.Windows1258,
	"EUC_JP": japanese.EUCJP, "SJIS": japanese.ShiftJIS, "EUC_KR": korean.EUCKR, "UHC": korean.EUCKR,
	"EUC_CN": simplifiedchinese.GBK, "GBK": simplifiedchinese.GBK, "GB18030": simplifiedchinese.GB18030,
	"BIG5": traditionalchinese.Big5,
}

// toUTF8 converts what the client sent. It returns b itself where there is nothing to convert.
func (g *settings) toUTF8(b []byte) ([]byte, *pgError) {
	if g.foreignEncoding == "" || isASCII(b) {
		return b, nil
	}
	e := encodings[g.foreignEncoding]
	if e == nil {
		return nil, errForeign(g.foreignEncoding)
	}
	if out, ok := decodeText(g.foreignEncoding, e, b); ok {
		return out, nil
	}
	return nil, &pgError{code: codeBadEncoding, message: fmt.Sprintf(`invalid byte sequence for encoding "%s"`, g.foreignEncoding)}
}

// decodeText converts a text from an encoding. It is not ok if PostgreSQL would not take it.
func decodeText(name string, e encoding.Encoding, b []byte) (out []byte, ok bool) {
	if hasSpecials(name) {
		d := e.NewDecoder()
		for i, c := range b {
			if r, special := decodeByte(name, c); special {
				if r == 0 {
					return nil, false
				}
				out = utf8.AppendRune(out, r)
				continue
			}
			one, err := d.Bytes(b[i : i+1])
			if err != nil || bytes.ContainsRune(one, utf8.RuneError) {
				return nil, false
			}
			out = append(out, one...)
		}
		return out, true
	}
	if !knownBytes(name, b) {
		return nil, false
	}
	out, err := e.NewDecoder().Bytes(b)
	if err != nil || bytes.ContainsRune(out, utf8.RuneError) || multibyte[name] && hasOthers(out) {
		return nil, false
	}
	return out, true
}

// multibyte are the encodings whose characters may have several bytes.
var multibyte = map[string]bool{
	"EUC_JP": true, "SJIS": true, "EUC_KR": true, "UHC": true, "EUC_CN": true, "GBK": true, "GB18030": true,
	"BIG5": true,
}

// encodeText converts a text to an encoding. It is not ok if PostgreSQL would not know a character.
func encodeText(name string, e encoding.Encoding, b []byte) (out []byte, ok bool) {
	if hasSpecials(name) {
		enc := e.NewEncoder()
		for len(b) > 0 {
			r, n := utf8.DecodeRune(b)
			if c, special := encodeRune(name, r); special {
				out = append(out, c)
				b = b[n:]
				continue
			}
			one, err := enc.Bytes(b[:n])
			if err != nil || len(one) != 1 {
				return nil, false
			}
			if _, special := decodeByte(name, one[0]); special {
				return nil, false
			}
			out = append(out, one...)
			b = b[n:]
		}
		return out, true
	}
	if multibyte[name] && hasOthers(b) {
		return nil, false
	}
	out, err := e.NewEncoder().Bytes(b)
	if name == "SJIS" {
		preferIBM(out)
	}
	return out, err == nil && knownBytes(name, out)
}

// fromUTF8 converts what the client gets. It returns b itself where there is nothing to convert.
func (g *settings) fromUTF8(b []byte) ([]byte, *pgError) {
	if g.foreignEncoding == "" || isASCII(b) {
		return b, nil
	}
	e := encodings[g.foreignEncoding]
	if e == nil {
		return nil, errForeign(g.foreignEncoding)
	}
	if out, ok := encodeText(g.foreignEncoding, e, b); ok {
		return out, nil
	}
	return nil, g.errNoEquivalent(e, b)
}

// errNoEquivalent names the first character that the client's encoding does not have, as PostgreSQL does.
func (g *settings) errNoEquivalent(e encoding.Encoding, b []byte) *pgError {
	var bad []byte
	for len(b) > 0 {
		_, n := utf8.DecodeRune(b)
		if _, ok := encodeText(g.foreignEncoding, e, b[:n]); !ok {
			bad = b[:n]
			break
		}
		b = b[n:]
	}
	message := "character with byte sequence"
	for _, c := range bad {
		message += fmt.Sprintf(" 0x%02x", c)
	}
	return &pgError{code: codeUntranslatable, message: message + fmt.Sprintf(` in encoding "UTF8" has no equivalent in encoding "%s"`, g.foreignEncoding)}
}

func errForeign(encoding string) *pgError {
	return &pgError{
		code:    codeFeatureNotSupported,
		message: "raftable() does not know the characters beyond ASCII of client_encoding " + encoding,
		hint:    "SET client_encoding TO 'UTF8'.",
	}
}
