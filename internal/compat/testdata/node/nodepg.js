'use strict'
const assert = require('assert').strict
const { Client } = require('pg')
const Cursor = require('pg-cursor')

const unicodeKey = 'ключ 🔑 \'é\' \\x "q"'
const unicodeValue = 'значение 🗝\t\'ü\' \\ "x"\nend $1 ? :a %s'
const ok = (name) => console.log('ok ' + name)
const same = (got, want) => assert.deepEqual(got, want)

async function main () {
  const db = new Client()
  await db.connect()
  const one = async (text, values) => {
    const r = await db.query({ text, values, rowMode: 'array' })
    return r.rows[0][0]
  }
  const fails = async (code, text, values) => {
    await assert.rejects(db.query(text, values), (e) => { same(e.code, code); return true })
  }
  console.log('version node-postgres', require('pg/package.json').version, 'node', process.version)
  same(await one('SELECT current_user'), 'postgres')
  ok('connect')

  same(await one("SELECT raftable('simple', 'it''s \\o/')"), '')
  const r = await db.query("SELECT raftable('simple') AS a, raftable('missing') AS b")
  same(r.fields.map((f) => [f.name, f.dataTypeID]), [['a', 25], ['b', 25]])
  same({ ...r.rows[0] }, { a: "it's \\o/", b: null })
  same([r.command, r.rowCount], ['SELECT', 1])
  ok('simple')

  for (let i = 0; i < 50; i++) {
    const n = String(i).padStart(2, '0')
    await db.query({ name: 'set', text: 'SELECT raftable($1, $2)', values: ['n' + n, 'value ' + n] })
    const got = await db.query({ name: 'get', text: 'SELECT raftable($1) AS v', values: ['n' + n] })
    same(got.rows[0].v, 'value ' + n)
    const plain = await db.query({ name: 'plain', text: 'SELECT $1::int + 1 AS v', values: [i] })
    same(plain.rows[0].v, i + 1)
    same(await one('SELECT raftable($1)', ['n' + n]), 'value ' + n)
  }
  ok('parameters')

  same(await one("SELECT raftable('missing')"), null)
  await db.query('SELECT raftable($1, $2)', ['gone', 'here'])
  same(await one('SELECT raftable($1)', ['gone']), 'here')
  await db.query('SELECT raftable($1, $2)', ['gone', null])
  same(await one('SELECT raftable($1)', ['gone']), null)
  same(await one('SELECT raftable($1)', [null]), null)
  ok('null')

  await db.query('SELECT raftable($1, $2)', ['empty', ''])
  same(await one('SELECT raftable($1)', ['empty']), '')
  ok('empty')

  for (const [key, value] of [[unicodeKey, unicodeValue], ['🔑'.repeat(64), '64']]) {
    await db.query('SELECT raftable($1, $2)', [key, value])
    same(await one('SELECT raftable($1)', [key]), value)
  }
  ok('unicode')

  // Parameters from a Buffer go in binary, and so do results when asked for: from version 8.9 on, the driver's 8.8 cannot.
  await db.query('SELECT raftable($1, $2)', [Buffer.from('binary'), Buffer.from('bïnär')])
  same(await one('SELECT raftable($1)', [Buffer.from('binary')]), 'bïnär')
  if (Number(require('pg/package.json').version.split('.')[1]) > 8) {
    const b = await db.query({ text: 'SELECT raftable($1) AS v, raftable($2) AS w', values: [Buffer.from('binary'), 'simple'], binary: true })
    same(b.fields.map((f) => f.format), ['binary', 'binary'])
    same([b.rows[0].v, b.rows[0].w].map(String), ['bïnär', "it's \\o/"])
  }
  ok('binary')

  await db.query('CREATE TABLE compat_node (id int PRIMARY KEY, note text)')
  await db.query('BEGIN')
  await db.query('INSERT INTO compat_node VALUES ($1, $2)', [1, 'gone'])
  await db.query('SELECT raftable($1, $2)', ['kept', 'rollback or not'])
  await db.query('ROLLBACK')
  same(await one('SELECT count(*)::int FROM compat_node'), 0)
  same(await one('SELECT raftable($1)', ['kept']), 'rollback or not')
  await db.query('BEGIN')
  await db.query('INSERT INTO compat_node VALUES ($1, $2)', [2, 'stays'])
  same(await one('SELECT raftable($1)', ['kept']), 'rollback or not')
  await db.query('COMMIT')
  same(await one("SELECT string_agg(note, ',') FROM compat_node"), 'stays')
  ok('transaction')

  await fails('22001', 'SELECT raftable($1, $2)', ['x'.repeat(65), 'v'])
  same(await one('SELECT raftable($1)', ['kept']), 'rollback or not')
  await fails('42883', 'SELECT raftable($1::int)', [1])
  await fails('42883', 'SELECT raftable(1)')
  same(await one('SELECT 1'), 1)
  await db.query('BEGIN')
  await fails('22001', 'SELECT raftable($1, $2)', ['x'.repeat(65), 'v'])
  await fails('25P02', 'SELECT 1')
  await fails('25P02', 'SELECT raftable($1)', ['kept'])
  await db.query('ROLLBACK')
  ok('error')

  const rows = (await db.query('SELECT key, value FROM raftable()')).rows
  same(rows.length, 56)
  same(rows.map((r) => r.key), rows.map((r) => r.key).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
  same(rows.find((r) => r.key === unicodeKey).value, unicodeValue)
  ok('list')

  // A portal that is read seven rows at a time.
  for (const [text, values, want] of [
    ['SELECT key FROM raftable()', [], 56], ['SELECT i FROM generate_series(1, $1::int) i', [40], 40],
    ["SELECT i, raftable('n' || i) FROM generate_series(1, $1::int) i WHERE raftable($2) = 'value 01'", [40, 'n01'], 40]
  ]) {
    const cursor = db.query(new Cursor(text, values))
    let count = 0
    for (let part; (part = await cursor.read(7)).length > 0;) count += part.length
    await cursor.close()
    same(count, want)
  }
  const half = db.query(new Cursor('SELECT key FROM raftable()'))
  same((await half.read(3)).length, 3)
  await half.close()
  ok('cursor')

  same(await one("SELECT count(*)::int FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), 2)
  same(await one("SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), 'value 03')
  const some = 'SELECT i + 1 AS n, raftable($1) AS v FROM generate_series(1, 2) AS i WHERE raftable($2) = $3'
  for (let i = 0; i < 10; i++) {
    const v = 'value 0' + i
    for (const query of [{ name: 'some', text: some }, { text: some }]) {
      const r = await db.query({ ...query, values: ['n0' + i, 'simple', "it's \\o/"] })
      same(r.fields.map((f) => [f.name, f.dataTypeID]), [['n', 23], ['v', 25]])
      same(r.rows.map((row) => ({ ...row })), [{ n: 2, v }, { n: 3, v }])
    }
  }
  same((await db.query({ name: 'some', text: some, values: [unicodeKey, 'simple', "it's \\o/"] })).rows[1].v, unicodeValue)
  if (Number(require('pg/package.json').version.split('.')[1]) > 8) {
    const b = await db.query({ text: some, values: ['n01', 'simple', "it's \\o/"], binary: true })
    same(b.fields.map((f) => f.format), ['binary', 'binary'])
    same(b.rows.map((row) => [row.n, String(row.v)]), [[2, 'value 01'], [3, 'value 01']])
  }
  const sets = "SELECT k, raftable(k, upper($1)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k"
  same((await db.query({ text: sets, values: ['set'], rowMode: 'array' })).rows, [['row 1', ''], ['row 2', '']])
  same(await one("SELECT raftable('row 1') || raftable('row 2')"), 'SETSET')
  await fails('0A000', "SELECT 1 WHERE raftable('row 1', 'x') IS NULL")
  ok('elsewhere')

  // Queries are queued by the driver; several statements in one text are one message.
  const all = await Promise.all([
    one('SELECT raftable($1, $2)', ['batch', '1']), one('SELECT 2'), one('SELECT raftable($1)', ['batch'])
  ])
  same(all, ['', 2, '1'])
  const several = await db.query("SELECT raftable('batch', '2'); SELECT raftable('batch') AS v")
  same(several[1].rows[0].v, '2')
  const mixed = await db.query("SELECT 1 AS v; SELECT raftable('batch', '3'); SELECT 2, raftable('batch') AS v; SELECT raftable('batch', '2')")
  same([mixed.length, mixed[2].rows[0].v], [4, '3'])
  ok('batch')

  const other = new Client()
  await other.connect()
  const pid = await one('SELECT pg_backend_pid()')
  const sleeping = assert.rejects(db.query('SELECT pg_sleep(600)'), (e) => { same(e.code, '57014'); return true })
  const look = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
  for (const deadline = Date.now() + 30000; (await other.query(look, [pid])).rowCount === 0;) same(Date.now() < deadline, true)
  // The driver's own cancel sends the key that the proxy gave to this session.
  const canceller = new Client()
  canceller.cancel(db, db.activeQuery || db._activeQuery)
  await sleeping
  same(await one('SELECT raftable($1)', ['simple']), "it's \\o/")
  ok('cancel')

  await db.query('LISTEN compat_node')
  const arrived = new Promise((resolve) => db.once('notification', resolve))
  await other.query('SELECT pg_notify($1, $2)', ['compat_node', 'другой'])
  const note = await arrived
  same([note.channel, note.payload], ['compat_node', 'другой'])
  const noticed = new Promise((resolve) => db.once('notice', resolve))
  await db.query("DO $$BEGIN RAISE NOTICE 'hello'; END$$")
  same((await noticed).message, 'hello')
  ok('notify')
  await other.end()
  await db.end()
}

main().catch((e) => { console.error(e); process.exit(1) })
