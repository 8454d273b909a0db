-- Calls and ordinary statements in one pipeline.
\set id random(1, 100000)
\startpipeline
SELECT raftable('pipeline', 'under way');
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :id;
SELECT raftable('pipeline');
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :id, 0, now());
SELECT raftable('pipeline', 'done');
SELECT raftable('missing'), raftable('pipeline');
SELECT abalance, raftable('pipeline') FROM pgbench_accounts WHERE aid = :id AND raftable('missing') IS NULL;
\endpipeline
SELECT raftable('pipeline');
