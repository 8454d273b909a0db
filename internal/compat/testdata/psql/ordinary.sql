-- Statements without a call: psql must say the same with and without the proxy.
\set VERBOSITY verbose
\set SHOW_CONTEXT always
\encoding
SELECT current_user, current_database();
CREATE SCHEMA psql_script;
SET search_path = psql_script;
CREATE TABLE thing (id int PRIMARY KEY, note text, made timestamptz DEFAULT '2020-01-01', CHECK (id > 0));
CREATE VIEW some AS SELECT id FROM thing WHERE note IS NOT NULL;
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'twice %', i; RETURN 2 * i; END$$;
\d
\d+ thing
\d some
\df
\dn psql_script
\dt+ nothing
\sf twice
\copy thing (id, note) FROM stdin
1	one
2	\N
3	tab\there, кириллица, \\.
\.
\copy thing (id, note) FROM stdin WITH (FORMAT csv)
4,"comma, and ""quotes"""
-1,"against the check"
\.
COPY thing (id, note) FROM stdin;
5	five
\.
\copy (SELECT id, note FROM thing ORDER BY id) TO stdout
COPY (SELECT id FROM thing ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER);
SELECT twice(id) FROM thing ORDER BY id;
BEGIN;
INSERT INTO thing VALUES (6, 'six');
SAVEPOINT s;
INSERT INTO thing VALUES (6, 'again');
ROLLBACK TO s;
SELECT count(*) FROM thing;
COMMIT;
BEGIN;
SELECT 1/0;
SELECT 'not executed';
END;
SELECT 1; SELECT 2; SELECT 3/0; SELECT 4;
SELECT 'one' \; SELECT 'two' \; SELECT 'three';
SELECT 'id ' || id AS "head" FROM thing ORDER BY id LIMIT 2 \gx
SELECT count(*) AS things FROM thing \gset
\echo there are :things
SELECT format('SELECT %L AS made', id) FROM thing ORDER BY id LIMIT 2 \gexec
SELECT id, note FROM thing \gdesc
SELECT id, id % 2 AS odd, 1 AS v FROM thing ORDER BY 1 \crosstabview
\set FETCH_COUNT 7
SELECT i, repeat('x', i) FROM generate_series(1, 20) i;
\unset FETCH_COUNT
\set AUTOCOMMIT off
INSERT INTO thing VALUES (7, 'gone');
ROLLBACK;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1/0;
SELECT 'goes on';
COMMIT;
\unset ON_ERROR_ROLLBACK
PREPARE p(int) AS SELECT note FROM thing WHERE id = $1;
EXECUTE p(1);
DEALLOCATE p;
EXECUTE p(1);
DECLARE c CURSOR WITH HOLD FOR SELECT id FROM thing ORDER BY id;
FETCH 2 FROM c;
FETCH ALL FROM c;
CLOSE c;
LISTEN psql_script;
NOTIFY psql_script, 'hello';
SELECT pg_notify('psql_script', 'again');
UNLISTEN *;
SET client_encoding = 'LATIN1';
SELECT 'caf' || chr(233) = 'x';
\encoding
RESET client_encoding;
SET DateStyle = 'German';
SELECT made FROM thing ORDER BY id LIMIT 1;
EXPLAIN (COSTS OFF) SELECT * FROM some;
SELECT lo_from_bytea(4711, 'large');
\lo_list
\lo_unlink 4711
nonsense;
SELECT 'raftable(''k'')', $$raftable('k')$$ AS "raftable" /* raftable('k') */; -- raftable('k')
SELECT other.raftable('k');
\! echo a command
\warn to standard error
SELECT bogus FROM thing;
\errverbose
\set VERBOSITY terse
SELECT repeat('wide ', 20000) = '' AS big, length(repeat('wide ', 200000));
SELECT pg_backend_pid() > 0;
DROP SCHEMA psql_script CASCADE;
SELECT $$-- the end$$;
