-- What both databases have, for the tests to return to the state that the setup of a file made.
CREATE SCHEMA harness;
CREATE TABLE harness.kept (kind text, id oid);
CREATE TABLE harness.sequences (id oid, last bigint, called bool);

CREATE FUNCTION harness.objects() RETURNS TABLE (kind text, id oid, name text) LANGUAGE sql STABLE AS $$
	WITH own AS (SELECT n.oid, n.nspname FROM pg_namespace n WHERE nspname NOT LIKE 'pg\_%'
		AND nspname NOT IN ('harness', 'information_schema'))
	SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
		c.oid, format('%I.%I', o.nspname, c.relname)
	FROM pg_class c JOIN own o ON o.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'm', 'S', 'p')
	UNION ALL SELECT 'ROUTINE', p.oid, p.oid::regprocedure::text FROM pg_proc p JOIN own o ON o.oid = p.pronamespace
	UNION ALL SELECT 'TYPE', t.oid, format('%I.%I', o.nspname, t.typname) FROM pg_type t JOIN own o ON o.oid = t.typnamespace
	WHERE t.typtype IN ('d', 'e') OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')
	UNION ALL SELECT 'SCHEMA', oid, quote_ident(nspname) FROM own
$$;

-- keep notes what there is and what the tables hold.
CREATE FUNCTION harness.keep() RETURNS void LANGUAGE plpgsql AS $$
DECLARE o record;
BEGIN
	INSERT INTO harness.kept SELECT kind, id FROM harness.objects();
	FOR o IN SELECT * FROM harness.objects() WHERE kind = 'TABLE' LOOP
		EXECUTE format('CREATE TABLE harness.%I AS TABLE %s', 'copy_' || o.id, o.name);
	END LOOP;
	FOR o IN SELECT * FROM harness.objects() WHERE kind = 'SEQUENCE' LOOP
		EXECUTE format('INSERT INTO harness.sequences SELECT %s, last_value, is_called FROM %s', o.id, o.name);
	END LOOP;
END $$;

-- restore drops what has come since, and fills the tables again.
CREATE FUNCTION harness.restore() RETURNS void LANGUAGE plpgsql SET session_replication_role = replica SET client_min_messages = error AS $$
DECLARE o record; columns text;
BEGIN
	FOR o IN SELECT * FROM harness.objects() x WHERE NOT EXISTS (SELECT FROM harness.kept k WHERE k.kind = x.kind AND k.id = x.id) LOOP
		EXECUTE format('DROP %s IF EXISTS %s CASCADE', o.kind, o.name);
	END LOOP;
	SELECT string_agg(name, ', ') INTO columns FROM harness.objects() WHERE kind = 'TABLE';
	IF columns IS NOT NULL THEN
		EXECUTE 'TRUNCATE ' || columns;
	END IF;
	FOR o IN SELECT * FROM harness.objects() WHERE kind = 'TABLE' LOOP
		SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
		WHERE attrelid = o.id AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
		EXECUTE format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM harness.%I', o.name, columns, 'copy_' || o.id);
	END LOOP;
	PERFORM setval(id::regclass, last, called) FROM harness.sequences;
END $$;
