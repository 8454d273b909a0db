package cluster

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var commands = []struct {
	c   command
	hex string
}{
	{command{op: opSet, origin: 1, epoch: 2, seq: 3, low: 3, key: []byte("k"), value: []byte("v")}, "01 01 01 02 03 03 01 6b 01 76"},
	{command{op: opSet, origin: 300, epoch: 1, seq: 1, low: 1, key: []byte{}, value: []byte{}}, "01 01 ac02 01 01 01 00 00"},
	{command{op: opDelete, origin: 1, epoch: 1, seq: 128, low: 100, key: []byte("ab")}, "01 02 01 01 8001 64 02 6162"},
	{command{op: opMany, origin: 1, epoch: 2, seq: 3, low: 3, many: []operation{
		{op: opSet, key: []byte("k"), value: []byte("v")}, {op: opDelete, key: []byte("ab")}, {op: opSet, key: []byte{}, value: []byte{}},
	}}, "02 03 01 02 03 03 03 01 01 6b 01 76 02 02 6162 01 00 00"},
}

// TestCommandBytes keeps the format from changing by accident.
func TestCommandBytes(t *testing.T) {
	for _, tc := range commands {
		want, err := hex.DecodeString(strings.ReplaceAll(tc.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := appendCommand(nil, &tc.c); !bytes.Equal(got, want) {
			t.Errorf("%+v: % x, want % x", tc.c, got, want)
		}
		if got, err := decodeCommand(want); err != nil || !reflect.DeepEqual(got, tc.c) {
			t.Errorf("% x: %+v (%v), want %+v", want, got, err, tc.c)
		}
		for n := range want {
			if _, err := decodeCommand(want[:n]); err == nil {
				t.Errorf("% x: no error", want[:n])
			}
		}
		if _, err := decodeCommand(append(bytes.Clone(want), 0)); !errors.Is(err, errCommandDamaged) {
			t.Errorf("with a byte too many: %v", err)
		}
	}
}

func TestCommandRefused(t *testing.T) {
	for name, h := range map[string]string{
		"no origin":             "01 01 00 01 01 01 00 00",
		"no epoch":              "01 01 01 00 01 01 00 00",
		"no low":                "01 01 01 01 01 00 00 00",
		"low above sequence":    "01 01 01 01 01 02 00 00",
		"low too far below":     "01 01 01 01 818004 01 00 00",
		"unknown operation":     "01 04 01 01 01 01 00 00",
		"many of version 1":     "01 03 01 01 01 01 01 02 00",
		"set of version 2":      "02 01 01 01 01 01 00 00",
		"many of none":          "02 03 01 01 01 01 00",
		"many in many":          "02 03 01 01 01 01 01 03 01 02 00",
		"fewer than counted":    "02 03 01 01 01 01 02 02 00",
		"more than counted":     "02 03 01 01 01 01 01 02 00 02 00",
		"more than fit":         "02 03 01 01 01 01 ffffffff7f 02 00",
		"key in many too long":  "02 03 01 01 01 01 01 02 ffffffff7f",
		"key beyond the end":    "01 02 01 01 01 01 05 61",
		"value beyond the end":  "01 01 01 01 01 01 00 05 61",
		"key longer than any":   "01 02 01 01 01 01 ffffffff7f",
		"number of eleven":      "01 02 ffffffffffffffffffffff01 01 01 01 00",
		"sequence out of reach": "01 02 01 01 ffffffffffffffffff01 ffffffffffffffffff01 00",
	} {
		raw, err := hex.DecodeString(strings.ReplaceAll(h, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := decodeCommand(raw); !errors.Is(err, errCommandDamaged) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	var version *versionError
	if _, err := decodeCommand([]byte{3, 1, 1, 1, 1, 1, 0, 0}); !errors.As(err, &version) {
		t.Errorf("another version: %v", err)
	}
}

// TestCountIsBounded: what a count makes the decoder allocate is bounded, in
// itself and by the bytes that follow.
func TestCountIsBounded(t *testing.T) {
	c := command{op: opMany, origin: 1, epoch: 1, seq: 1, low: 1, many: make([]operation, maxOperations)}
	for i := range c.many {
		c.many[i].op = opDelete
	}
	if _, err := decodeCommand(appendCommand(nil, &c)); err != nil {
		t.Error(err)
	}
	c.many = append(c.many, operation{op: opDelete})
	if _, err := decodeCommand(appendCommand(nil, &c)); !errors.Is(err, errCommandDamaged) {
		t.Errorf("one too many: %v", err)
	}
}

func FuzzCommand(f *testing.F) {
	for _, tc := range commands {
		f.Add(appendCommand(nil, &tc.c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		// What was understood must come out the same after another round.
		again, err := decodeCommand(appendCommand(nil, &c))
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v became %+v (%v)", c, again, err)
		}
		// And the state machine can decide on it.
		newDedupTable().admit(&c)
	})
}
