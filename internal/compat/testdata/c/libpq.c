/* The checks for libpq itself: every way to send a statement, pipelines, cancel, COPY. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <arpa/inet.h>
#include <sys/select.h>

#define UNICODE_KEY "ключ 🔑 'é' \\x \"q\""
#define UNICODE_VALUE "значение 🗝\t'ü' \\ \"x\"\nend $1 ? :a %s"

static PGconn *db;

#define fail(...) (fprintf(stderr, "line %d: ", __LINE__), fprintf(stderr, __VA_ARGS__), \
	fprintf(stderr, "\n%s", PQerrorMessage(db)), exit(1))
#define same(got, want) check_same(__LINE__, got, want)
#define ok(name) (puts("ok " name), fflush(stdout))

static void check_same(int line, const char *got, const char *want)
{
	if (strcmp(got ? got : "NULL", want ? want : "NULL") == 0)
		return;
	fprintf(stderr, "line %d: got %s, want %s\n%s", line, got ? got : "NULL", want ? want : "NULL", PQerrorMessage(db));
	exit(1);
}

/* value takes what a result says: a field, "NULL", an SQLSTATE, or the name of a state. It frees the result. */
static const char *value(PGresult *r)
{
	static char text[4096];
	const char *v;
	switch (PQresultStatus(r)) {
	case PGRES_TUPLES_OK:
	case PGRES_SINGLE_TUPLE:
		v = PQntuples(r) == 0 ? "no rows" : PQgetisnull(r, 0, 0) ? "NULL" : PQgetvalue(r, 0, 0);
		break;
	case PGRES_COMMAND_OK:
		v = PQcmdStatus(r);
		break;
	case PGRES_FATAL_ERROR:
		v = PQresultErrorField(r, PG_DIAG_SQLSTATE);
		v = v ? v : PQresultErrorMessage(r);
		break;
	default:
		v = PQresStatus(PQresultStatus(r));
	}
	snprintf(text, sizeof text, "%s", v);
	PQclear(r);
	return text;
}

static const char *simple(const char *sql) { return value(PQexec(db, sql)); }

static const char *with2(const char *sql, const char *a, const char *b)
{
	const char *args[] = {a, b};
	return value(PQexecParams(db, sql, strchr(sql, ',') ? 2 : 1, NULL, args, NULL, NULL, 0));
}

static void values(void)
{
	char key[300] = "", number[32], text[32], again[40];
	int i;

	same(simple("SELECT raftable('simple', 'it''s \\o/')"), "");
	same(simple("SELECT raftable('simple') AS a"), "it's \\o/");
	PGresult *r = PQexec(db, "SELECT raftable('simple') AS a, raftable('missing') AS b");
	same(PQfname(r, 1), "b");
	if (PQftype(r, 0) != 25 || PQfmod(r, 0) != -1 || PQfsize(r, 0) != -1 || PQftable(r, 0) != 0 || !PQgetisnull(r, 0, 1))
		fail("wrong description");
	same(value(r), "it's \\o/");
	ok("simple");

	same(value(PQprepare(db, "set", "SELECT raftable($1, $2)", 0, NULL)), "");
	PQclear(PQprepare(db, "get", "SELECT raftable($1)", 0, NULL));
	PQclear(PQprepare(db, "plain", "SELECT $1::text || 'x'", 0, NULL));
	for (i = 0; i < 50; i++) {
		const char *args[] = {number, text};
		snprintf(number, sizeof number, "n%02d", i);
		snprintf(text, sizeof text, "value %02d", i);
		snprintf(again, sizeof again, "%sx", text);
		same(value(PQexecPrepared(db, "set", 2, args, NULL, NULL, 0)), "");
		same(value(PQexecPrepared(db, "get", 1, args, NULL, NULL, 0)), text);
		same(value(PQexecPrepared(db, "plain", 1, args + 1, NULL, NULL, 0)), again);
	}
	r = PQdescribePrepared(db, "set");
	if (PQnparams(r) != 2 || PQparamtype(r, 0) != 1043 || PQparamtype(r, 1) != 25 || PQnfields(r) != 1 || PQftype(r, 0) != 2278)
		fail("wrong description of a statement");
	PQclear(r);
	same(simple("DEALLOCATE get"), "DEALLOCATE");
	same(value(PQexecPrepared(db, "get", 0, NULL, NULL, NULL, 0)), "26000");
	same(value(PQprepare(db, "set", "SELECT raftable($1)", 0, NULL)), "42P05");
	same(value(PQprepare(db, "plain", "SELECT raftable($1)", 0, NULL)), "42P05");
	ok("parameters");

	same(simple("SELECT raftable('missing')"), NULL);
	same(with2("SELECT raftable($1, $2)", "gone", "here"), "");
	same(with2("SELECT raftable($1)", "gone", NULL), "here");
	same(with2("SELECT raftable($1, $2)", "gone", NULL), "");
	same(with2("SELECT raftable($1)", "gone", NULL), NULL);
	same(with2("SELECT raftable($1)", NULL, NULL), NULL);
	ok("null");

	same(with2("SELECT raftable($1, $2)", "empty", ""), "");
	same(with2("SELECT raftable($1)", "empty", NULL), "");
	ok("empty");

	for (i = 0; i < 64; i++)
		strcat(key, "🔑");
	same(with2("SELECT raftable($1, $2)", UNICODE_KEY, UNICODE_VALUE), "");
	same(with2("SELECT raftable($1)", UNICODE_KEY, NULL), UNICODE_VALUE);
	same(with2("SELECT raftable($1, $2)", key, "64"), "");
	ok("unicode");
}

static void binary(void)
{
	unsigned timeout = htonl(20000);
	const Oid types[] = {1043, 25, 23};
	const char *args[] = {"binary", "bïnär", (char *) &timeout};
	const int lengths[] = {6, 7, 4}, formats[] = {1, 1, 1};

	same(value(PQexecParams(db, "SELECT raftable($1, $2, $3)", 3, types, args, lengths, formats, 1)), "");
	PGresult *r = PQexecParams(db, "SELECT raftable($1)", 1, types + 1, args, lengths, formats, 1);
	if (PQfformat(r, 0) != 1)
		fail("not in binary");
	same(value(r), "bïnär");
	ok("binary");
}

static void transaction_and_errors(void)
{
	char key[66];
	memset(key, 'x', 65);
	key[65] = 0;

	same(simple("CREATE TABLE compat_libpq (id int PRIMARY KEY, note text)"), "CREATE TABLE");
	same(simple("BEGIN"), "BEGIN");
	same(simple("INSERT INTO compat_libpq VALUES (1, 'gone')"), "INSERT 0 1");
	same(simple("SELECT raftable('kept', 'rollback or not')"), "");
	if (PQtransactionStatus(db) != PQTRANS_INTRANS)
		fail("not in a transaction");
	same(simple("ROLLBACK"), "ROLLBACK");
	same(simple("SELECT count(*) FROM compat_libpq"), "0");
	same(simple("SELECT raftable('kept')"), "rollback or not");
	ok("transaction");

	same(with2("SELECT raftable($1, $2)", key, "v"), "22001");
	same(simple("SELECT raftable('kept')"), "rollback or not");
	same(simple("SELECT raftable(1)"), "42883");
	same(simple("SELECT 1"), "1");
	same(simple("BEGIN"), "BEGIN");
	same(with2("SELECT raftable($1, $2)", key, "v"), "22001");
	if (PQtransactionStatus(db) != PQTRANS_INERROR)
		fail("the transaction did not fail");
	same(simple("SELECT 1"), "25P02");
	same(simple("SELECT raftable('kept')"), "25P02");
	same(simple("COMMIT"), "ROLLBACK");
	ok("error");
}

static void list(void)
{
	PGresult *r = PQexec(db, "SELECT key, value FROM raftable()");
	int n, rows = PQntuples(r);
	if (rows != 56 || PQftype(r, 0) != 1043 || PQfmod(r, 0) != -1 || PQftype(r, 1) != 25)
		fail("%d rows", rows);
	ok("list");

	if (!PQsendQueryParams(db, "SELECT * FROM raftable()", 0, NULL, NULL, NULL, NULL, 0) || !PQsetSingleRowMode(db))
		fail("send");
	for (n = 0; n < rows; n++) {
		PGresult *row = PQgetResult(db);
		if (PQresultStatus(row) != PGRES_SINGLE_TUPLE)
			fail("row %d", n);
		same(PQgetvalue(row, 0, 0), PQgetvalue(r, n, 0));
		PQclear(row);
	}
	same(value(PQgetResult(db)), "no rows");
	if (PQgetResult(db))
		fail("more results");
	PQclear(r);
	ok("single row");
	same(simple("SELECT 1"), "1"); /* libpq 15 would carry the mode into a pipeline otherwise */
}

static void elsewhere(void)
{
	const char *const sets = "SELECT raftable(k, upper($1)), k FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k";
	const char *args[] = {"n01", "simple", "it's \\o/"};
	char key[8], text[16];
	int i, format;
	PGresult *r;

	same(simple("SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), "2");
	same(simple("SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), "value 03");
	same(value(PQprepare(db, "calls", "SELECT raftable($1) AS v, i FROM generate_series(1, 2) AS i WHERE raftable($2) = $3", 0, NULL)), "");
	r = PQdescribePrepared(db, "calls");
	if (PQnparams(r) != 3 || PQparamtype(r, 0) != 1043 || PQparamtype(r, 2) != 25 || PQnfields(r) != 2 || PQftype(r, 0) != 25 || PQftype(r, 1) != 23)
		fail("wrong description of a statement");
	PQclear(r);
	args[0] = key;
	for (i = 0; i < 20; i++) {
		snprintf(key, sizeof key, "n%02d", i);
		snprintf(text, sizeof text, "value %02d", i);
		r = PQexecPrepared(db, "calls", 3, args, NULL, NULL, i % 2);
		if (PQntuples(r) != 2 || PQfformat(r, 0) != i % 2)
			fail("%d rows", PQntuples(r));
		same(PQgetvalue(r, 1, 0), text);
		same(value(r), text);
	}
	for (format = 0; format < 2; format++) {
		r = PQexecParams(db, sets, 1, NULL, (const char *const[]){"set"}, NULL, NULL, format);
		if (PQntuples(r) != 2 || PQftype(r, 0) != 2278 || PQgetisnull(r, 1, 0) || PQgetlength(r, 1, 0) != 0)
			fail("wrong result of sets");
		same(PQgetvalue(r, 1, 1), "row 2");
		PQclear(r);
	}
	same(simple("SELECT 1; SELECT raftable('row 1') || raftable('row 2')"), "SETSET");
	same(simple("SELECT 1 WHERE raftable('row 1', 'x') IS NULL"), "0A000");
	same(simple("SELECT count(*) FROM raftable() WHERE key = 'row 1' AND value = nothing"), "42703");
	same(simple("DEALLOCATE calls"), "DEALLOCATE");
	ok("elsewhere");
}

static void send2(const char *sql, const char *a, const char *b)
{
	const char *args[] = {a, b};
	if (!PQsendQueryParams(db, sql, (a != NULL) + (b != NULL), NULL, args, NULL, NULL, 0))
		fail("send %s", sql);
}

static void answers(const char *const *want)
{
	for (; *want; want++) {
		PGresult *r = PQgetResult(db);
		if (!r)
			fail("no result, want %s", *want);
		same(value(r), *want);
		if (strcmp(*want, "PGRES_PIPELINE_SYNC") && PQgetResult(db))
			fail("two results for one statement");
	}
}

static void pipeline(void)
{
	int round;
	if (!PQenterPipelineMode(db))
		fail("no pipeline mode");
	for (round = 0; round < 20; round++) {
		char number[12], joined[20];
		snprintf(number, sizeof number, "%d", round);
		send2("SELECT raftable($1, $2)", "batch", number);
		send2("SELECT $1::int + 1", "41", NULL);
		send2("SELECT raftable($1)", "batch", NULL);
		send2("SELECT upper(raftable($1)) || $2::text", "row 1", number);
		send2("SELECT raftable($1, id::text) FROM compat_libpq", "never", NULL);
		PQsendFlushRequest(db);
		snprintf(joined, sizeof joined, "SET%d", round);
		answers((const char *const[]){"", "42", number, joined, "no rows", NULL});
		send2("INSERT INTO compat_libpq VALUES ($1, $2)", number, "gone");
		send2("SELECT raftable($1)", "missing", NULL);
		send2("SELECT 1/$1::int", "0", NULL);
		send2("SELECT raftable($1, $2)", "batch", "never");
		send2("SELECT 1", NULL, NULL);
		PQpipelineSync(db);
		send2("SELECT raftable($1::int)", "1", NULL);
		send2("INSERT INTO compat_libpq VALUES ($1, 'gone')", "7", NULL);
		PQpipelineSync(db);
		send2("SELECT count(*) FROM compat_libpq", NULL, NULL);
		send2("SELECT raftable($1)", "batch", NULL);
		PQpipelineSync(db);
		answers((const char *const[]){"INSERT 0 1", "NULL", "22012", "PGRES_PIPELINE_ABORTED", "PGRES_PIPELINE_ABORTED",
			"PGRES_PIPELINE_SYNC", "42883", "PGRES_PIPELINE_ABORTED", "PGRES_PIPELINE_SYNC", "0", number, "PGRES_PIPELINE_SYNC", NULL});
	}
	if (!PQexitPipelineMode(db))
		fail("pipeline mode does not end");
	same(simple("SELECT raftable('batch')"), "19");
	ok("pipeline");
}

static void copy(void)
{
	char line[64], *row;
	int i;
	same(simple("COPY compat_libpq FROM STDIN"), "PGRES_COPY_IN");
	for (i = 100; i < 200; i++) {
		snprintf(line, sizeof line, "%d\traftable('k')\n", i);
		PQputCopyData(db, line, (int) strlen(line));
	}
	PQputCopyEnd(db, NULL);
	same(value(PQgetResult(db)), "COPY 100");
	if (PQgetResult(db))
		fail("more results");
	same(simple("COPY (SELECT note FROM compat_libpq) TO STDOUT"), "PGRES_COPY_OUT");
	for (i = 0; PQgetCopyData(db, &row, 0) > 0; i++) {
		same(row, "raftable('k')\n");
		PQfreemem(row);
	}
	if (i != 100)
		fail("%d rows", i);
	same(value(PQgetResult(db)), "COPY 100");
	if (PQgetResult(db))
		fail("more results");
	same(simple("COPY compat_libpq FROM STDIN"), "PGRES_COPY_IN");
	PQputCopyData(db, "300\thalf\n", 9);
	PQputCopyEnd(db, "given up");
	same(value(PQgetResult(db)), "57014");
	if (PQgetResult(db))
		fail("more results");
	same(simple("SELECT raftable('kept')"), "rollback or not");
	ok("copy");
}

static void cancel(PGconn *other)
{
	char error[256], look[160];
	time_t deadline = time(NULL) + 30;
	int runs = 0;
	PGcancel *c = PQgetCancel(db);

	snprintf(look, sizeof look, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = %s", simple("SELECT pg_backend_pid()"));
	if (!PQsendQuery(db, "SELECT pg_sleep(600)"))
		fail("send");
	while (!runs && time(NULL) < deadline) {
		PGresult *r = PQexec(other, look);
		runs = PQntuples(r);
		PQclear(r);
	}
	if (!PQcancel(c, error, sizeof error))
		fail("cancel: %s", error);
	same(value(PQgetResult(db)), "57014");
	if (PQgetResult(db))
		fail("more results");
	/* Of nothing: whatever comes next is not hit. */
	if (!PQcancel(c, error, sizeof error))
		fail("cancel: %s", error);
	same(simple("SELECT raftable('kept')"), "rollback or not");
	same(value(PQexec(other, "SELECT 1")), "1");
	PQfreeCancel(c);
	ok("cancel");
}

static void notices(void *seen, const PGresult *r)
{
	*(int *) seen += strcmp(PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY), "hello") == 0;
}

static void notify(PGconn *other)
{
	int seen = 0;
	PGnotify *n;
	PQsetNoticeReceiver(db, notices, &seen);
	same(simple("DO $$BEGIN RAISE NOTICE 'hello'; END$$"), "DO");
	if (seen != 1)
		fail("no notice");
	same(simple("LISTEN compat_libpq"), "LISTEN");
	same(value(PQexec(other, "NOTIFY compat_libpq, 'другой'")), "NOTIFY");
	while (!(n = PQnotifies(db))) {
		struct timeval limit = {30, 0};
		fd_set set;
		FD_ZERO(&set);
		FD_SET(PQsocket(db), &set);
		if (select(PQsocket(db) + 1, &set, NULL, NULL, &limit) != 1 || !PQconsumeInput(db))
			fail("no notification");
	}
	same(n->extra, "другой");
	PQfreemem(n);
	ok("notify");
}

int main(void)
{
	PGconn *other = PQconnectdb("");
	db = PQconnectdb("");
	if (PQstatus(db) != CONNECTION_OK || PQstatus(other) != CONNECTION_OK)
		fail("no connection");
	printf("version libpq %d\n", PQlibVersion());
	same(simple("SELECT current_user"), "postgres");
	ok("connect");
	values();
	binary();
	transaction_and_errors();
	list();
	elsewhere();
	pipeline();
	copy();
	cancel(other);
	notify(other);
	PQfinish(other);
	PQfinish(db);
	return 0;
}
