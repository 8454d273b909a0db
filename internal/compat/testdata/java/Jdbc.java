import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/** The checks for the JDBC driver, which speaks the protocol on its own: named statements and portals, Describe, row limits. */
public class Jdbc {
    static final String UNICODE_KEY = "ключ 🔑 'é' \\x \"q\"";
    static final String UNICODE_VALUE = "значение 🗝\t'ü' \\ \"x\"\nend $1 ? :a %s";

    static Connection db;

    interface Action { void run() throws Exception; }

    static void ok(String name) { System.out.println("ok " + name); }

    static void same(Object got, Object want) {
        if (!Objects.equals(got, want)) throw new AssertionError("got " + got + ", want " + want);
    }

    static Connection connect(String... settings) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        for (int i = 0; i < settings.length; i += 2) p.setProperty(settings[i], settings[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE"), p);
    }

    static String one(String sql, String... args) throws SQLException {
        try (PreparedStatement s = db.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setString(i + 1, args[i]);
            try (ResultSet r = s.executeQuery()) {
                r.next();
                return r.getString(1);
            }
        }
    }

    static void run(String sql) throws SQLException {
        try (Statement s = db.createStatement()) { s.execute(sql); }
    }

    static void fails(String code, Action a) throws Exception {
        try {
            a.run();
        } catch (SQLException e) {
            same(e.getSQLState(), code);
            return;
        }
        throw new AssertionError("no error, want " + code);
    }

    public static void main(String[] args) throws Exception {
        db = connect();
        System.out.println("version pgjdbc " + db.getMetaData().getDriverVersion() + ", Java " + System.getProperty("java.version"));
        same(one("SELECT current_user"), "postgres");
        ok("connect");
        values();
        binary();
        transaction();
        errors();
        list();
        elsewhere();
        batch();
        copy();
        cancel();
        notification();
        simpleMode();
        db.close();
    }

    static void values() throws Exception {
        one("SELECT raftable('simple', 'it''s \\o/')");
        try (Statement s = db.createStatement(); ResultSet r = s.executeQuery("SELECT raftable('simple') AS a, raftable('missing') AS b")) {
            ResultSetMetaData m = r.getMetaData();
            same(Arrays.asList(m.getColumnName(1), m.getColumnTypeName(1), m.getColumnName(2)), Arrays.asList("a", "text", "b"));
            r.next();
            same(r.getString(1), "it's \\o/");
            same(r.getString(2), null);
        }
        ok("simple");

        // From the fifth execution on the statement has a name on the server.
        try (PreparedStatement set = db.prepareStatement("SELECT raftable(?, ?)");
             PreparedStatement get = db.prepareStatement("SELECT raftable(?)");
             PreparedStatement plain = db.prepareStatement("SELECT ? + 1")) {
            for (int i = 0; i < 50; i++) {
                set.setString(1, String.format("n%02d", i));
                set.setString(2, String.format("value %02d", i));
                set.execute();
                get.setString(1, String.format("n%02d", i));
                try (ResultSet r = get.executeQuery()) { r.next(); same(r.getString(1), String.format("value %02d", i)); }
                plain.setInt(1, i);
                try (ResultSet r = plain.executeQuery()) { r.next(); same(r.getInt(1), i + 1); }
            }
            same(get.unwrap(org.postgresql.PGStatement.class).isUseServerPrepare(), true);
            same(get.getParameterMetaData().getParameterTypeName(1), "varchar");
        }
        ok("parameters");

        same(one("SELECT raftable('missing')"), null);
        one("SELECT raftable(?, ?)", "gone", "here");
        same(one("SELECT raftable(?)", "gone"), "here");
        try (PreparedStatement s = db.prepareStatement("SELECT raftable(?, ?)")) {
            s.setString(1, "gone");
            s.setNull(2, Types.VARCHAR);
            s.execute();
        }
        same(one("SELECT raftable(?)", "gone"), null);
        same(one("SELECT raftable(?)", (String) null), null);
        ok("null");

        one("SELECT raftable(?, ?)", "empty", "");
        same(one("SELECT raftable(?)", "empty"), "");
        ok("empty");

        for (String[] row : new String[][] {{UNICODE_KEY, UNICODE_VALUE}, {"🔑".repeat(64), "64"}}) {
            one("SELECT raftable(?, ?)", row);
            same(one("SELECT raftable(?)", row[0]), row[1]);
        }
        ok("unicode");
    }

    /** With prepareThreshold -1 everything that can goes in binary at once: here the time limit and the results. */
    static void binary() throws Exception {
        try (Connection c = connect("prepareThreshold", "-1", "binaryTransferEnable", "25,1043,23");
             PreparedStatement set = c.prepareStatement("SELECT raftable(?, ?, ?)");
             PreparedStatement get = c.prepareStatement("SELECT raftable(?) AS v, raftable('missing')")) {
            for (int i = 0; i < 7; i++) {
                set.setString(1, "simple");
                set.setString(2, "it's \\o/");
                set.setInt(3, 20000);
                set.execute();
                get.setString(1, "simple");
                try (ResultSet r = get.executeQuery()) {
                    r.next();
                    same(r.getString(1), "it's \\o/");
                    same(r.getString(2), null);
                }
            }
        }
        ok("binary");
    }

    static void transaction() throws Exception {
        run("CREATE TABLE compat_jdbc (id int PRIMARY KEY, note text)");
        db.setAutoCommit(false);
        run("INSERT INTO compat_jdbc VALUES (1, 'gone')");
        one("SELECT raftable(?, ?)", "kept", "rollback or not");
        db.rollback();
        same(one("SELECT count(*) FROM compat_jdbc"), "0");
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        db.rollback();
        // A call is the first statement of the transaction: the driver sends BEGIN in the same pipeline.
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        run("INSERT INTO compat_jdbc VALUES (2, 'stays')");
        Savepoint s = db.setSavepoint();
        fails("22001", () -> one("SELECT raftable(?, ?)", "x".repeat(65), "v"));
        db.rollback(s);
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        db.commit();
        db.setAutoCommit(true);
        same(one("SELECT string_agg(note, ',') FROM compat_jdbc"), "stays");
        ok("transaction");
    }

    static void errors() throws Exception {
        fails("22001", () -> one("SELECT raftable(?, ?)", "x".repeat(65), "v"));
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        fails("42883", () -> {
            try (PreparedStatement s = db.prepareStatement("SELECT raftable(?)")) {
                s.setInt(1, 1);
                s.executeQuery();
            }
        });
        same(one("SELECT 1"), "1");
        db.setAutoCommit(false);
        fails("22001", () -> one("SELECT raftable(?, ?)", "x".repeat(65), "v"));
        fails("25P02", () -> one("SELECT 1"));
        fails("25P02", () -> one("SELECT raftable(?)", "kept"));
        db.rollback();
        db.setAutoCommit(true);
        ok("error");
    }

    static void list() throws Exception {
        List<String> keys = new ArrayList<>();
        Map<String, String> rows = new HashMap<>();
        try (Statement s = db.createStatement(); ResultSet r = s.executeQuery("SELECT key, value FROM raftable()")) {
            while (r.next()) {
                keys.add(r.getString("key"));
                rows.put(r.getString("key"), r.getString("value"));
            }
        }
        same(keys.size(), 55);
        same(rows.get(UNICODE_KEY), UNICODE_VALUE);
        ok("list");

        // A fetch size in a transaction makes a named portal with a row limit.
        db.setAutoCommit(false);
        for (String sql : new String[] {"SELECT key FROM raftable()", "SELECT i FROM generate_series(1, 55) i",
            "SELECT i, raftable('n' || i) FROM generate_series(1, 55) i WHERE raftable('kept') LIKE 'roll%'"}) {
            try (PreparedStatement s = db.prepareStatement(sql)) {
                s.setFetchSize(7);
                for (int round = 0; round < 7; round++) {
                    int n = 0;
                    try (ResultSet r = s.executeQuery()) {
                        for (; r.next(); n++) {
                            if (sql.contains("key")) same(r.getString(1), keys.get(n));
                            if (n == 20) same(one("SELECT raftable(?)", "kept"), "rollback or not");
                            if (round == 6 && n == 30) break; // the portal is closed with rows left in it
                        }
                    }
                    same(n, round == 6 ? 30 : 55);
                }
            }
        }
        db.commit();
        db.setAutoCommit(true);
        ok("fetch size");
    }

    /** Calls in statements that PostgreSQL runs, prepared and not, with results in text and in binary. */
    static void elsewhere() throws Exception {
        same(one("SELECT count(*) FROM (VALUES ('n01'), ('n02'), ('nope')) AS t(k) WHERE raftable(k) IS NOT NULL"), "2");
        same(one("SELECT r.value FROM raftable() AS r JOIN (VALUES ('n03')) AS t(k) ON r.key = t.k"), "value 03");
        Connection before = db;
        try (Connection c = connect("prepareThreshold", "-1", "binaryTransferEnable", "25,1043,23")) {
            for (Connection one : new Connection[] {before, c}) {
                db = one;
                some();
            }
        }
        db = before;
        same(one("SELECT raftable('row 1') || raftable('row 2')"), "SETSET");
        fails("0A000", () -> one("SELECT 1 WHERE raftable('row 1', 'x') IS NULL"));
        ok("elsewhere");
    }

    static void some() throws Exception {
        try (PreparedStatement s = db.prepareStatement(
                "SELECT i + 1 AS n, raftable(?) AS v FROM generate_series(1, 2) AS i WHERE raftable(?) = ?");
             PreparedStatement sets = db.prepareStatement(
                "SELECT k, raftable(k, upper(?)) FROM (VALUES ('row 1'), ('row 2')) AS t(k) ORDER BY k")) {
            for (int i = 0; i < 10; i++) {
                s.setString(1, "n0" + i);
                s.setString(2, "simple");
                s.setString(3, "it's \\o/");
                try (ResultSet r = s.executeQuery()) {
                    same(r.getMetaData().getColumnTypeName(1) + " " + r.getMetaData().getColumnName(2), "int4 v");
                    for (int n = 2; n <= 3; n++) {
                        r.next();
                        same(r.getInt("n") + " " + r.getString("v"), n + " value 0" + i);
                    }
                    same(r.next(), false);
                }
                sets.setString(1, "set");
                try (ResultSet r = sets.executeQuery()) {
                    r.next();
                    same(r.getString(1) + r.getString(2), "row 1");
                    r.next();
                    same(r.getString(1) + r.getString(2), "row 2");
                    same(r.next(), false);
                }
            }
            same(s.getParameterMetaData().getParameterTypeName(1), "varchar");
        }
    }

    static void batch() throws Exception {
        try (PreparedStatement s = db.prepareStatement("INSERT INTO compat_jdbc VALUES (?, ?)")) {
            for (int i = 10; i < 60; i++) {
                s.setInt(1, i);
                s.setString(2, "v");
                s.addBatch();
            }
            same(s.executeBatch().length, 50);
        }
        // The driver takes a text apart and sends the statements as one pipeline, calls and others mixed.
        try (PreparedStatement s = db.prepareStatement(
            "SELECT raftable(?, ?); INSERT INTO compat_jdbc VALUES (60, 'piped'); SELECT raftable(?); SELECT count(*) FROM compat_jdbc; SELECT raftable(?, ?)")) {
            for (int round = 1; round <= 7; round++) {
                run("DELETE FROM compat_jdbc WHERE id = 60");
                String[] values = {"batch", String.valueOf(round), "batch", "batch", "2"};
                for (int i = 0; i < values.length; i++) s.setString(i + 1, values[i]);
                same(s.execute(), true);
                same(s.getMoreResults(), false);
                same(s.getUpdateCount(), 1);
                same(s.getMoreResults(), true);
                try (ResultSet r = s.getResultSet()) { r.next(); same(r.getString(1), String.valueOf(round)); }
                same(s.getMoreResults(), true);
                try (ResultSet r = s.getResultSet()) { r.next(); same(r.getInt(1), 52); }
                same(s.getMoreResults(), true);
            }
        }
        // An error in the middle of a pipeline undoes its ordinary statements, and what comes later is skipped.
        fails("22012", () -> {
            try (Statement s = db.createStatement()) {
                s.execute("DELETE FROM compat_jdbc; SELECT raftable('batch'); SELECT 1/0; SELECT raftable('batch', 'never')");
            }
        });
        same(one("SELECT count(*) FROM compat_jdbc"), "52");
        same(one("SELECT raftable('batch')"), "2");
        ok("batch");
    }

    static void copy() throws Exception {
        StringBuilder lines = new StringBuilder();
        for (int i = 100; i < 200; i++) lines.append(i).append("\traftable('k')\n");
        var manager = db.unwrap(PGConnection.class).getCopyAPI();
        same(manager.copyIn("COPY compat_jdbc FROM STDIN", new StringReader(lines.toString())), 100L);
        StringWriter out = new StringWriter();
        manager.copyOut("COPY (SELECT note FROM compat_jdbc WHERE id >= 100) TO STDOUT", out);
        same(out.toString(), "raftable('k')\n".repeat(100));
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        ok("copy");
    }

    static void cancel() throws Exception {
        String pid = one("SELECT pg_backend_pid()");
        Statement s = db.createStatement();
        Thread canceller = new Thread(() -> {
            try (Connection other = connect(); Statement look = other.createStatement()) {
                long deadline = System.nanoTime() + 30_000_000_000L;
                for (boolean runs = false; !runs && System.nanoTime() < deadline; ) {
                    try (ResultSet r = look.executeQuery("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = " + pid)) {
                        runs = r.next();
                    }
                }
                s.cancel();
            } catch (SQLException e) {
                e.printStackTrace();
            }
        });
        canceller.start();
        fails("57014", () -> s.executeQuery("SELECT pg_sleep(600)"));
        canceller.join();
        s.setQueryTimeout(1); // the driver cancels on its own
        fails("57014", () -> s.executeQuery("SELECT pg_sleep(600)"));
        s.close();
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        ok("cancel");
    }

    static void notification() throws Exception {
        run("LISTEN compat_jdbc");
        try (Connection other = connect(); Statement s = other.createStatement()) {
            s.execute("NOTIFY compat_jdbc, 'другой'");
        }
        PGNotification[] n = db.unwrap(PGConnection.class).getNotifications(30000);
        same(n.length, 1);
        same(n[0].getName() + " " + n[0].getParameter(), "compat_jdbc другой");
        ok("notify");
    }

    /** preferQueryMode=simple: parameters are written into the text, and nothing is prepared. */
    static void simpleMode() throws Exception {
        Connection before = db;
        db = connect("preferQueryMode", "simple");
        for (String[] row : new String[][] {{UNICODE_KEY, UNICODE_VALUE}, {"empty", ""}}) {
            one("SELECT raftable(?, ?)", row);
            same(one("SELECT raftable(?)", row[0]), row[1]);
        }
        same(one("SELECT raftable(?)", "missing"), null);
        fails("22001", () -> one("SELECT raftable(?, ?)", "x".repeat(65), "v"));
        some();
        try (Statement s = db.createStatement()) {
            same(s.execute("SELECT 1; SELECT raftable('kept'), 2; SELECT raftable('row 1', 'SET')"), true);
            same(s.getMoreResults(), true);
            try (ResultSet r = s.getResultSet()) { r.next(); same(r.getString(1), "rollback or not"); }
        }
        db.setAutoCommit(false);
        same(one("SELECT raftable(?)", "kept"), "rollback or not");
        run("DELETE FROM compat_jdbc");
        db.rollback();
        db.close();
        db = before;
        ok("simple mode");
    }
}
