"""What the Python programs share. Each prints "ok NAME" for a check that held, and ends with an error otherwise."""
import time

UNICODE_KEY = "ключ 🔑 'é' \\x \"q\""
UNICODE_VALUE = "значение 🗝\t'ü' \\ \"x\"\nend $1 ? :a %s"
LONGEST_KEY = "🔑" * 64
NUMBERED = [("n%02d" % i, "value %02d" % i) for i in range(50)]


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
