-- Calls between ordinary statements, in a transaction and outside of it. Each client has a key of its own. The quotes are
-- for the simple protocol, where pgbench writes variables into the text; in the others they are a part of the key.
\set id random(1, 100000)
SELECT quote_literal('client ' || :client_id) AS key, quote_literal((1000000 * random())::int) AS mark \gset
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :id;
SELECT raftable(:key, :mark);
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :id, 0, now());
SELECT raftable(:key) AS got \gset
END;
-- Fail with 22012 when the value is not the one that was set.
SELECT 1 / count(*) FROM pgbench_accounts WHERE aid = :id AND raftable(:key) = :mark;
SELECT 1 / (trim(:got::text, '''') = trim(:mark, ''''))::int;
SELECT raftable(:key, 'done');
