import threading

import psycopg
from common import (COUNTED, HARVESTED, JOINED, LONGEST_KEY, NUMBERED, REFUSED, SEVERAL, UNICODE_KEY, UNICODE_VALUE, ok, same,
                    until)
from psycopg import sql  # noqa: F401  (an import that fails where the installation is half)

conn = psycopg.connect("", autocommit=True)


def one(text, *args, **kw):
    return conn.execute(text, args or None, **kw).fetchone()[0]


def fails(code, text, *args):
    try:
        conn.execute(text, args or None)
    except psycopg.Error as e:
        same(e.sqlstate, code)
    else:
        raise AssertionError("no error: " + text)


print("version psycopg", psycopg.__version__, psycopg.pq.__impl__, "libpq", psycopg.pq.version())
same(one("SELECT current_user"), "postgres")
ok("connect")

same(one("SELECT raftable('simple', 'it''s \\o/')"), "")
cur = conn.execute("SELECT raftable('simple') AS a, raftable('missing') AS b")
same([c.name for c in cur.description], ["a", "b"])
same([c.type_code for c in cur.description], [25, 25])
same(cur.fetchall(), [("it's \\o/", None)])
# Without parameters this driver uses the simple protocol, where several statements may stand in one text.
cur = conn.execute("SELECT raftable('simple') AS a; SELECT raftable('missing')")
same(cur.fetchone()[0], "it's \\o/")
same(cur.nextset(), True)
same(cur.fetchone()[0], None)
ok("simple")

# After five executions of a text the driver prepares it under a name.
for key, value in NUMBERED:
    same(one("SELECT raftable(%s, %s)", key, value), "")
    same(one("SELECT raftable(%s)", key), value)
    same(one("SELECT %s::text || 'x'", value), value + "x")
same(one("SELECT raftable(%s)", "n07", prepare=True), "value 07")
names = [r[0] for r in conn.execute("SELECT statement FROM pg_prepared_statements ORDER BY 1").fetchall()]
same(len([n for n in names if "raftable" not in n]) >= 1, True)
ok("parameters")

same(one("SELECT raftable('missing')"), None)
conn.execute("SELECT raftable(%s, %s)", ("gone", "here"))
same(one("SELECT raftable(%s)", "gone"), "here")
conn.execute("SELECT raftable(%s, %s)", ("gone", None))
same(one("SELECT raftable(%s)", "gone"), None)
same(one("SELECT raftable(%s)", None), None)
ok("null")

conn.execute("SELECT raftable(%s, %s)", ("empty", ""))
same(one("SELECT raftable(%s)", "empty"), "")
ok("empty")

for key, value in ((UNICODE_KEY, UNICODE_VALUE), (LONGEST_KEY, "64")):
    conn.execute("SELECT raftable(%s, %s)", (key, value))
    same(one("SELECT raftable(%s)", key), value)
ok("unicode")

conn.execute("SELECT raftable(%b, %b)", ("binary", "bïnär"))
same(conn.execute("SELECT raftable(%b)", ("binary",), binary=True).fetchone()[0], "bïnär")
rows = conn.execute("SELECT key, value FROM raftable()", binary=True).fetchall()
same(dict(rows)[UNICODE_KEY], UNICODE_VALUE)
same(conn.execute("SELECT %b::int8 + 1", (41,), binary=True).fetchone()[0], 42)
ok("binary")

conn.execute("CREATE TABLE compat_psycopg3 (id int PRIMARY KEY, note text)")


class Undo(Exception):
    pass


try:
    with conn.transaction():
        conn.execute("INSERT INTO compat_psycopg3 VALUES (1, 'gone')")
        conn.execute("SELECT raftable(%s, %s)", ("kept", "rollback or not"))
        raise Undo
except Undo:
    pass
same(one("SELECT count(*) FROM compat_psycopg3"), 0)
same(one("SELECT raftable('kept')"), "rollback or not")
with conn.transaction():
    conn.execute("INSERT INTO compat_psycopg3 VALUES (2, %s)", ("stays",))
    try:
        with conn.transaction():  # a savepoint
            conn.execute("INSERT INTO compat_psycopg3 VALUES (3, 'gone')")
            conn.execute("SELECT raftable(%s, 'v')", ("x" * 65,))
    except psycopg.errors.StringDataRightTruncation:
        pass
    same(one("SELECT raftable('kept')"), "rollback or not")
same(one("SELECT string_agg(note, ',') FROM compat_psycopg3"), "stays")
ok("transaction")

fails("22001", "SELECT raftable(%s, %s)", "x" * 65, "v")
same(one("SELECT raftable('kept')"), "rollback or not")
fails("42883", "SELECT raftable(%s)", 1)
same(one("SELECT 1"), 1)
conn.execute("BEGIN")
fails("22001", "SELECT raftable(%s, %s)", "x" * 65, "v")
fails("25P02", "SELECT 1")
fails("25P02", "SELECT raftable('kept')")
conn.execute("ROLLBACK")
ok("error")

rows = conn.execute("SELECT key, value FROM raftable()").fetchall()
same(len(rows), 56)
same(rows, sorted(rows, key=lambda r: r[0].encode()))
same(dict(rows)[UNICODE_KEY], UNICODE_VALUE)
streamed = list(conn.cursor().stream("SELECT * FROM raftable()"))  # single-row mode
same(streamed, rows)
ok("list")

same(one(COUNTED), 2)
same(one(JOINED), "value 03")
for binary in (False, True):
    for key, value in NUMBERED[:10] + [(UNICODE_KEY, UNICODE_VALUE)]:
        cur = conn.execute(SEVERAL.format("%s"), (key, "simple", "it's \\o/"), binary=binary)
        same([c.name for c in cur.description], ["n", "v"])
        same([c.type_code for c in cur.description], [23, 25])
        same(cur.fetchall(), [(2, value), (3, value)])
    same(conn.execute(HARVESTED.format("%s"), ("set",), binary=binary).fetchall(), [("row 1", ""), ("row 2", "")] if not binary
         else [("row 1", b""), ("row 2", b"")])
cur = conn.execute("SELECT 1; SELECT raftable('row 1') || raftable('row 2')")
same(cur.nextset(), True)
same(cur.fetchone()[0], "SETSET")
fails("0A000", REFUSED)
fails("42883", "SELECT raftable(%s), 1", 1)
ok("elsewhere")

with conn.transaction():
    for query, args, want in (("SELECT i FROM generate_series(1, 100) i", None, 5050),
                              ("SELECT i FROM generate_series(1, 100) i WHERE raftable(%s) = 'value 01'", ("n01",), 5050),
                              ("SELECT length(key) FROM raftable() WHERE key LIKE %s", ("n%",), 150)):
        with conn.cursor("a cursor") as named:
            named.itersize = 7
            named.execute(query, args)
            total = 0
            for (i,) in named:
                total += i
                if i % 40 == 0:
                    same(one("SELECT raftable('simple')"), "it's \\o/")
            same(total, want)
ok("cursor")

with conn.cursor() as cur:
    cur.executemany("SELECT raftable(%s, %s)", [("batch", str(i)) for i in range(20)])
    cur.executemany("INSERT INTO compat_psycopg3 VALUES (%s, %s)", [(i, "v") for i in range(10, 20)])
same(one("SELECT raftable('batch')"), "19")
with conn.pipeline() as pipeline:
    a = conn.execute("SELECT raftable(%s)", ("batch",))
    b = conn.execute("SELECT %s::int + 1", (1,))
    c = conn.execute("SELECT raftable(%s, %s)", ("batch", "pipeline"))
    d = conn.execute("SELECT raftable(%s), raftable(%s)", ("batch", "simple"))
    e = conn.execute("SELECT 1, raftable(%s), upper(raftable(%s))", ("batch", "batch"))
    f = conn.execute("SELECT raftable('row ' || i, 'SET') FROM generate_series(1, %s) i", (2,))
    same((a.fetchone()[0], b.fetchone()[0], c.fetchone()[0], d.fetchone()), ("19", 2, "", ("pipeline", "it's \\o/")))
    same((e.fetchone(), f.fetchall()), ((1, "pipeline", "PIPELINE"), [("",), ("",)]))
try:
    with conn.pipeline():
        conn.execute("SELECT raftable(%s)", (1,))
        conn.execute("SELECT raftable(%s, %s)", ("batch", "never"))
except psycopg.errors.UndefinedFunction:
    pass
else:
    raise AssertionError("no error in the pipeline")
same(one("SELECT raftable('batch')"), "pipeline")
ok("batch")

with conn.cursor() as cur:
    with cur.copy("COPY compat_psycopg3 FROM STDIN") as copy:
        for i in range(100, 200):
            copy.write_row((i, "raftable('k')"))
    with cur.copy("COPY (SELECT note FROM compat_psycopg3 WHERE id >= 100) TO STDOUT (FORMAT BINARY)") as copy:
        copy.set_types(["text"])
        same(list(copy.rows()), [("raftable('k')",)] * 100)
    try:
        with cur.copy("COPY compat_psycopg3 FROM STDIN") as copy:
            copy.write_row((300, "half"))
            raise Undo
    except psycopg.errors.QueryCanceled:
        pass
same(one("SELECT count(*) FROM compat_psycopg3 WHERE id = 300"), 0)
same(one("SELECT raftable('simple')"), "it's \\o/")
ok("copy")

pid = one("SELECT pg_backend_pid()")


def cancel():
    with psycopg.connect("", autocommit=True) as other:
        look = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        until("pg_sleep runs", lambda: other.execute(look, (pid,)).fetchone()[0] == 1)
        conn.cancel()


thread = threading.Thread(target=cancel)
thread.start()
fails("57014", "SELECT pg_sleep(600)")
thread.join()
same(one("SELECT raftable('simple')"), "it's \\o/")
ok("cancel")

conn.execute("LISTEN compat_psycopg3")
with psycopg.connect("", autocommit=True) as other:
    other.execute("SELECT pg_notify(%s, %s)", ("compat_psycopg3", "другой"))
note = next(conn.notifies())
same((note.channel, note.payload), ("compat_psycopg3", "другой"))
conn.add_notice_handler(lambda n: ok("notice") if n.message_primary == "hello" else None)
conn.execute("DO $$BEGIN RAISE NOTICE 'hello'; END$$")
ok("notify")
conn.close()
