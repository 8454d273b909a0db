# frozen_string_literal: true

require 'pg'

def ok(name) = puts("ok #{name}")

def same(got, want)
  raise "got #{got.inspect}, want #{want.inspect}" unless got == want
end

UNICODE_KEY = "ключ 🔑 'é' \\x \"q\""
UNICODE_VALUE = "значение 🗝\t'ü' \\ \"x\"\nend $1 ? :a %s"
DB = PG.connect

def one(sql, *args) = (args.empty? ? DB.exec(sql) : DB.exec_params(sql, args)).getvalue(0, 0)

def fails(code)
  yield
rescue PG::Error => e
  same(e.result.error_field(PG::PG_DIAG_SQLSTATE), code)
else
  raise "no error, want #{code}"
end

puts "version ruby-pg #{PG::VERSION} libpq #{PG.library_version} ruby #{RUBY_VERSION}"
same(one('SELECT current_user'), 'postgres')
ok 'connect'

same(one("SELECT raftable('simple', 'it''s \\o/')"), '')
r = DB.exec("SELECT raftable('simple') AS a, raftable('missing') AS b")
same(r.fields, %w[a b])
same([r.ftype(0), r.ftype(1)], [25, 25])
same(r.values, [["it's \\o/", nil]])
ok 'simple'

DB.prepare('set', 'SELECT raftable($1, $2)')
DB.prepare('get', 'SELECT raftable($1)')
DB.prepare('plain', "SELECT $1::text || 'x'")
50.times do |i|
  key = format('n%02d', i)
  value = format('value %02d', i)
  same(DB.exec_prepared('set', [key, value]).getvalue(0, 0), '')
  same(DB.exec_prepared('get', [key]).getvalue(0, 0), value)
  same(DB.exec_prepared('plain', [value]).getvalue(0, 0), "#{value}x")
end
d = DB.describe_prepared('set')
same([d.nparams, d.paramtype(0), d.paramtype(1), d.nfields, d.ftype(0)], [2, 1043, 25, 1, 2278])
DB.exec('DEALLOCATE get')
fails('26000') { DB.exec_prepared('get', ['n00']) }
ok 'parameters'

same(one("SELECT raftable('missing')"), nil)
one('SELECT raftable($1, $2)', 'gone', 'here')
same(one('SELECT raftable($1)', 'gone'), 'here')
one('SELECT raftable($1, $2)', 'gone', nil)
same(one('SELECT raftable($1)', 'gone'), nil)
same(one('SELECT raftable($1)', nil), nil)
ok 'null'

one('SELECT raftable($1, $2)', 'empty', '')
same(one('SELECT raftable($1)', 'empty'), '')
ok 'empty'

[[UNICODE_KEY, UNICODE_VALUE], ['🔑' * 64, '64']].each do |key, value|
  one('SELECT raftable($1, $2)', key, value)
  same(one('SELECT raftable($1)', key), value)
end
ok 'unicode'

binary = ->(v, type) { { value: v, type: type, format: 1 } }
DB.exec_params('SELECT raftable($1, $2)', [binary['binary', 1043], binary['bïnär', 25]], 1)
got = DB.exec_params('SELECT raftable($1) AS v', [binary['binary', 25]], 1)
same([got.fformat(0), got.getvalue(0, 0).dup.force_encoding('UTF-8')], [1, 'bïnär'])
same(DB.exec_params('SELECT raftable($1, $2, $3)', [binary['binary', 0], binary['bïnär', 0], binary[[9000].pack('N'), 23]]).ntuples, 1)
ok 'binary'

DB.exec('CREATE TABLE compat_ruby (id int PRIMARY KEY, note text)')
begin
  DB.transaction do
    DB.exec("INSERT INTO compat_ruby VALUES (1, 'gone')")
    one('SELECT raftable($1, $2)', 'kept', 'rollback or not')
    raise 'undo'
  end
rescue RuntimeError => e
  same(e.message, 'undo')
end
same(one('SELECT count(*) FROM compat_ruby'), '0')
same(one('SELECT raftable($1)', 'kept'), 'rollback or not')
DB.transaction do
  same(DB.transaction_status, PG::PQTRANS_INTRANS)
  one('SELECT raftable($1)', 'kept')
  same(DB.transaction_status, PG::PQTRANS_INTRANS)
  DB.exec("INSERT INTO compat_ruby VALUES (2, 'stays')")
end
same(one("SELECT string_agg(note, ',') FROM compat_ruby"), 'stays')
ok 'transaction'

fails('22001') { one('SELECT raftable($1, $2)', 'x' * 65, 'v') }
same(one('SELECT raftable($1)', 'kept'), 'rollback or not')
fails('42883') { one('SELECT raftable(1)') }
fails('42883') { DB.exec_params('SELECT raftable($1)', [{ value: '1', type: 23, format: 0 }]) }
same(one('SELECT 1'), '1')
DB.exec('BEGIN')
fails('22001') { one('SELECT raftable($1, $2)', 'x' * 65, 'v') }
same(DB.transaction_status, PG::PQTRANS_INERROR)
fails('25P02') { one('SELECT 1') }
fails('25P02') { one("SELECT raftable('kept')") }
DB.exec('ROLLBACK')
ok 'error'

rows = DB.exec('SELECT key, value FROM raftable()').values
same(rows.length, 56)
same(rows.map(&:first), rows.map(&:first).sort_by(&:b))
same(rows.to_h[UNICODE_KEY], UNICODE_VALUE)
DB.send_query('SELECT * FROM raftable()')
DB.set_single_row_mode
streamed = []
DB.get_result.stream_each_row { |row| streamed << row }
same(DB.get_result, nil)
same(streamed, rows)
same(one('SELECT 1'), '1') # libpq 15 would carry the mode into a pipeline otherwise
ok 'list'

same(one("SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), '2')
same(one("SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), 'value 03')
DB.prepare('some', 'SELECT i + 1 AS n, raftable($1) AS v FROM generate_series(1, 2) AS i WHERE raftable($2) = $3')
d = DB.describe_prepared('some')
same([d.nparams, d.paramtype(0), d.paramtype(2), d.fields, d.ftype(0), d.ftype(1)], [3, 1043, 25, %w[n v], 23, 25])
[*Array.new(10) { |i| ["n0#{i}", "value 0#{i}"] }, [UNICODE_KEY, UNICODE_VALUE]].each do |key, value|
  same(DB.exec_prepared('some', [key, 'simple', "it's \\o/"]).values, [['2', value], ['3', value]])
  got = DB.exec_prepared('some', [key, 'simple', "it's \\o/"], 1).values
  same(got.map { |n, v| [n.unpack1('N'), v.dup.force_encoding('UTF-8')] }, [[2, value], [3, value]])
end
sets = "SELECT k, raftable(k, upper($1)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k"
[0, 1].each { |format| same(DB.exec_params(sets, ['set'], format).values, [['row 1', ''], ['row 2', '']]) }
same(one("SELECT 1; SELECT raftable('row 1') || raftable('row 2')"), 'SETSET')
fails('0A000') { one("SELECT 1 WHERE raftable('row 1', 'x') IS NULL") }
ok 'elsewhere'

DB.enter_pipeline_mode
DB.send_query_params('SELECT raftable($1, $2)', ['batch', '1'])
DB.send_query_params('SELECT $1::int + 1', ['1'])
DB.send_query_params('SELECT raftable($1)', ['batch'])
DB.send_query_params('SELECT upper(raftable($1)) || $2::text', %w[row\ 1 x])
DB.pipeline_sync
DB.send_query_params('SELECT 1/$1::int', ['0'])
DB.send_query_params('SELECT raftable($1, $2)', ['batch', 'never'])
DB.pipeline_sync
got = []
until got.count('sync') == 2
  r = DB.get_result or next # nil stands between two queries
  got << case r.result_status
         when PG::PGRES_PIPELINE_SYNC then 'sync'
         when PG::PGRES_PIPELINE_ABORTED then 'skipped'
         when PG::PGRES_FATAL_ERROR then r.error_field(PG::PG_DIAG_SQLSTATE)
         else r.getvalue(0, 0)
         end
end
DB.exit_pipeline_mode
same(got, ['', '2', '1', 'SETx', 'sync', '22012', 'skipped', 'sync'])
same(one('SELECT raftable($1)', 'batch'), '1')
ok 'batch'

DB.copy_data('COPY compat_ruby FROM STDIN') { 100.upto(199) { |i| DB.put_copy_data("#{i}\traftable('k')\n") } }
lines = []
DB.copy_data('COPY (SELECT note FROM compat_ruby WHERE id >= 100) TO STDOUT') do
  while (line = DB.get_copy_data)
    lines << line
  end
end
same(lines, ["raftable('k')\n"] * 100)
same(one('SELECT raftable($1)', 'simple'), "it's \\o/")
ok 'copy'

other = PG.connect
pid = one('SELECT pg_backend_pid()')
DB.send_query('SELECT pg_sleep(600)')
deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 30
look = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
while other.exec_params(look, [pid]).getvalue(0, 0) == '0'
  raise 'pg_sleep does not run' if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

  sleep 0.005 # the pace of polling
end
same(DB.cancel, nil)
fails('57014') { DB.get_last_result }
same(one('SELECT raftable($1)', 'simple'), "it's \\o/")
ok 'cancel'

DB.exec('LISTEN compat_ruby')
other.exec_params('SELECT pg_notify($1, $2)', %w[compat_ruby другой])
DB.wait_for_notify(30) { |channel, _, payload| same([channel, payload], %w[compat_ruby другой]) } || raise('no notification')
ok 'notify'
other.close
DB.close
