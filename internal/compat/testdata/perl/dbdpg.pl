use strict;
use warnings;
use utf8;
use open qw(:std :encoding(UTF-8));
use DBI;
use DBD::Pg qw(:pg_types :async);

sub ok   { print "ok $_[0]\n" }
sub same {
    my ($got, $want) = map { defined $_ ? $_ : 'NULL, and not a string' } @_[0, 1];
    die "got $got, want $want at line " . (caller)[2] . "\n" if $got ne $want;
}

my $db = DBI->connect("dbi:Pg:", undef, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1 });
sub one { my ($sql, @args) = @_; return ($db->selectrow_array($sql, undef, @args))[0] }
sub fails {
    my ($code, $sql, @args) = @_;
    die "no error: $sql\n" if eval { $db->selectrow_array($sql, undef, @args); 1 };
    same($db->state, $code);
}

print "version DBD::Pg $DBD::Pg::VERSION libpq $db->{pg_lib_version}\n";
same(one("SELECT current_user"), "postgres");
ok("connect");

same(one("SELECT raftable('simple', 'it''s \\o/')"), "");
my $get = $db->prepare("SELECT raftable('simple') AS a, raftable('missing') AS b");
$get->execute;
same("@{$get->{NAME}}", "a b");
same("@{$get->{pg_type}}", "text text");
my @row = $get->fetchrow_array;
same($row[0], "it's \\o/");
same($row[1], undef);
$get->finish;
$db->do("SELECT raftable('simple')");    # simple protocol: no parameters
ok("simple");

# Prepared under a name from the second execution on.
my $set = $db->prepare("SELECT raftable(?, ?)");
$get = $db->prepare("SELECT raftable(?)");
my $plain = $db->prepare("SELECT ?::text || 'x'");
for my $i (0 .. 49) {
    my ($key, $value) = (sprintf("n%02d", $i), sprintf("value %02d", $i));
    $set->execute($key, $value);
    $get->execute($key);
    same($get->fetchall_arrayref->[0][0], $value);
    $plain->execute($value);
    same($plain->fetchall_arrayref->[0][0], $value . "x");
}
die "not prepared on the server" unless $get->{pg_prepare_name};
ok("parameters");

same(one("SELECT raftable('missing')"), undef);
$set->execute("gone", "here");
same(one("SELECT raftable(?)", "gone"), "here");
$set->execute("gone", undef);
same(one("SELECT raftable(?)", "gone"), undef);
same(one("SELECT raftable(?)", undef), undef);
ok("null");

$set->execute("empty", "");
same(one("SELECT raftable(?)", "empty"), "");
ok("empty");

my $unicode_key   = "ключ 🔑 'é' \\x \"q\"";
my $unicode_value = "значение 🗝\t'ü' \\ \"x\"\nend \$1 ? :a %s";
for ([ $unicode_key, $unicode_value ], [ "🔑" x 64, "64" ]) {
    $set->execute(@$_);
    same(one("SELECT raftable(?)", $_->[0]), $_->[1]);
}
ok("unicode");

$db->do("CREATE TABLE compat_dbdpg (id int PRIMARY KEY, note text)");
$db->begin_work;
$db->do("INSERT INTO compat_dbdpg VALUES (?, ?)", undef, 1, "gone");
$set->execute("kept", "rollback or not");
$db->rollback;
same(one("SELECT count(*) FROM compat_dbdpg"), 0);
same(one("SELECT raftable(?)", "kept"), "rollback or not");
$db->begin_work;
$db->do("INSERT INTO compat_dbdpg VALUES (?, ?)", undef, 2, "stays");
$db->pg_savepoint("s");
fails("22001", "SELECT raftable(?, ?)", "x" x 65, "v");
$db->pg_rollback_to("s");
same(one("SELECT raftable(?)", "kept"), "rollback or not");
$db->commit;
same(one("SELECT string_agg(note, ',') FROM compat_dbdpg"), "stays");
ok("transaction");

fails("22001", "SELECT raftable(?, ?)", "x" x 65, "v");
same(one("SELECT raftable(?)", "kept"), "rollback or not");
fails("42883", "SELECT raftable(?::int)", 1);
same(one("SELECT 1"), 1);
$db->begin_work;
fails("22001", "SELECT raftable(?, ?)", "x" x 65, "v");
fails("25P02", "SELECT 1");
fails("25P02", "SELECT raftable(?)", "kept");
$db->rollback;
ok("error");

my $rows = $db->selectall_arrayref("SELECT key, value FROM raftable()");
same(scalar(@$rows), 55);
my %rows = map { @$_ } @$rows;
same($rows{$unicode_key}, $unicode_value);
ok("list");

same(one("SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), 2);
same(one("SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), "value 03");
my $some = $db->prepare("SELECT i + 1 AS n, raftable(?) AS v FROM generate_series(1, 2) AS i WHERE raftable(?) = ?");
for ((map { [ "n0$_", "value 0$_" ] } 0 .. 9), [ $unicode_key, $unicode_value ]) {
    $some->execute($_->[0], "simple", "it's \\o/");
    same("@{$some->{NAME}} @{$some->{pg_type}}", "n v int4 text");
    same(join("|", map { @$_ } @{ $some->fetchall_arrayref }), "2|$_->[1]|3|$_->[1]");
}
my $sets = $db->prepare("SELECT k, raftable(k, upper(?)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k");
for (1 .. 3) {
    $sets->execute("set");
    same(join("|", map { @$_ } @{ $sets->fetchall_arrayref }), "row 1||row 2|");
}
same(one("SELECT raftable('row 1') || raftable('row 2')"), "SETSET");
$db->do("SELECT 1; SELECT raftable('row 1'); SELECT raftable('row ' || i, 'SET') FROM generate_series(1, 2) i");
fails("0A000", "SELECT 1 WHERE raftable('row 1', 'x') IS NULL");
ok("elsewhere");

my $tuples = $set->execute_array({}, [ ("batch") x 20 ], [ 0 .. 19 ]);
same($tuples, 20);
same(one("SELECT raftable(?)", "batch"), "19");
ok("batch");

$db->do("COPY compat_dbdpg FROM STDIN");
$db->pg_putcopydata("$_\traftable('k')\n") for 100 .. 199;
$db->pg_putcopyend;
$db->do("COPY (SELECT note FROM compat_dbdpg WHERE id >= 100) TO STDOUT");
my ($line, $lines) = ("", 0);
while ($db->pg_getcopydata($line) >= 0) { same($line, "raftable('k')\n"); $lines++ }
same($lines, 100);
same(one("SELECT raftable(?)", "simple"), "it's \\o/");
ok("copy");

my $other = $db->clone;
$db->do("SELECT pg_sleep(600)", { pg_async => PG_ASYNC });
my $deadline = time + 30;
until (($other->selectrow_array(
    "SELECT count(*) FROM pg_stat_activity WHERE pid = ? AND wait_event = 'PgSleep'", undef, $db->{pg_pid}))[0]) {
    die "pg_sleep does not run\n" if time > $deadline;
    select(undef, undef, undef, 0.005);    # the pace of polling
}
$db->pg_cancel;
same($db->state, "57014");
same(one("SELECT raftable(?)", "simple"), "it's \\o/");
ok("cancel");

$db->do("LISTEN compat_dbdpg");
$other->do("SELECT pg_notify(?, ?)", undef, "compat_dbdpg", "другой");
my $note;
for ($deadline = time + 30 ; !$note && time < $deadline ; select(undef, undef, undef, 0.005)) { $note = $db->pg_notifies }
same("$note->[0] $note->[2]", "compat_dbdpg другой");
ok("notify");
$other->disconnect;
$_->finish for $set, $get, $plain, $some, $sets;
$db->disconnect;
