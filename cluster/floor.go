package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
)

// floor remembers how far the Raft log has surely come on this disk: entries up
// to an index were durable, and the term was. A log that has less than that at
// the next start was damaged, cut short or put back from a copy, and a member
// that has forgotten what it acknowledged or voted must not go on.
//
// The file is written without fsync, now and then. What it says may be old, but
// it is true whenever it was written, because the log was synced before. Two
// slots are written in turn, so that a torn write leaves the other one.
type floor struct {
	f     *os.File
	turn  uint64
	index uint64
	term  uint64
}

const (
	floorMagic  = "RPFLOOR\x01"
	floorRecord = 8 + 4*8 // magic, turn, index, term, checksum
	floorSlot   = 4096
)

var errFloorDamaged = errors.New("both records are damaged")

// openFloor reads the file, or makes an empty one.
func openFloor(name string) (*floor, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	fl := &floor{f: f}
	if err := fl.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w; if the log beside it is known to be whole, remove the file", name, err)
	}
	return fl, nil
}

func (fl *floor) read() error {
	valid, written := false, false
	for slot := range int64(2) {
		var raw [floorRecord]byte
		n, err := fl.f.ReadAt(raw[:], slot*floorSlot)
		if err != nil && err != io.EOF {
			return err
		}
		if n < floorRecord || raw == [floorRecord]byte{} {
			continue
		}
		written = true
		turn, index, term, ok := decodeFloor(raw[:])
		if ok && turn >= fl.turn {
			valid, fl.turn, fl.index, fl.term = true, turn, index, term
		}
	}
	if written && !valid {
		return errFloorDamaged
	}
	return nil
}

// raise records that entries up to index and the term are durable.
func (fl *floor) raise(index, term uint64) error {
	if index <= fl.index && term <= fl.term {
		return nil
	}
	fl.turn++
	fl.index, fl.term = max(index, fl.index), max(term, fl.term)
	_, err := fl.f.WriteAt(encodeFloor(fl.turn, fl.index, fl.term), int64(fl.turn%2)*floorSlot)
	return err
}

func (fl *floor) close() error { return fl.f.Close() }

func encodeFloor(turn, index, term uint64) []byte {
	b := []byte(floorMagic)
	b = binary.LittleEndian.AppendUint64(b, turn)
	b = binary.LittleEndian.AppendUint64(b, index)
	b = binary.LittleEndian.AppendUint64(b, term)
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
}

func decodeFloor(b []byte) (turn, index, term uint64, ok bool) {
	if len(b) != floorRecord || string(b[:8]) != floorMagic {
		return 0, 0, 0, false
	}
	body := b[:floorRecord-8]
	if binary.LittleEndian.Uint64(b[floorRecord-8:]) != xxhash.Sum64(body) {
		return 0, 0, 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:]), true
}
