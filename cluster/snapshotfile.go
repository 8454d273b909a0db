package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/lni/dragonboat/v4/config"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// Dragonboat keeps a snapshot in a file of its own format: a header in the first
// 1024 bytes, the content in blocks of 2 MiB, each with its CRC-32 behind it, and
// 16 bytes at the end. It ends the process when it meets a wrong checksum, so the
// file is read before dragonboat does.
const (
	fileHeader  = 1024
	fileBlock   = 2 << 20
	fileTail    = 16
	fileVersion = 2
)

// checkSnapshotFile reads a whole snapshot file and compares its checksums.
func checkSnapshotFile(fs config.IFS, name string, size uint64) (err error) {
	info, err := fs.Stat(name)
	if err != nil {
		return err
	}
	if uint64(info.Size()) != size || size < fileHeader+fileTail {
		return fmt.Errorf("%s has %d bytes, not %d", name, info.Size(), size)
	}
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	// The header's own parser may panic on damage.
	if err := noPanic(func() error { return checkSnapshotHeader(f) }); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	left := size - fileHeader - fileTail
	block := make([]byte, min(left, fileBlock+crc32.Size))
	for n := 0; left > 0; n++ {
		b := block[:min(left, uint64(len(block)))]
		if _, err := io.ReadFull(f, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !checkBlock(b) {
			return fmt.Errorf("%s: block %d has a wrong checksum", name, n)
		}
		left -= uint64(len(b))
	}
	return nil
}

func checkBlock(b []byte) bool {
	if len(b) <= crc32.Size {
		return false
	}
	body := b[:len(b)-crc32.Size]
	return binary.BigEndian.Uint32(b[len(body):]) == crc32.ChecksumIEEE(body)
}

func checkSnapshotHeader(r io.Reader) error {
	raw := make([]byte, fileHeader)
	if _, err := io.ReadFull(r, raw); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint64(raw)
	if size > fileHeader-8 {
		return fmt.Errorf("the header has %d bytes", size)
	}
	var h pb.SnapshotHeader
	if err := h.Unmarshal(raw[8 : 8+size]); err != nil {
		return err
	}
	if h.Version != fileVersion || h.ChecksumType != pb.CRC32IEEE {
		return fmt.Errorf("the header has version %d and checksums of type %d", h.Version, h.ChecksumType)
	}
	sum := h.HeaderChecksum
	h.HeaderChecksum = nil
	bare, err := h.Marshal()
	if err != nil {
		return err
	}
	if !bytes.Equal(sum, binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(bare))) {
		return fmt.Errorf("the header has a wrong checksum")
	}
	return nil
}
