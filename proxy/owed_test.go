package proxy

import (
	"strings"
	"testing"
)

// TestOwed plays what the client sends (lower row of words: >Q >P …) and what the server answers (<1 <Z …) and looks at
// the account. The words in brackets are what must be open then, "skip" and "copy" the states.
func TestOwed(t *testing.T) {
	for _, c := range []struct{ name, play string }{
		{"simple", ">Q [Q] <T <D <C [Q] <Z []"},
		{"two simple queries", ">Q >Q [QQ] <C <Z [Q] <E <Z []"},
		{"extended", ">P >B >D >E >S [PBDES] <1 <2 <T <D <C [S] <Z []"},
		{"describe a statement", ">D >S <t [DS] <n [S] <Z []"},
		{"rows come in portions", ">E >E >S <D <s [ES] <C [S] <Z []"},
		{"close and empty query", ">C >B >E >S <3 <2 <I [S] <Z []"},
		{"an error skips to Sync", ">P >B >E >S >P >S <E [SPS] <Z [PS] <1 <Z []"},
		{"an error before Sync is sent", ">P >B <E [skip] >E >Q [skip] >S [S] <Z []"},
		{"an error at Sync", ">P >S <1 <E [S] <Z []"},
		{"notices and notifications are no answers", ">Q <N <A <S [Q] <C <A <Z []"},
		{"function call", ">F <V [F] <Z []"},
		{"copy in, simple", ">Q <G [Q copy] >c [Q] <C <Z []"},
		{"copy in, data ahead", ">Q >c [Qc] <G [Q] <C <Z []"},
		{"copy in, extended, Sync ahead", ">P >B >E >S <1 <2 <G [E copy] >c >S [ES] <C [S] <Z []"},
		{"copy in, extended, all ahead", ">E >S >c >S [EScS] <G [ES] <C <Z []"},
		{"copy in refused, all ahead", ">E >S >c >S <E [ScS] <Z [S] <Z []"},
		{"copy in fails in the middle", ">E >S <G <E [skip] >c >S [S] <Z []"},
		{"copy in fails, simple", ">Q <G >f [Q] <E <Z []"},
		{"copy done after the end", ">Q <G <E <Z [] >c [] >Q [Q] <Z []"},
		{"more than is owed", "<Z <C <1 <E []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o owed
			o.init()
			o.answered('Z', 'I')
			for i, w := range strings.Fields(strings.ReplaceAll(strings.ReplaceAll(c.play, "[ ", "["), " copy]", "+copy]")) {
				switch w[0] {
				case '>':
					o.push(entry(w[1]))
				case '<':
					o.answered(w[1], 'I')
				case '[':
					want := strings.Trim(w, "[]")
					if got := account(&o); got != want {
						t.Fatalf("word %d: %q is open, want %q", i, got, want)
					}
				}
			}
		})
	}
}

func account(o *owed) string {
	var b strings.Builder
	for _, e := range o.entries[o.head:] {
		b.WriteByte(e.kind())
	}
	if o.copyIn {
		b.WriteString("+copy")
	}
	if o.skipping {
		b.WriteString("skip")
	}
	return b.String()
}
