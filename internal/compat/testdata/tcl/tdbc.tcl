# encoding: the program is UTF-8, and so is what it says and sends.
package require tdbc::postgres
encoding system utf-8

proc ok {name} { puts "ok $name" }
proc same {got want} { if {$got ne $want} { error "got $got, want $want" } }

# The driver puts the password between quotes as it is.
set password [string map {\\ \\\\ ' \\'} $env(PGPASSWORD)]
tdbc::postgres::connection create db -host $env(PGHOST) -port $env(PGPORT) -user $env(PGUSER) \
    -password $password -db $env(PGDATABASE)

# The first column of the first row; "NULL" where the driver leaves it out of the dictionary.
proc one {sql {values {}}} {
    set rows [db allrows -as dicts -- $sql $values]
    if {![llength $rows]} { return {} }
    set row [lindex $rows 0]
    if {![dict size $row]} { return NULL }
    return [lindex [dict values $row] 0]
}
proc fails {code sql {values {}}} {
    if {![catch {one $sql $values} message options]} { error "no error: $sql" }
    same [lindex [dict get $options -errorcode] 2] $code
}

puts "version tdbc::postgres [package present tdbc::postgres] Tcl [info patchlevel]"
same [one "SELECT current_user AS u"] postgres
ok connect

one "SELECT raftable('simple', 'it''s \\o/')"
same [db allrows -as lists -columnsvariable columns "SELECT raftable('simple') AS a, raftable('n') AS b"] {{{it's \o/} {}}}
same $columns {a b}
ok simple

set set [db prepare {SELECT raftable(:key, :value)}]
set get [db prepare {SELECT raftable(:key) AS v}]
set plain [db prepare {SELECT :value::text || 'x' AS v}]
for {set i 0} {$i < 50} {incr i} {
    set key [format n%02d $i]
    set value [format {value %02d} $i]
    $set allrows
    same [dict get [lindex [$get allrows] 0] v] $value
    same [dict get [lindex [$plain allrows] 0] v] ${value}x
}
ok parameters

same [one "SELECT raftable('missing')"] NULL
one {SELECT raftable(:k, :v)} {k gone v here}
same [one {SELECT raftable(:k)} {k gone}] here
one {SELECT raftable(:k, :v)} {k gone}
same [one {SELECT raftable(:k)} {k gone}] NULL
same [one {SELECT raftable(:k)}] NULL
ok null

one {SELECT raftable(:k, :v)} {k empty v {}}
same [one {SELECT raftable(:k)} {k empty}] {}
ok empty

set unicode_key "ключ ☃ 'é' \\x \"q\""
set unicode_value "значение ☃\t'ü' \\ \"x\"\nend \$1 ? :a %s"
foreach {k v} [list $unicode_key $unicode_value [string repeat ☃ 64] 64] {
    one {SELECT raftable(:k, :v)} [list k $k v $v]
    same [one {SELECT raftable(:k)} [list k $k]] $v
}
ok unicode

db allrows {CREATE TABLE compat_tcl (id int PRIMARY KEY, note text)}
db begintransaction
db allrows {INSERT INTO compat_tcl VALUES (1, 'gone')}
one {SELECT raftable(:k, :v)} {k kept v {rollback or not}}
db rollback
same [one {SELECT count(*) AS n FROM compat_tcl}] 0
same [one {SELECT raftable(:k)} {k kept}] {rollback or not}
db transaction {
    db allrows {INSERT INTO compat_tcl VALUES (2, 'stays')}
    same [one {SELECT raftable(:k)} {k kept}] {rollback or not}
}
same [one {SELECT string_agg(note, ',') AS n FROM compat_tcl}] stays
ok transaction

fails 22001 {SELECT raftable(:k, :v)} [list k [string repeat x 65] v v]
same [one {SELECT raftable(:k)} {k kept}] {rollback or not}
fails 42883 {SELECT raftable(1)}
same [one {SELECT 1 AS n}] 1
db begintransaction
fails 22001 {SELECT raftable(:k, :v)} [list k [string repeat x 65] v v]
fails 25P02 {SELECT 1 AS n}
fails 25P02 {SELECT raftable('kept')}
db rollback
ok error

set rows [db allrows -as lists {SELECT key, value FROM raftable()}]
same [llength $rows] 55
same [dict get [concat {*}$rows] $unicode_key] $unicode_value
ok list

same [one {SELECT count(*) AS n FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL}] 2
same [one {SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k}] {value 03}
set some [db prepare {SELECT i + 1 AS n, raftable(:k) AS v FROM generate_series(1, 2) AS i WHERE raftable(:c) = :is}]
foreach {k v} [list n01 {value 01} n02 {value 02} n03 {value 03} $unicode_key $unicode_value] {
    same [$some allrows -as lists [list k $k c simple is {it's \o/}]] [list [list 2 $v] [list 3 $v]]
}
$some close
same [db allrows -as lists {SELECT k, raftable(k, upper(:v)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k} {v set}] \
    {{{row 1} {}} {{row 2} {}}}
same [one {SELECT raftable('row 1') || raftable('row 2') AS v}] SETSET
fails 0A000 {SELECT 1 AS n WHERE raftable('row 1', 'x') IS NULL}
ok elsewhere
$set close
$get close
$plain close
db close
