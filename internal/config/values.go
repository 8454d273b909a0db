package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// Size is a number of bytes. As text it may have a unit; kB, MB and GB are powers of 1024, as in PostgreSQL's settings.
type Size int64

// sizeUnits are tried in this order, so that "B" does not hide the longer ones.
var sizeUnits = []struct {
	name  string
	shift uint
}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"kB", 10}, {"MB", 20}, {"GB", 30}, {"B", 0}, {"", 0}}

// UnmarshalText reads "1048576", "1MiB", "1 MB".
func (s *Size) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(in, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil {
			break
		}
		if n > math.MaxInt64>>unit.shift {
			return fmt.Errorf("%q is too large", in)
		}
		*s = Size(n << unit.shift)
		return nil
	}
	return fmt.Errorf("%q is not a size: write it like 1048576, 64kB or 16MiB", in)
}

// String writes the size with the largest unit that leaves it whole.
func (s Size) String() string {
	for _, unit := range []int{2, 1, 0} {
		u := sizeUnits[unit]
		if s >= 1<<u.shift && s%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(s>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Peers are the members of a group: node id to Raft address. As text: 1=host:port,2=host:port.
type Peers map[uint64]string

// Decode adds the members in one flag, one environment variable or one value of the file.
func (p *Peers) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("peers", &text); err != nil {
		return err
	}
	return p.add(text)
}

func (p *Peers) add(text string) error {
	if *p == nil {
		*p = Peers{}
	}
	for member := range strings.SplitSeq(text, ",") {
		member = strings.TrimSpace(member)
		if member == "" {
			continue
		}
		id, address, ok := strings.Cut(member, "=")
		n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 64)
		if !ok || err != nil {
			return fmt.Errorf("%q is not a member: write it like 1=10.0.0.1:7001", member)
		}
		if _, twice := (*p)[n]; twice {
			return fmt.Errorf("member %d is there twice", n)
		}
		(*p)[n] = strings.TrimSpace(address)
	}
	return nil
}

// String writes the members by id, as the flag takes them.
func (p Peers) String() string {
	members := make([]string, 0, len(p))
	for _, id := range slices.Sorted(maps.Keys(p)) {
		members = append(members, strconv.FormatUint(id, 10)+"="+p[id])
	}
	return strings.Join(members, ",")
}
