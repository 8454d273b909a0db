<?php
// PDO prepares each statement under a name of its own (pdo_stmt_…), or, when emulating, writes parameters into the text.
declare(strict_types=1);

const UNICODE_KEY = "ключ 🔑 'é' \\x \"q\"";
const UNICODE_VALUE = "значение 🗝\t'ü' \\ \"x\"\nend \$1 ? :a %s";

function ok(string $name): void { echo "ok $name\n"; }

function same(mixed $got, mixed $want): void
{
    if ($got !== $want) {
        throw new Exception('got ' . var_export($got, true) . ', want ' . var_export($want, true));
    }
}

function connect(): PDO
{
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

$db = connect();

function one(string $sql, ?string ...$args): mixed
{
    global $db;
    $s = $db->prepare($sql);
    $s->execute($args);
    return $s->columnCount() > 0 ? $s->fetchColumn() : null;
}

function fails(string $code, callable $f): void
{
    try {
        $f();
    } catch (PDOException $e) {
        same($e->getCode(), $code);
        return;
    }
    throw new Exception("no error, want $code");
}

echo 'version PDO_PGSQL PHP ', PHP_VERSION, ' libpq ', $db->getAttribute(PDO::ATTR_CLIENT_VERSION), "\n";
same(one('SELECT current_user'), 'postgres');
ok('connect');

same($db->query("SELECT raftable('simple', 'it''s \\o/')")->fetchColumn(), '');
same($db->query("SELECT raftable('simple') AS a, raftable('missing') AS b")->fetch(PDO::FETCH_ASSOC), ['a' => "it's \\o/", 'b' => null]);
same($db->exec("SELECT raftable('simple')"), 0);
ok('simple');

foreach ([false, true] as $emulate) {
    $db->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulate);
    $set = $db->prepare('SELECT raftable(:key, :value)');
    $get = $db->prepare('SELECT raftable(?)');
    $plain = $db->prepare("SELECT ?::text || 'x'");
    for ($i = 0; $i < 50; $i++) {
        $value = sprintf('value %02d', $i);
        $set->execute(['key' => sprintf('n%02d', $i), 'value' => $value]);
        $get->execute([sprintf('n%02d', $i)]);
        same($get->fetchColumn(), $value);
        $plain->execute([$value]);
        same($plain->fetchColumn(), $value . 'x');
    }
}
$db->setAttribute(PDO::ATTR_EMULATE_PREPARES, false);
ok('parameters');

foreach ([false, true] as $emulate) {
    $db->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulate);
    same(one("SELECT raftable('missing')"), null);
    one('SELECT raftable(?, ?)', 'gone', 'here');
    same(one('SELECT raftable(?)', 'gone'), 'here');
    one('SELECT raftable(?, ?)', 'gone', null);
    same(one('SELECT raftable(?)', 'gone'), null);
}
same(one('SELECT raftable(?)', null), null);
ok('null');

one('SELECT raftable(?, ?)', 'empty', '');
same(one('SELECT raftable(?)', 'empty'), '');
ok('empty');

foreach ([true, false] as $emulate) {
    $db->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulate);
    foreach ([[UNICODE_KEY, UNICODE_VALUE], [str_repeat('🔑', 64), '64']] as [$key, $value]) {
        one('SELECT raftable(?, ?)', $key, $value);
        same(one('SELECT raftable(?)', $key), $value);
    }
}
ok('unicode');

$db->exec('CREATE TABLE compat_php (id int PRIMARY KEY, note text)');
$db->beginTransaction();
one('INSERT INTO compat_php VALUES (?, ?)', '1', 'gone');
one('SELECT raftable(?, ?)', 'kept', 'rollback or not');
$db->rollBack();
same(one('SELECT count(*) FROM compat_php'), 0);
same(one('SELECT raftable(?)', 'kept'), 'rollback or not');
$db->beginTransaction();
one('INSERT INTO compat_php VALUES (?, ?)', '2', 'stays');
same(one('SELECT raftable(?)', 'kept'), 'rollback or not');
same($db->inTransaction(), true);
$db->commit();
same(one("SELECT string_agg(note, ',') FROM compat_php"), 'stays');
ok('transaction');

fails('22001', fn() => one('SELECT raftable(?, ?)', str_repeat('x', 65), 'v'));
same(one('SELECT raftable(?)', 'kept'), 'rollback or not');
fails('42883', fn() => one('SELECT raftable(?::int)', '1'));
same(one('SELECT 1'), 1);
$db->beginTransaction();
fails('22001', fn() => one('SELECT raftable(?, ?)', str_repeat('x', 65), 'v'));
fails('25P02', fn() => one('SELECT 1'));
fails('25P02', fn() => one('SELECT raftable(?)', 'kept'));
$db->rollBack();
ok('error');

$rows = $db->query('SELECT key, value FROM raftable()')->fetchAll(PDO::FETCH_KEY_PAIR);
same(count($rows), 55);
same($rows[UNICODE_KEY], UNICODE_VALUE);
ok('list');

foreach ([true, false] as $emulate) {
    $db->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulate);
    same(one("SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), 2);
    same(one("SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), 'value 03');
    $some = $db->prepare('SELECT i + 1 AS n, raftable(?) AS v FROM generate_series(1, 2) AS i WHERE raftable(?) = ?');
    foreach ([...array_map(fn($i) => ["n0$i", "value 0$i"], range(0, 9)), [UNICODE_KEY, UNICODE_VALUE]] as [$key, $value]) {
        $some->execute([$key, 'simple', "it's \\o/"]);
        same($some->fetchAll(PDO::FETCH_ASSOC), [['n' => 2, 'v' => $value], ['n' => 3, 'v' => $value]]);
    }
    $sets = $db->prepare("SELECT k, raftable(k, upper(?)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k");
    $sets->execute(['set']);
    same($sets->fetchAll(PDO::FETCH_NUM), [['row 1', ''], ['row 2', '']]);
    same(one("SELECT raftable('row 1') || raftable('row 2')"), 'SETSET');
}
fails('0A000', fn() => one("SELECT 1 WHERE raftable('row 1', 'x') IS NULL"));
ok('elsewhere');

$db->beginTransaction();
$cursor = $db->prepare('SELECT i FROM generate_series(1, 100) i', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
$cursor->execute();
same($cursor->fetch(PDO::FETCH_COLUMN, PDO::FETCH_ORI_LAST), 100);
same(one('SELECT raftable(?)', 'kept'), 'rollback or not');
same($cursor->fetch(PDO::FETCH_COLUMN, PDO::FETCH_ORI_FIRST), 1);
$cursor = null;
$cursor = $db->prepare("SELECT i, raftable('n' || lpad(i::text, 2, '0')) FROM generate_series(1, 40) i WHERE raftable(?) = 'value 01'",
    [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
$cursor->execute(['n01']);
same($cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST), [40, 'value 40']);
same($cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR), [39, 'value 39']);
same(one('SELECT raftable(?)', 'kept'), 'rollback or not');
same($cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_FIRST), [1, 'value 01']);
$cursor = null;
$db->commit();
ok('cursor');

$lines = [];
for ($i = 100; $i < 200; $i++) {
    $lines[] = "$i\traftable('k')";
}
same($db->pgsqlCopyFromArray('compat_php', $lines), true);
same(count($db->pgsqlCopyToArray('compat_php')), 101);
same(one('SELECT raftable(?)', 'kept'), 'rollback or not');
ok('copy');

$db->exec('LISTEN compat_php');
$other = connect();
$other->exec("NOTIFY compat_php, 'другой'");
$note = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, 30000);
same([$note['message'], $note['payload']], ['compat_php', 'другой']);
ok('notify');

// The older extension: unnamed statements by pg_query_params, asynchronous queries, cancel.
$pg = pg_connect('');
same(pg_fetch_result(pg_query_params($pg, 'SELECT raftable($1, $2)', ['batch', '1']), 0, 0), '');
pg_send_query($pg, "SELECT raftable('batch', '2'); SELECT raftable('batch'), raftable('missing'); SELECT raftable('batch', '3')");
$got = [];
while ($r = pg_get_result($pg)) {
    $got[] = pg_fetch_row($r, 0);
}
same($got, [[''], ['2', null], ['']]);
pg_send_query($pg, "SELECT 1; SELECT 2, raftable('batch'); SELECT raftable('batch', '4'); SELECT raftable('batch'); SELECT raftable('batch', '3')");
$got = [];
while ($r = pg_get_result($pg)) {
    $got[] = pg_fetch_row($r, 0);
}
same($got, [['1'], ['2', '3'], [''], ['4'], ['']]);
ok('batch');
$pid = pg_get_pid($pg);
pg_send_query($pg, 'SELECT pg_sleep(600)');
$look = $other->prepare("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND wait_event = 'PgSleep'");
for ($deadline = time() + 30; ; usleep(5000)) { // the pace of polling
    $look->execute();
    if ($look->fetchColumn() === 1) {
        break;
    }
    same(time() < $deadline, true);
}
same(pg_cancel_query($pg), true);
same(pg_fetch_result(pg_query($pg, "SELECT raftable('batch')"), 0, 0), '3');
ok('cancel');
