package sqlrewrite

// Type OIDs, fixed for all versions of PostgreSQL.
const (
	oidUnresolved = 0
	oidBool       = 16
	oidName       = 19
	oidInt8       = 20
	oidInt2       = 21
	oidInt4       = 23
	oidText       = 25
	oidUnknown    = 705
	oidBpchar     = 1042
	oidVarchar    = 1043
	oidBit        = 1560
	oidNumeric    = 1700
)

// typeNames has the built-in types that a client may declare for a parameter, as PostgreSQL writes
// them in messages.
var typeNames = map[uint32]string{
	oidBool: "boolean", 17: "bytea", 18: `"char"`, oidName: "name", oidInt8: "bigint", oidInt2: "smallint",
	oidInt4: "integer", 24: "regproc", oidText: "text", 26: "oid", 27: "tid", 28: "xid", 29: "cid",
	114: "json", 142: "xml", 600: "point", 601: "lseg", 602: "path", 603: "box", 604: "polygon", 628: "line",
	650: "cidr", 700: "real", 701: "double precision", 718: "circle", 774: "macaddr8", 790: "money",
	829: "macaddr", 869: "inet", oidBpchar: "character", oidVarchar: "character varying", 1082: "date",
	1083: "time without time zone", 1114: "timestamp without time zone", 1184: "timestamp with time zone",
	1186: "interval", 1266: "time with time zone", oidBit: "bit", 1562: "bit varying", oidNumeric: "numeric",
	1790: "refcursor", 2202: "regprocedure", 2203: "regoper", 2204: "regoperator", 2205: "regclass",
	2206: "regtype", 2950: "uuid", 3614: "tsvector", 3615: "tsquery", 3734: "regconfig", 3769: "regdictionary",
	3802: "jsonb", 3904: "int4range", 3906: "numrange", 3908: "tsrange", 3910: "tstzrange", 3912: "daterange",
	3926: "int8range", 4072: "jsonpath", 4089: "regnamespace", 4096: "regrole", 5069: "xid8",

	1000: "boolean[]", 1001: "bytea[]", 1002: `"char"[]`, 1003: "name[]", 1005: "smallint[]", 1007: "integer[]",
	1009: "text[]", 1014: "character[]", 1015: "character varying[]", 1016: "bigint[]", 1021: "real[]",
	1022: "double precision[]", 1028: "oid[]", 199: "json[]", 1041: "inet[]", 651: "cidr[]",
	1115: "timestamp without time zone[]", 1182: "date[]", 1183: "time without time zone[]",
	1185: "timestamp with time zone[]", 1187: "interval[]", 1231: "numeric[]", 1270: "time with time zone[]",
	1561: "bit[]", 1563: "bit varying[]", 2951: "uuid[]", 3807: "jsonb[]",
}

// typeName is the type's name in messages; false where it is not known here.
func typeName(oid uint32) (string, bool) {
	if oid == oidUnresolved || oid == oidUnknown {
		return "unknown", true
	}
	name, ok := typeNames[oid]
	return name, ok
}

func isText(oid uint32) bool { return oid == oidText || oid == oidVarchar }

// fit says whether a value of a type can be the argument of a function without a cast in the text.
type fit uint8

const (
	fits fit = iota
	fitsNot
	fitsPerhaps // PostgreSQL may accept it, by a conversion that is not done here
)

// fitOf says how an argument of type actual fits a parameter of type wanted.
func fitOf(actual, wanted uint32) fit {
	switch {
	case actual == oidUnresolved, actual == wanted, isText(actual) && isText(wanted), actual == oidInt2 && wanted == oidInt4:
		return fits
	case actual == oidBpchar && isText(wanted), wanted == oidText && (actual == oidName || actual == 18):
		return fitsPerhaps
	}
	if _, known := typeNames[actual]; known {
		return fitsNot
	}
	return fitsPerhaps
}
