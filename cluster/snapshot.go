package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cespare/xxhash/v2"
)

// A snapshot is the state at one applied index. Its bytes, in order; numbers of
// fixed length are little-endian:
//
//	version    1 byte, snapshotVersion
//	applied    u64, index of the last command in it
//	count      u64, number of keys
//	hash       u64, hash of the content as shm defines it
//	records    count times: key and value, each uvarint length and bytes
//	origins    uvarint number of origins of the dedup table, ascending by id, each
//	           uvarint id, epoch, low and number of words, then the words as u64:
//	           bit i of them is sequence low+i
//	checksum   u64, xxhash64 of all bytes before
const snapshotVersion = 1

const (
	snapshotHeader = 1 + 3*8
	maxOrigins     = 1 << 16
)

var errSnapshotDamaged = errors.New("snapshot is damaged")

// snapshotHead is the fixed part in front.
type snapshotHead struct {
	applied uint64
	count   uint64
	hash    uint64
}

// writeSnapshot streams a snapshot to w. It calls interrupted now and then and
// ends with the error that it returns.
func writeSnapshot(w io.Writer, head snapshotHead, records iter.Seq2[[]byte, []byte],
	dedup *dedupTable, interrupted func() error) error {
	sum := xxhash.New()
	out := &snapshotWriter{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)}
	out.fixed([]byte{snapshotVersion})
	out.u64(head.applied)
	out.u64(head.count)
	out.u64(head.hash)
	const stride = 1024
	written := uint64(0)
	for key, value := range records {
		if written%stride == 0 {
			if err := interrupted(); err != nil {
				return err
			}
		}
		written++
		out.bytes(key)
		out.bytes(value)
		if out.err != nil {
			return out.err
		}
	}
	if written != head.count {
		return fmt.Errorf("snapshot has %d keys, expected %d", written, head.count)
	}
	out.dedup(dedup)
	if err := out.flush(); err != nil {
		return err
	}
	_, err := w.Write(binary.LittleEndian.AppendUint64(nil, sum.Sum64()))
	return err
}

// snapshotWriter keeps the first error and writes nothing after it.
type snapshotWriter struct {
	w   *bufio.Writer
	buf [binary.MaxVarintLen64]byte
	err error
}

func (s *snapshotWriter) fixed(b []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
}

func (s *snapshotWriter) u64(v uint64) {
	binary.LittleEndian.PutUint64(s.buf[:8], v)
	s.fixed(s.buf[:8])
}

func (s *snapshotWriter) uvarint(v uint64) {
	s.fixed(s.buf[:binary.PutUvarint(s.buf[:], v)])
}

func (s *snapshotWriter) bytes(b []byte) {
	s.uvarint(uint64(len(b)))
	s.fixed(b)
}

func (s *snapshotWriter) dedup(t *dedupTable) {
	s.uvarint(uint64(len(t.origins)))
	for _, id := range t.ids() {
		o := t.origins[id]
		words := o.words()
		s.uvarint(id)
		s.uvarint(o.epoch)
		s.uvarint(o.low)
		s.uvarint(uint64(len(words)))
		for _, w := range words {
			s.u64(w)
		}
	}
}

func (s *snapshotWriter) flush() error {
	if s.err == nil {
		s.err = s.w.Flush()
	}
	return s.err
}

// words returns the applied sequences counted from low.
func (o *originState) words() []uint64 {
	words := make([]uint64, (o.top-o.low+63)/64)
	for seq := o.low; seq < o.top; seq++ {
		if word, bit := o.at(seq); *word&bit != 0 {
			words[(seq-o.low)/64] |= 1 << ((seq - o.low) % 64)
		}
	}
	return words
}

// snapshotReader reads a snapshot: head, then next until io.EOF, then dedup.
type snapshotReader struct {
	in    *bufio.Reader
	sum   *xxhash.Digest
	one   [1]byte
	left  uint64 // records
	key   []byte
	value []byte
	dedup *dedupTable // set when next has returned io.EOF
}

// newSnapshotReader reads the head. Nothing of a snapshot may be trusted before
// next has returned io.EOF, which it does only after the checksum was right.
func newSnapshotReader(r io.Reader) (*snapshotReader, snapshotHead, error) {
	s := &snapshotReader{in: bufio.NewReaderSize(r, 64<<10), sum: xxhash.New()}
	var raw [snapshotHeader]byte
	if err := s.fixed(raw[:1]); err != nil {
		return nil, snapshotHead{}, err
	}
	if raw[0] != snapshotVersion {
		return nil, snapshotHead{}, &versionError{what: "snapshot", got: raw[0], want: snapshotVersion}
	}
	if err := s.fixed(raw[1:]); err != nil {
		return nil, snapshotHead{}, err
	}
	head := snapshotHead{
		applied: binary.LittleEndian.Uint64(raw[1:]),
		count:   binary.LittleEndian.Uint64(raw[9:]),
		hash:    binary.LittleEndian.Uint64(raw[17:]),
	}
	s.left = head.count
	return s, head, nil
}

// next returns a record, valid until the next call, or io.EOF after the last one
// when all that follows it was read and found right.
func (s *snapshotReader) next() (key, value []byte, err error) {
	if s.left == 0 {
		if err := s.tail(); err != nil {
			return nil, nil, err
		}
		return nil, nil, io.EOF
	}
	s.left--
	if s.key, err = s.bytes(s.key[:0], maxCommandKey); err != nil {
		return nil, nil, err
	}
	if s.value, err = s.bytes(s.value[:0], maxCommandValue); err != nil {
		return nil, nil, err
	}
	return s.key, s.value, nil
}

// tail reads what comes after the records.
func (s *snapshotReader) tail() error {
	count, err := s.uvarint()
	if err != nil {
		return err
	}
	if count > maxOrigins {
		return fmt.Errorf("%w: %d origins", errSnapshotDamaged, count)
	}
	table := newDedupTable()
	for range count {
		id, o, err := s.origin()
		if err != nil {
			return err
		}
		if table.origins[id] != nil {
			return fmt.Errorf("%w: origin %d twice", errSnapshotDamaged, id)
		}
		table.origins[id] = o
	}
	want := s.sum.Sum64()
	var raw [8]byte
	if err := s.fixed(raw[:]); err != nil {
		return err
	}
	if got := binary.LittleEndian.Uint64(raw[:]); got != want {
		return fmt.Errorf("%w: checksum %016x, its content has %016x", errSnapshotDamaged, got, want)
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: it goes on after its end (%v)", errSnapshotDamaged, err)
	}
	s.dedup = table
	return nil
}

func (s *snapshotReader) origin() (id uint64, o *originState, err error) {
	var numbers [4]uint64
	for i := range numbers {
		if numbers[i], err = s.uvarint(); err != nil {
			return 0, nil, err
		}
	}
	id, words := numbers[0], numbers[3]
	o = &originState{epoch: numbers[1], low: numbers[2], top: numbers[2]}
	if id == 0 || o.epoch == 0 || o.low == 0 || o.low > maxSequence || words > windowWords {
		return 0, nil, fmt.Errorf("%w: origin %d, epoch %d, low %d, %d words", errSnapshotDamaged, id, o.epoch, o.low, words)
	}
	for i := range words {
		var raw [8]byte
		if err := s.fixed(raw[:]); err != nil {
			return 0, nil, err
		}
		w := binary.LittleEndian.Uint64(raw[:])
		for bit := range uint64(64) {
			if w&(1<<bit) != 0 {
				seq := o.low + i*64 + bit
				word, mask := o.at(seq)
				*word |= mask
				o.top = seq + 1
			}
		}
	}
	return id, o, nil
}

// fixed fills b and counts it in the checksum.
func (s *snapshotReader) fixed(b []byte) error {
	if _, err := io.ReadFull(s.in, b); err != nil {
		return s.readError(err)
	}
	s.sum.Write(b)
	return nil
}

func (s *snapshotReader) uvarint() (uint64, error) {
	v, err := binary.ReadUvarint(countingReader{s})
	if err != nil {
		return 0, s.readError(err)
	}
	return v, nil
}

// bytes appends a field to dst. Memory is claimed as the bytes arrive, so that a
// wrong length costs no more than what is there.
func (s *snapshotReader) bytes(dst []byte, limit int) ([]byte, error) {
	n, err := s.uvarint()
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, fmt.Errorf("%w: a field of %d bytes", errSnapshotDamaged, n)
	}
	const step = 64 << 10
	for left := int(n); left > 0; {
		chunk := min(left, step)
		start := len(dst)
		dst = append(dst, make([]byte, chunk)...)
		if err := s.fixed(dst[start:]); err != nil {
			return nil, err
		}
		left -= chunk
	}
	return dst, nil
}

func (s *snapshotReader) readError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends too early", errSnapshotDamaged)
	}
	return err
}

// countingReader reads single bytes into the checksum.
type countingReader struct{ s *snapshotReader }

func (c countingReader) ReadByte() (byte, error) {
	b, err := c.s.in.ReadByte()
	if err == nil {
		c.s.one[0] = b
		c.s.sum.Write(c.s.one[:])
	}
	return b, err
}
