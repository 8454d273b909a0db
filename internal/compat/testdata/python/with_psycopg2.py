import io
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extras
import psycopg2.extensions
from common import (COUNTED, HARVESTED, JOINED, LONGEST_KEY, NUMBERED, REFUSED, SEVERAL, UNICODE_KEY, UNICODE_VALUE, ok, same,
                    until)

conn = psycopg2.connect("")
conn.autocommit = True
cur = conn.cursor()


def one(sql, *args):
    cur.execute(sql, args or None)
    return cur.fetchone()[0]


def fails(code, sql, *args):
    try:
        cur.execute(sql, args or None)
    except psycopg2.Error as e:
        same(e.pgcode, code)
    else:
        raise AssertionError("no error: " + sql)


print("version psycopg2", psycopg2.__version__.split()[0], "libpq", psycopg2.extensions.libpq_version())
same(one("SELECT current_user"), "postgres")
ok("connect")

same(one("SELECT raftable('simple', 'it''s \\o/')"), "")
same(one("SELECT raftable('simple')"), "it's \\o/")
cur.execute("SELECT raftable('simple') AS a, raftable('missing') AS b")
same([c.name for c in cur.description], ["a", "b"])
same([c.type_code for c in cur.description], [25, 25])
same(cur.fetchall(), [("it's \\o/", None)])
ok("simple")

# This driver has no parameters on the wire: it puts them into the text as constants.
for key, value in NUMBERED:
    cur.execute("SELECT raftable(%s, %s)", (key, value))
    same(one("SELECT raftable(%s)", key), value)
    same(one("SELECT %s::text || 'x'", value), value + "x")
ok("parameters")

same(one("SELECT raftable('missing')"), None)
cur.execute("SELECT raftable(%s, %s)", ("gone", "here"))
same(one("SELECT raftable('gone')"), "here")
cur.execute("SELECT raftable(%s, %s)", ("gone", None))
same(one("SELECT raftable('gone')"), None)
same(one("SELECT raftable(%s)", None), None)
ok("null")

cur.execute("SELECT raftable(%s, %s)", ("empty", ""))
same(one("SELECT raftable(%s)", "empty"), "")
ok("empty")

for key, value in ((UNICODE_KEY, UNICODE_VALUE), (LONGEST_KEY, "64")):
    cur.execute("SELECT raftable(%s, %s)", (key, value))
    same(one("SELECT raftable(%s)", key), value)
ok("unicode")

cur.execute("CREATE TABLE compat_psycopg2 (id int PRIMARY KEY, note text)")
conn.autocommit = False
cur.execute("INSERT INTO compat_psycopg2 VALUES (1, 'gone')")
cur.execute("SELECT raftable(%s, %s)", ("kept", "rollback or not"))
conn.rollback()
same(one("SELECT count(*) FROM compat_psycopg2"), 0)
same(one("SELECT raftable('kept')"), "rollback or not")
conn.commit()
with conn:
    cur.execute("INSERT INTO compat_psycopg2 VALUES (2, upper(%s))", ("stays",))
    same(one("SELECT raftable('kept')"), "rollback or not")
conn.autocommit = True
same(one("SELECT string_agg(note, ',') FROM compat_psycopg2"), "STAYS")
ok("transaction")

fails("22001", "SELECT raftable(%s, %s)", "x" * 65, "v")
same(one("SELECT raftable('kept')"), "rollback or not")
fails("42883", "SELECT raftable(%s)", 1)
same(one("SELECT 1"), 1)
conn.autocommit = False
cur.execute("INSERT INTO compat_psycopg2 VALUES (3, 'gone')")
fails("22001", "SELECT raftable(%s, %s)", "x" * 65, "v")
fails("25P02", "SELECT 1")
fails("25P02", "SELECT raftable('kept')")
conn.rollback()
conn.autocommit = True
same(one("SELECT count(*) FROM compat_psycopg2"), 1)
ok("error")

cur.execute("SELECT key, value FROM raftable()")
rows = cur.fetchall()
same(len(rows), 55)
same(rows, sorted(rows, key=lambda r: r[0].encode()))
same(dict(rows)[UNICODE_KEY], UNICODE_VALUE)
ok("list")

same(one(COUNTED), 2)
same(one(JOINED), "value 03")
for key, value in NUMBERED[:10] + [(UNICODE_KEY, UNICODE_VALUE)]:
    cur.execute(SEVERAL.format("%s"), (key, "simple", "it's \\o/"))
    same([c.name for c in cur.description], ["n", "v"])
    same(cur.fetchall(), [(2, value), (3, value)])
cur.execute(HARVESTED.format("%s"), ("set",))
same(cur.fetchall(), [("row 1", ""), ("row 2", "")])
same(one("SELECT 1; SELECT raftable('row 1') || raftable('row 2')"), "SETSET")
fails("0A000", REFUSED)
ok("elsewhere")

conn.autocommit = False
for query, args, want in (("SELECT i FROM generate_series(1, 100) i", None, 5050),
                          ("SELECT i FROM generate_series(1, 100) i WHERE raftable(%s) = 'value 01'", ("n01",), 5050),
                          ("SELECT length(key) FROM raftable() WHERE key LIKE %s", ("n%",), 150)):
    named = conn.cursor("a cursor")
    named.itersize = 7
    named.execute(query, args)
    total = 0
    for (i,) in named:
        total += i
        if i % 40 == 0:
            same(one("SELECT raftable('simple')"), "it's \\o/")
    same(total, want)
    named.close()
conn.rollback()
conn.autocommit = True
ok("cursor")

# Several statements in one text: calls only, none, and both.
psycopg2.extras.execute_batch(cur, "SELECT raftable(%s, %s)", [("batch", str(i)) for i in range(20)], page_size=7)
same(one("SELECT raftable('batch')"), "19")
psycopg2.extras.execute_values(cur, "INSERT INTO compat_psycopg2 VALUES %s", [(i, "v") for i in range(10, 20)])
same(cur.rowcount, 10)
psycopg2.extras.execute_batch(cur, "UPDATE compat_psycopg2 SET note = raftable('batch') || %s WHERE id = %s; SELECT raftable('batch', %s)",
                              [(str(i), 10 + i, str(20 + i)) for i in range(10)], page_size=3)
same(one("SELECT string_agg(note, ' ' ORDER BY id) FROM compat_psycopg2 WHERE id >= 10"), "190 201 212 223 234 245 256 267 278 289")
cur.execute("SELECT raftable('batch', '19')")
ok("batch")

cur.copy_expert("COPY compat_psycopg2 FROM STDIN", io.StringIO("".join("%d\traftable('k')\n" % i for i in range(100, 200))))
out = io.StringIO()
cur.copy_expert("COPY (SELECT note FROM compat_psycopg2 WHERE id >= 100) TO STDOUT", out)
same(out.getvalue(), "raftable('k')\n" * 100)
same(one("SELECT raftable('simple')"), "it's \\o/")
ok("copy")

pid = one("SELECT pg_backend_pid()")


def cancel():
    other = psycopg2.connect("")
    other.autocommit = True
    look = other.cursor()

    def sleeping():
        look.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'", (pid,))
        return look.fetchone()[0] == 1

    until("pg_sleep runs", sleeping)
    conn.cancel()
    other.close()


thread = threading.Thread(target=cancel)
thread.start()
fails("57014", "SELECT pg_sleep(600)")
thread.join()
same(one("SELECT raftable('simple')"), "it's \\o/")
ok("cancel")

cur.execute("LISTEN compat_psycopg2")
cur.execute("NOTIFY compat_psycopg2, 'сам'")
conn.poll()
same([(n.channel, n.payload) for n in conn.notifies], [("compat_psycopg2", "сам")])
conn.notifies.clear()
other = psycopg2.connect("")
other.autocommit = True
other.cursor().execute("NOTIFY compat_psycopg2, 'other'")
other.close()


def arrived():
    conn.poll()
    return [n.payload for n in conn.notifies] == ["other"]


until("a notification without a query", arrived)
ok("notify")
conn.close()
