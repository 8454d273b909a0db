"""What the Python programs share. Each prints "ok NAME" for a check that held, and ends with an error otherwise."""
import time

UNICODE_KEY = "ключ 🔑 'é' \\x \"q\""
UNICODE_VALUE = "значение 🗝\t'ü' \\ \"x\"\nend $1 ? :a %s"
LONGEST_KEY = "🔑" * 64
NUMBERED = [("n%02d" % i, "value %02d" % i) for i in range(50)]


# Calls in statements that PostgreSQL runs: a get per row, a condition, a join with the list, and a set per row.
COUNTED = "SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"
JOINED = "SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"
SEVERAL = "SELECT i + 1 AS n, raftable({0}) AS v FROM generate_series(1, 2) AS i WHERE raftable({0}) = {0}"
HARVESTED = "SELECT k, raftable(k, upper({0})) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k"
REFUSED = "SELECT 1 WHERE raftable('row 1', 'x') IS NULL"


def ok(name):
    print("ok", name, flush=True)


def same(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


def until(what, condition):
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not in time: " + what)
        time.sleep(0.005)  # the pace of polling
