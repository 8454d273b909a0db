package shm

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"unsafe"
)

// The tests here run in mapped files, as in real life, and on the heap: the race
// detector looks at no memory but the heap, and there it checks the protocol of
// publication itself.

// heapMemory is a generation on the heap.
type heapMemory struct{ data []byte }

func newHeapMemory(_, size uint64) (memory, error) {
	words := make([]uint64, size/8)
	return &heapMemory{unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)}, nil
}

func (m *heapMemory) bytes() []byte     { return m.data }
func (m *heapMemory) back(uint64) error { return nil }
func (m *heapMemory) publish() error    { return nil }
func (m *heapMemory) keepFor(*mapping)  {}
func (m *heapMemory) release()          {}

// inBoth runs a test in files and on the heap. open returns readers: several of
// other processes' kind, which map the file, or the writer's own.
func inBoth(t *testing.T, test func(t *testing.T, w *Writer, open func() *Reader)) {
	t.Run("file", func(t *testing.T) {
		w := create(t, small(t))
		test(t, w, func() *Reader { return open(t, w.o.Path) })
	})
	t.Run("heap", func(t *testing.T) {
		o := small(t)
		o.newMemory = newHeapMemory
		w := create(t, o)
		test(t, w, w.Reader)
	})
}

// The bank: a fixed sum is spread over accounts, and every committed index moves
// some of it. Whoever sees another sum has seen parts of two indices.
const (
	accounts = 20
	funds    = 1_000_000
)

// balance is the value of an account: its checksum, what it holds, and filler of
// changing length, so that generations come and go.
func balance(amount int, rng *rand.Rand) []byte {
	rest := fmt.Appendf(nil, "%d %s", amount, bytes.Repeat([]byte{'.'}, rng.IntN(100)))
	return append(fmt.Appendf(nil, "%08x ", crc32.ChecksumIEEE(rest)), rest...)
}

// parseBalance returns an error for a torn value.
func parseBalance(value []byte) (int, error) {
	sum, rest, _ := bytes.Cut(value, []byte{' '})
	if want := fmt.Sprintf("%08x", crc32.ChecksumIEEE(rest)); string(sum) != want {
		return 0, fmt.Errorf("torn value %q", value)
	}
	amount, _, _ := bytes.Cut(rest, []byte{' '})
	return strconv.Atoi(string(amount))
}

func account(i int) []byte { return fmt.Appendf(nil, "account/%02d", i) }

// bank is the writer's side. A poor account is deleted: it counts as 0.
type bank struct {
	w      *Writer
	rng    *rand.Rand
	amount [accounts]int
	index  uint64
}

func newBank(w *Writer) (*bank, error) {
	b := &bank{w: w, rng: rand.New(rand.NewPCG(1, 2)), index: 1}
	b.amount[0] = funds
	if err := w.Set(1, account(0), balance(funds, b.rng)); err != nil {
		return nil, err
	}
	w.Commit(1)
	return b, nil
}

// transfer commits one index: a few moves of money, now and then as a Replace.
func (b *bank) transfer() error {
	b.index++
	touched := map[int]bool{}
	for range 1 + b.rng.IntN(4) {
		from, to := b.rng.IntN(accounts), b.rng.IntN(accounts)
		move := b.amount[from]
		if b.rng.IntN(3) > 0 {
			move = b.rng.IntN(move + 1)
		}
		b.amount[from] -= move
		b.amount[to] += move
		touched[from], touched[to] = true, true
	}
	if b.rng.IntN(200) == 0 {
		return b.replace()
	}
	for i := range touched {
		var err error
		if b.amount[i] == 0 {
			_, err = b.w.Delete(b.index, account(i))
		} else {
			err = b.w.Set(b.index, account(i), balance(b.amount[i], b.rng))
		}
		if err != nil {
			return err
		}
	}
	b.w.Commit(b.index)
	return nil
}

func (b *bank) replace() error {
	i := -1
	return b.w.Replace(b.index, func() ([]byte, []byte, error) {
		for i++; i < accounts && b.amount[i] == 0; i++ {
		}
		if i == accounts {
			return nil, nil, io.EOF
		}
		return account(i), balance(b.amount[i], b.rng), nil
	})
}

// checkBank looks at the bank through a reader and returns the index it saw.
func checkBank(r *Reader, least uint64) (uint64, error) {
	dst, ok := r.Get(nil, account(int(least)%accounts))
	if _, err := parseBalance(dst); ok && err != nil {
		return 0, err
	}
	p, err := r.Picture()
	if err != nil {
		return 0, err
	}
	if p.Index() < least {
		return 0, fmt.Errorf("index %d after %d", p.Index(), least)
	}
	if err := checkBankPicture(p); err != nil {
		return 0, err
	}
	if h := r.Header(); h.Applied < p.Index() || h.Applied == p.Index() && h.StateHash != p.StateHash() {
		return 0, fmt.Errorf("header %+v after index %d, hash %x", h, p.Index(), p.StateHash())
	}
	return p.Index(), nil
}

func checkBankPicture(p *Picture) error {
	sum, n, content := 0, 0, map[string]string{}
	for k, v := range p.All() {
		amount, err := parseBalance(v)
		if err != nil {
			return err
		}
		sum += amount
		n++
		content[string(k)] = string(v)
	}
	if hash, size := stateHash(content); hash != p.StateHash() || size != p.Bytes() || n != p.Len() {
		return fmt.Errorf("index %d: %d keys, %d bytes, hash %x; the picture says %d, %d, %x",
			p.Index(), n, size, hash, p.Len(), p.Bytes(), p.StateHash())
	}
	if sum != funds && p.Index() > 0 {
		return fmt.Errorf("index %d: the sum is %d", p.Index(), sum)
	}
	return nil
}

// TestReadersSeeOneIndex has readers check the bank while the writer runs through
// generations, and checks pictures again that were taken long ago.
func TestReadersSeeOneIndex(t *testing.T) {
	inBoth(t, func(t *testing.T, w *Writer, open func() *Reader) {
		b, err := newBank(w)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 3 {
			r := open()
			wg.Go(func() {
				old := []*Picture{w.Picture()}
				for last, n := uint64(0), 0; ; n++ {
					var err error
					if last, err = checkBank(r, last); err != nil {
						t.Error(err)
						return
					}
					if n%10 == 0 {
						old = append(old, w.Picture())[max(0, len(old)-20):]
					}
					if err := checkBankPicture(old[0]); err != nil {
						t.Error("later: ", err)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for range 4000 {
			if err := b.transfer(); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		wg.Wait()
		if g := w.Stats().Generation; g < 100 {
			t.Errorf("only %d generations", g)
		}
	})
}

// TestCommitIsVisible: whoever knows of a commit sees it, through every reader.
// A generation marked too late would fail here.
func TestCommitIsVisible(t *testing.T) {
	inBoth(t, func(t *testing.T, w *Writer, open func() *Reader) {
		known := make(chan uint64)
		var wg sync.WaitGroup
		for range 2 {
			r := open()
			wg.Go(func() {
				for index := range known {
					got, _ := r.Get(nil, []byte("key"))
					seen, err := strconv.ParseUint(string(got), 10, 64)
					if err != nil || seen < index {
						t.Errorf("%q after the commit of %d", got, index)
					}
					if applied := r.Header().Applied; applied < seen {
						t.Errorf("header says %d after %d", applied, seen)
					}
				}
			})
		}
		for index := range uint64(10_000) {
			mustSet(t, w, index+1, "key", fmt.Sprint(index+1))
			w.Commit(index + 1)
			select {
			case known <- index + 1:
			default:
			}
		}
		close(known)
		wg.Wait()
	})
}

// TestCloseWhileReading closes readers and the writer under running Gets.
func TestCloseWhileReading(t *testing.T) {
	for range 20 {
		w := create(t, small(t))
		mustSet(t, w, 1, "key", "value")
		w.Commit(1)
		r := open(t, w.o.Path)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					if got := get(r, "key"); got == "-" {
						break
					} else if got != "value" {
						t.Errorf("%q", got)
						break
					}
				}
				if _, err := r.Picture(); err != ErrClosed {
					t.Errorf("Picture after Close: %v", err)
				}
				if h := r.Header(); h != (Header{}) {
					t.Errorf("Header after Close: %+v", h)
				}
			})
		}
		p, err := r.Picture()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		r.Close()
		wg.Wait()
		runtime.GC()
		want(t, p, 1, "key=value ")
	}
}
