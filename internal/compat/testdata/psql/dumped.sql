-- A database with something of everything that dumps treat on their own.
CREATE TABLE things (id int PRIMARY KEY, note text NOT NULL DEFAULT 'raftable(''k'')');
INSERT INTO things SELECT i, 'thing ' || i || E'\t\\ é 🔑 SELECT raftable(''k'')' FROM generate_series(1, 20000) i;
CREATE TABLE others (thing int REFERENCES things, data bytea);
INSERT INTO others SELECT i, decode(repeat('00ff', i), 'hex') FROM generate_series(1, 500) i;
CREATE INDEX ON others (thing);
CREATE VIEW both_of_them AS SELECT * FROM things JOIN others ON thing = id;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM things;
CREATE FUNCTION raftable_size() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM things';
COMMENT ON FUNCTION raftable_size() IS 'not raftable() itself';
SELECT lo_from_bytea(0, decode(repeat('ab', 100000), 'hex')) > 0;
