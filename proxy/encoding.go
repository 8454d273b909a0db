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
	out, err := e.NewDecoder().Bytes(b)
	if err != nil || bytes.ContainsRune(out, utf8.RuneError) {
		return nil, &pgError{code: codeBadEncoding, message: fmt.Sprintf(`invalid byte sequence for encoding "%s"`, g.foreignEncoding)}
	}
	return out, nil
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
	out, err := e.NewEncoder().Bytes(b)
	if err != nil {
		return nil, g.errNoEquivalent(e, b)
	}
	return out, nil
}

// errNoEquivalent names the first character that the client's encoding does not have, as PostgreSQL does.
func (g *settings) errNoEquivalent(e encoding.Encoding, b []byte) *pgError {
	var bad []byte
	for len(b) > 0 {
		_, n := utf8.DecodeRune(b)
		if _, err := e.NewEncoder().Bytes(b[:n]); err != nil {
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
