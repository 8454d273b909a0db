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

// TestOwedReplies plays as TestOwed does, with messages whose answers the client gets in another form: the letter behind the
// type of such a message names its reply. The words in brackets are what is owed, in braces which reply belongs to the answer
// that comes now.
func TestOwedReplies(t *testing.T) {
	for _, c := range []struct{ name, play string }{
		{"one", ">P >Ba >S [PBS] {} <1 {a} <2 {} <Z [] {}"},
		{"several", ">Pa >Bb >Ec >S {a} <1 {b} <2 {c} <D {c} <C {} <Z {}"},
		{"the same for all answers to a message", ">Da >S {a} <t {a} <T {} <Z {}"},
		{"a portion of the rows is an answer", ">Ea >Eb >S {a} <D {a} <s {b} <C {} <Z {}"},
		{"notices belong to what runs", ">Ea {a} <N {a} <N {a} <C {}"},
		{"an error takes those up to Sync along", ">Pa >Bb >Ec >S >Pd >S {a} <E [SPS] {} <Z {d} <1 {} <Z {}"},
		{"an error takes all along", ">Pa >Bb {a} <E [skip] {} >Bc [skip] {} >S [S] {} <Z [] {} >Ed {d}"},
		{"what is skipped has no reply", ">P <E [skip] >Ba >Eb >S >Pc {} <Z {c}"},
		{"a query in another form", ">Qa >Qb {a} <T {a} <C {a} <Z {b} <E {b} <Z {}"},
		{"behind COPY", ">Q >c >Pa <G {} <C {} <Z {a} <1 {}"},
		{"Sync in COPY", ">Ea >S >c >Eb >S {a} <G [EES] {a} <C {b} <C {} <Z {}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o owed
			o.init()
			o.answered('Z', 'I')
			names := map[*reply]string{nil: ""}
			for i, w := range strings.Fields(c.play) {
				switch w[0] {
				case '>':
					if len(w) == 2 {
						o.push(entry(w[1]))
						continue
					}
					r := &reply{params: int(w[2])}
					names[r] = w[2:]
					o.pushReplied(entry(w[1])|replied, r)
				case '<':
					o.answered(w[1], 'I')
				case '[':
					if got, want := account(&o), strings.Trim(w, "[]"); got != want {
						t.Fatalf("word %d: %q is open, want %q", i, got, want)
					}
				case '{':
					if got, want := names[o.reply()], strings.Trim(w, "{}"); got != want {
						t.Fatalf("word %d: the reply is %q, want %q", i, got, want)
					}
				}
				marked := 0
				for _, e := range o.entries[o.head:] {
					if e&replied != 0 {
						marked++
					}
				}
				if marked != len(o.replies)-o.replied {
					t.Fatalf("word %d: %d replies to %d messages", i, len(o.replies)-o.replied, marked)
				}
			}
		})
	}
}

// TestOwedHides hides the answers to messages of the proxy's own, and nothing that is sent at any time.
func TestOwedHides(t *testing.T) {
	for _, c := range []struct {
		entry  entry
		hidden string // of the types below
	}{
		{'E', ""}, {'E' | quietAnswer, "12DCsTntZ"}, {'E' | quietError, "E"}, {'E' | quiet, "12DCsTntZE"},
		{'E' | replied, ""}, {'E' | quiet | replied, "12DCsTntZE"},
	} {
		var o owed
		o.init()
		o.answered('Z', 'I')
		if o.hides('D') {
			t.Error("something is hidden though nothing is owed")
		}
		o.pushReplied(c.entry, &reply{})
		got := ""
		for _, typ := range "12DCsTntZENAS" {
			if o.hides(byte(typ)) {
				got += string(typ)
			}
		}
		if got != c.hidden {
			t.Errorf("of the answers to %x %q is hidden, want %q", c.entry, got, c.hidden)
		}
	}
}
