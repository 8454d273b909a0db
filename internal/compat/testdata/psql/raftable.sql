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
