package sqlrewrite

import "encoding/binary"

// The word has eight letters and so seven pairs of neighbours, all different. Looking at every seventh
// pair of the text therefore meets each occurrence exactly once, and a pair that belongs to the word
// says where the word would have to begin: one comparison decides. No text can make this take more
// than one comparison per seven bytes.
const (
	word     = "raftable"
	pairStep = len(word) - 1
)

var (
	// pairs maps two letters, folded to five bits each, to their place in the word plus one.
	pairs [1 << 10]uint8
	// wordBits is the word as a little-endian number; foldBits makes ASCII letters small.
	wordBits = binary.LittleEndian.Uint64([]byte(word))
)

const foldBits = 0x2020202020202020

func init() {
	for i := range pairStep {
		pairs[pairOf(word[i], word[i+1])] = uint8(i + 1)
	}
}

func pairOf(a, b byte) uint16 { return uint16(a&31) | uint16(b&31)<<5 }

// pairAt gives the place in the word, plus one, of the pair of letters at i; 0 if it is none.
func pairAt(b []byte, i int) uint8 {
	two := binary.LittleEndian.Uint16(b[i:])
	return pairs[two&31|two>>3&0x3e0]
}

// Mentions reports whether b contains the word raftable in any mixture of ASCII cases. Where it is
// false, Parse finds no call. It takes time in proportion to the length of b, whatever is in it, and
// allocates nothing.
func Mentions(b []byte) bool {
	i := 0
	for ; i+3*pairStep+1 < len(b); i += 4 * pairStep {
		if pairAt(b, i)|pairAt(b, i+pairStep)|pairAt(b, i+2*pairStep)|pairAt(b, i+3*pairStep) == 0 {
			continue
		}
		if wordAround(b, i) || wordAround(b, i+pairStep) || wordAround(b, i+2*pairStep) || wordAround(b, i+3*pairStep) {
			return true
		}
	}
	for ; i+1 < len(b); i += pairStep {
		if wordAround(b, i) {
			return true
		}
	}
	return false
}

// wordAround reports whether the pair of letters at i belongs to an occurrence of the word.
func wordAround(b []byte, i int) bool {
	at := i - int(pairAt(b, i)) + 1
	if at > i || at < 0 || at+len(word) > len(b) {
		return false
	}
	return binary.LittleEndian.Uint64(b[at:])|foldBits == wordBits
}
