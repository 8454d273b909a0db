import os
import threading

import pyodbc
from common import (COUNTED, HARVESTED, JOINED, LONGEST_KEY, NUMBERED, REFUSED, SEVERAL, UNICODE_KEY, UNICODE_VALUE, ok, same,
                    until)

text = "DRIVER={PostgreSQL Unicode};SERVER=%s;PORT=%s;DATABASE=%s;UID=%s;PWD={%s};UseServerSidePrepare=1" % tuple(
    os.environ[n] for n in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"))
conn = pyodbc.connect(text, autocommit=True)
cur = conn.cursor()


def one(sql, *args):
    return cur.execute(sql, *args).fetchone()[0]


def fails(code, sql, *args):
    try:
        cur.execute(sql, *args)
    except pyodbc.Error as e:
        same(e.args[0], code)
    else:
        raise AssertionError("no error: " + sql)


print("version psqlodbc", conn.getinfo(pyodbc.SQL_DRIVER_VER), "pyodbc", pyodbc.version)
same(one("SELECT current_user"), "postgres")
ok("connect")

cur.execute("SELECT raftable('simple', 'it''s \\o/')")
row = cur.execute("SELECT raftable('simple') AS a, raftable('missing') AS b").fetchone()
same([d[0] for d in cur.description], ["a", "b"])
same(tuple(row), ("it's \\o/", None))
ok("simple")

for key, value in NUMBERED:
    cur.execute("SELECT raftable(?, ?)", key, value)
    same(one("SELECT raftable(?)", key), value)
    same(one("SELECT ?::text || 'x'", value), value + "x")
ok("parameters")

same(one("SELECT raftable('missing')"), None)
cur.execute("SELECT raftable(?, ?)", "gone", "here")
same(one("SELECT raftable(?)", "gone"), "here")
cur.execute("SELECT raftable(?, ?)", "gone", None)
same(one("SELECT raftable(?)", "gone"), None)
ok("null")

cur.execute("SELECT raftable(?, ?)", "empty", "")
same(one("SELECT raftable(?)", "empty"), "")
ok("empty")

for key, value in ((UNICODE_KEY, UNICODE_VALUE), (LONGEST_KEY, "64")):
    cur.execute("SELECT raftable(?, ?)", key, value)
    same(one("SELECT raftable(?)", key), value)
ok("unicode")

cur.execute("CREATE TABLE compat_odbc (id int PRIMARY KEY, note text)")
conn.autocommit = False
cur.execute("INSERT INTO compat_odbc VALUES (?, ?)", 1, "gone")
cur.execute("SELECT raftable(?, ?)", "kept", "rollback or not")
conn.rollback()
same(one("SELECT count(*) FROM compat_odbc"), 0)
same(one("SELECT raftable(?)", "kept"), "rollback or not")
cur.execute("INSERT INTO compat_odbc VALUES (?, ?)", 2, "stays")
same(one("SELECT raftable(?)", "kept"), "rollback or not")
conn.commit()
conn.autocommit = True
same(one("SELECT string_agg(note, ',') FROM compat_odbc"), "stays")
ok("transaction")

fails("22001", "SELECT raftable(?, ?)", "x" * 65, "v")
same(one("SELECT raftable(?)", "kept"), "rollback or not")
fails("42883", "SELECT raftable(1)")
same(one("SELECT 1"), 1)
ok("error")

rows = [tuple(r) for r in cur.execute("SELECT key, value FROM raftable()").fetchall()]
same(len(rows), 55)
same(rows, sorted(rows, key=lambda r: r[0].encode()))
same(dict(rows)[UNICODE_KEY], UNICODE_VALUE)
ok("list")

same(one(COUNTED), 2)
same(one(JOINED), "value 03")
for key, value in NUMBERED[:10] + [(UNICODE_KEY, UNICODE_VALUE)]:
    got = cur.execute(SEVERAL.format("?"), key, "simple", "it's \\o/").fetchall()
    same([d[0] for d in cur.description], ["n", "v"])
    same([tuple(r) for r in got], [(2, value), (3, value)])
same([r[0] for r in cur.execute(HARVESTED.format("?"), "set").fetchall()], ["row 1", "row 2"])
same(one("SELECT raftable('row 1') || raftable('row 2')"), "SETSET")
fails("0A000", REFUSED)
ok("elsewhere")

# The driver can read by DECLARE and FETCH, in texts of several statements.
for autocommit in (True, False):
    other = pyodbc.connect(text + ";UseDeclareFetch=1;Fetch=7", autocommit=autocommit)
    same(sum(r[0] for r in other.execute("SELECT i FROM generate_series(1, 250) i")), 31375)
    same(sum(r[0] for r in other.execute("SELECT i FROM generate_series(1, 250) i WHERE raftable(?) = 'value 01'", "n01")), 31375)
    same([tuple(r) for r in other.execute("SELECT key, value FROM raftable() WHERE key LIKE 'n%' ORDER BY key")], NUMBERED)
    same(sorted(r[0] for r in other.execute("SELECT key FROM raftable()"))[:2], ["empty", "kept"])
    same(other.execute("SELECT raftable(?)", "simple").fetchone()[0], "it's \\o/")
    other.close()
ok("cursor")

cur.executemany("SELECT raftable(?, ?)", [("batch", str(i)) for i in range(20)])
same(one("SELECT raftable(?)", "batch"), "19")
ok("batch")

pid = one("SELECT pg_backend_pid()")


def cancel():
    other = pyodbc.connect(text, autocommit=True)
    look = "SELECT count(*) FROM pg_stat_activity WHERE pid = ? AND wait_event = 'PgSleep'"
    until("pg_sleep runs", lambda: other.execute(look, pid).fetchone()[0] == 1)
    cur.cancel()
    other.close()


thread = threading.Thread(target=cancel)
thread.start()
fails("57014", "SELECT pg_sleep(600)")
thread.join()
same(one("SELECT raftable(?)", "simple"), "it's \\o/")
ok("cancel")
conn.close()
