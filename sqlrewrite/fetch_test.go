package sqlrewrite

import "testing"

func TestReadsPortal(t *testing.T) {
	for text, want := range map[string]bool{
		"FETCH p":                         true,
		"fetch backward 2 from p":         true,
		"MOVE ALL IN \"p\"":               true,
		"SELECT 1; FETCH NEXT FROM P":     true,
		"FETCH ABSOLUTE 1 /* q */ FROM p": true,
		"DO $$DECLARE c refcursor := 'P'; r record; BEGIN FETCH c INTO r; END$$": true,
		"DO $$DECLARE c refcursor := 'q'; r record; BEGIN FETCH c INTO r; END$$": false,
		"DO $$BEGIN RAISE NOTICE 'p'; END$$":                                     false,
		"FETCH q":                                                                false,
		"FETCH \"P\"":                                                            false,
		"SELECT 'FETCH p'":                                                       false,
		"SELECT fetch, p AS move FROM p":                                         false,
		"/* MOVE p */ SELECT 1":                                                  false,
		"SELECT * FROM p FETCH FIRST ROW ONLY":                                   false,
		"CLOSE p -- move":                                                        false,
		"DECLARE move CURSOR FOR TABLE p":                                        false,
		"FETCH p p":                                                              false,
		"FETCH p; SELECT '":                                                      false,
		"FETCH p\x00":                                                            false,
		"FETCH p '\xff'":                                                         false,
	} {
		if got := ReadsPortal(text, "p", standard); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
