-- The oracle: the functions over an ordinary table. The errors are those that docs/sql.md has for the table. Operators have
-- their schema, since cases put others of their names in front.
CREATE TABLE harness.rows (key varchar(64) COLLATE "C" PRIMARY KEY, value text NOT NULL);
GRANT USAGE ON SCHEMA harness TO PUBLIC;
GRANT ALL ON harness.rows TO PUBLIC;
CREATE FUNCTION public.raftable(key varchar(64)) RETURNS text LANGUAGE sql VOLATILE
	AS 'SELECT r.value FROM harness.rows r WHERE r.key OPERATOR(pg_catalog.=) $1';
CREATE FUNCTION public.raftable() RETURNS TABLE (key varchar(64), value text) LANGUAGE sql VOLATILE
	AS 'SELECT r.key, r.value FROM harness.rows r ORDER BY r.key';
CREATE FUNCTION public.raftable(key varchar(64), value text, timeout_ms int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF $1 IS NULL THEN
		RAISE EXCEPTION 'raftable: the key must not be NULL' USING ERRCODE = '22004', DETAIL = 'Nothing was set.';
	END IF;
	IF $3 OPERATOR(pg_catalog.<=) 0 THEN
		RAISE EXCEPTION 'raftable: the timeout must be positive' USING ERRCODE = '22023',
			DETAIL = 'Nothing was set.', HINT = 'Give the timeout in milliseconds.';
	END IF;
	IF $2 IS NULL THEN
		DELETE FROM harness.rows r WHERE r.key OPERATOR(pg_catalog.=) $1;
	ELSE
		INSERT INTO harness.rows AS r VALUES ($1, $2) ON CONFLICT ON CONSTRAINT rows_pkey DO UPDATE SET value = excluded.value;
	END IF;
END $$;
CREATE FUNCTION public.raftable(key varchar(64), value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM public.raftable($1, $2, NULL::int); END $$;
