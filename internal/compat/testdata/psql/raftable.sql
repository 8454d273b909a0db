-- Calls from psql; raftable.want has what it says.
\set VERBOSITY verbose
SELECT raftable('k', 'v');
SELECT raftable('k');
SELECT raftable('k') AS v, raftable('missing') AS nothing \gdesc
\pset null (null)
SELECT raftable('k') AS v, raftable('missing') AS nothing;
SELECT raftable(key => 'named', value => 'ключ 🔑', timeout_ms => 30000);
SELECT * FROM raftable();
SELECT key AS "the key" FROM raftable() AS r \gx
SELECT raftable('k') AS got \gset
\echo it is :got
BEGIN;
SELECT raftable('k', 'set in a transaction');
CREATE TABLE psql_raftable (id int);
ROLLBACK;
SELECT raftable('k');
SELECT 'psql_raftable'::regclass;
BEGIN;
SELECT raftable('kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk', 'v');
SELECT raftable('k');
SELECT 1;
COMMIT;
SELECT raftable(1);
SELECT raftable(NULL, 'v');
SELECT raftable('k', 'w', 0);
SELECT raftable('named', NULL);
SELECT raftable('named');
SELECT raftable('a') \; SELECT raftable('k');
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT raftable(1);
SELECT raftable('k');
COMMIT;
\unset ON_ERROR_ROLLBACK
\set AUTOCOMMIT off
SELECT raftable('k');
\echo :SQLSTATE :ROW_COUNT
ROLLBACK;
\set AUTOCOMMIT on
-- In statements that PostgreSQL runs.
SELECT raftable('n/1', 'one'), raftable('n/2', 'two');
SELECT * FROM raftable() WHERE key LIKE 'n/%' ORDER BY key DESC;
SELECT i, raftable('n/' || i) FROM generate_series(1, 3) i WHERE raftable('n/1') = 'one';
SELECT i, raftable('n/' || i) AS "v/i" FROM generate_series(1, 3) i WHERE raftable('n/1') = 'one' \gdesc
SELECT raftable('n/' || i, chr(64 + i)), i FROM generate_series(1, 3) i;
CREATE TABLE psql_raftable AS SELECT key, value FROM raftable() WHERE key LIKE 'n/%';
INSERT INTO psql_raftable VALUES ('n/4', raftable('n/3') || '+') RETURNING raftable(key, value), key;
\copy (SELECT * FROM raftable() WHERE key LIKE 'n/%') to stdout
UPDATE psql_raftable SET value = raftable(key) || '!' WHERE raftable('n/1') = 'A' \; SELECT raftable('n/2', 'of a batch') \; SELECT key, value, raftable(key) FROM psql_raftable ORDER BY key \; SELECT 1/0;
SELECT string_agg(value, ' ' ORDER BY key), raftable('n/2') FROM psql_raftable;
EXPLAIN (COSTS OFF) SELECT raftable('n/1', value) FROM psql_raftable;
PREPARE p AS SELECT value || raftable($1) FROM psql_raftable WHERE key = $1;
EXECUTE p('n/3');
SELECT raftable('n/3', 'changed');
EXECUTE p('n/3');
EXECUTE p;
DEALLOCATE p;
EXECUTE p('n/3');
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT key, raftable(key) FROM psql_raftable ORDER BY key;
FETCH LAST FROM c;
FETCH FIRST FROM c;
CLOSE c;
SELECT nothing, raftable('n/1') FROM psql_raftable;
SELECT raftable('n/1') FROM psql_raftable;
ROLLBACK;
SELECT 'ключ', raftable('n/1'), nothing FROM psql_raftable;
SELECT raftable(1), 2;
SELECT 1 WHERE raftable('n/1', 'x') IS NULL;
SELECT raftable(key, repeat('x', 65)), raftable(repeat(key, ascii(right(key, 1)) - 40)) FROM psql_raftable ORDER BY key;
SELECT raftable(repeat(key, ascii(right(key, 1)) * 10 - 480), 'long') FROM psql_raftable ORDER BY key;
\set FETCH_COUNT 2
SELECT key, raftable(key) FROM psql_raftable WHERE key < 'n/3' ORDER BY key;
SELECT key, value FROM raftable() WHERE key < 'n/3' AND key > 'n' ORDER BY key;
\unset FETCH_COUNT
-- Settings and the extension.
SHOW raftable.consistency;
SET raftable.consistency = 'linearizable';
SELECT raftable('k'), 1;
BEGIN;
SET LOCAL raftable.timeout = '12s';
SHOW raftable.timeout;
ROLLBACK;
SHOW raftable.timeout;
SET raftable.timeout = 'soon';
SET raftable.consistency = 'strong';
RESET ALL;
SHOW raftable.consistency;
CREATE EXTENSION IF NOT EXISTS raftable;
DROP EXTENSION raftable;
SET client_encoding = 'LATIN1';
SELECT raftable('n/5', U&'\00e9'), raftable('n/6', U&'\20ac');
SELECT convert_to(raftable('n/5'), 'UTF8');
SELECT 1, raftable('n/6');
RESET client_encoding;
SET standard_conforming_strings = off;
SELECT raftable('n/7', 'it\'s'), raftable('n/7');
SET standard_conforming_strings = on;
DROP TABLE psql_raftable;
