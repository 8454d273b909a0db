package cluster

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is a key of the table for porcupine.
type (
	registerInput struct {
		op    byte // 'g' get, 's' set, 'd' delete
		key   string
		value string
	}
	registerOutput struct {
		found   bool
		value   string
		unknown bool // a set that may or may not have had its effect
	}
)

// register allows for each key what a key-value table allows. A set with an
// unknown outcome may take effect at any time after its call, or never.
var register = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byKey {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() []any { return []any{registerOutput{}} },
	Step: func(state, input, output any) []any {
		in, out := input.(registerInput), output.(registerOutput)
		after := registerOutput{found: in.op == 's', value: in.value}
		switch {
		case in.op == 'g' && out == state.(registerOutput):
			return []any{state}
		case in.op == 'g':
			return nil
		case out.unknown:
			return []any{state, after}
		}
		return []any{after}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// recorder runs one client and writes down what it did.
type recorder struct {
	id    int
	begin time.Time
	ops   []porcupine.Operation
}

func (r *recorder) run(ctx context.Context, t *testing.T, nodes func() *Node, rnd *rand.Rand) {
	for seq := 0; ctx.Err() == nil; seq++ {
		n := nodes()
		in := r.choose(seq, rnd)
		call := time.Since(r.begin)
		out, ok := r.do(t, n, in)
		if !ok {
			continue
		}
		end := int64(time.Since(r.begin))
		if out.unknown {
			end = int64(time.Hour)
		}
		for _, one := range in {
			r.ops = append(r.ops, porcupine.Operation{ClientId: r.id, Input: one, Call: int64(call), Output: out, Return: end})
		}
		if out.unknown {
			r.id += 1000 // for porcupine a client does one thing at a time
		}
	}
}

// choose returns what to do next: one thing, or sets and deletes of several keys
// together.
func (r *recorder) choose(seq int, rnd *rand.Rand) []registerInput {
	const keys = 4
	value := fmt.Sprintf("%d/%d", r.id, seq)
	if rnd.IntN(8) > 0 {
		in := registerInput{op: "gggsssd"[rnd.IntN(7)], key: fmt.Sprint("k", rnd.IntN(keys))}
		if in.op == 's' {
			in.value = value
		}
		return []registerInput{in}
	}
	var in []registerInput
	for _, k := range rnd.Perm(keys)[:2+rnd.IntN(keys-1)] {
		one := registerInput{op: "sssd"[rnd.IntN(4)], key: fmt.Sprint("k", k)}
		if one.op == 's' {
			one.value = value
		}
		in = append(in, one)
	}
	return in
}

// do returns ok false if the call surely had no effect.
func (r *recorder) do(t *testing.T, n *Node, in []registerInput) (out registerOutput, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var err error
	switch key := []byte(in[0].key); {
	case len(in) > 1:
		err = setTogether(ctx, n, in)
	case in[0].op == 'g':
		if err = n.Barrier(ctx); err == nil {
			value, found := n.Get(nil, key)
			return registerOutput{found: found, value: string(value)}, true
		}
	case in[0].op == 's':
		err = n.Set(ctx, key, []byte(in[0].value))
	case in[0].op == 'd':
		err = n.Delete(ctx, key)
	}
	if err == nil {
		return registerOutput{}, true
	}
	e, isOurs := err.(*Error)
	switch {
	case isOurs && e.Code == CodeOutcomeUnknown:
		return registerOutput{unknown: true}, true
	case isOurs && e.Code == CodeUnavailable:
		return registerOutput{}, false
	}
	t.Errorf("%+v: %s", in, describe(err))
	return registerOutput{}, false
}

// setTogether is few enough for one command, so its error is about all of it.
func setTogether(ctx context.Context, n *Node, in []registerInput) error {
	var keys, values [][]byte
	for _, one := range in {
		value := []byte(one.value)
		if one.op == 'd' {
			value = nil
		}
		keys, values = append(keys, []byte(one.key)), append(values, value)
	}
	_, err := n.SetAll(ctx, keys, values)
	return err
}

// echo keeps commands that were applied, to propose them again.
type echo struct {
	mu       sync.Mutex
	commands [][]byte
}

func (e *echo) keep(command []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.commands = append(e.commands, bytes.Clone(command))
}

// last returns one of the last few.
func (e *echo) last() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.commands) == 0 {
		return nil
	}
	return e.commands[len(e.commands)-1-rand.IntN(min(len(e.commands), 50))]
}

// TestLinearizable has clients on three nodes, every proposal made twice at once
// and now and then again later, while leaders are stopped and started again.
func TestLinearizable(t *testing.T) {
	var echoed echo
	g := startGroup(t, 3, func(c *Config) {
		c.SnapshotEntries, c.CompactionOverhead = 200, 20
		c.test.proposeMore = 1
		c.test.applied = echoed.keep
	})
	var mu sync.Mutex // over g.nodes
	pick := func(rnd *rand.Rand) func() *Node {
		return func() *Node {
			for {
				mu.Lock()
				n := g.nodes[rnd.Uint64N(3)+1]
				mu.Unlock()
				if n != nil {
					return n
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	begin := time.Now()
	recorders := make([]*recorder, 9)
	var wg sync.WaitGroup
	for i := range recorders {
		recorders[i] = &recorder{id: i, begin: begin}
		rnd := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
		wg.Go(func() { recorders[i].run(ctx, t, pick(rnd), rnd) })
	}
	wg.Go(func() {
		node := pick(rand.New(rand.NewPCG(rand.Uint64(), 1)))
		for tick := time.NewTicker(3 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			if command := echoed.last(); command != nil {
				node().propose(command, time.Second)
			}
		}
	})
	for range 2 {
		bounceLeaderAfter(t, g, &mu, 150)
	}
	waitApplied(t, g.nodes[1], 100)
	cancel()
	wg.Wait()
	checkHistory(t, recorders)
	g.agree()
}

// bounceLeaderAfter stops the leader when some commands are applied, and starts
// it when the others have gone on for as many.
func bounceLeaderAfter(t *testing.T, g *group, mu *sync.Mutex, commands uint64) {
	waitApplied(t, g.nodes[g.leader()], commands)
	leader := g.leader()
	mu.Lock()
	n := g.nodes[leader]
	delete(g.nodes, leader)
	mu.Unlock()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	waitApplied(t, g.nodes[g.leader()], commands)
	fresh, err := Start(g.configs[leader])
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	g.nodes[leader] = fresh
	mu.Unlock()
}

func checkHistory(t *testing.T, recorders []*recorder) {
	var history []porcupine.Operation
	unknown := 0
	for _, r := range recorders {
		for _, op := range r.ops {
			if op.Output.(registerOutput).unknown {
				unknown++
			}
		}
		history = append(history, r.ops...)
	}
	t.Logf("%d operations, %d with an unknown outcome", len(history), unknown)
	switch porcupine.CheckOperationsTimeout(register.ToModel(), history, 60*time.Second) {
	case porcupine.Illegal:
		t.Error("the history is not linearizable")
	case porcupine.Unknown:
		t.Error("the history could not be checked in time")
	}
}

// TestModelFindsFaults: a check that finds nothing proves nothing.
func TestModelFindsFaults(t *testing.T) {
	op := func(client int, call, end int64, in registerInput, out registerOutput) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end}
	}
	set := func(v string) registerInput { return registerInput{op: 's', key: "k", value: v} }
	get := registerInput{op: 'g', key: "k"}
	saw := func(v string) registerOutput { return registerOutput{found: true, value: v} }
	for name, tc := range map[string]struct {
		legal   bool
		history []porcupine.Operation
	}{
		"stale read":        {false, []porcupine.Operation{op(1, 0, 1, set("a"), registerOutput{}), op(1, 2, 3, set("b"), registerOutput{}), op(2, 4, 5, get, saw("a"))}},
		"applied twice":     {false, []porcupine.Operation{op(1, 0, 1, set("a"), registerOutput{}), op(1, 2, 3, set("b"), registerOutput{}), op(2, 4, 5, get, saw("b")), op(2, 6, 7, get, saw("a"))}},
		"lost":              {false, []porcupine.Operation{op(1, 0, 1, set("a"), registerOutput{}), op(2, 2, 3, get, registerOutput{})}},
		"fine":              {true, []porcupine.Operation{op(1, 0, 5, set("a"), registerOutput{}), op(2, 1, 2, get, registerOutput{}), op(2, 3, 4, get, saw("a"))}},
		"unknown, not seen": {true, []porcupine.Operation{op(1, 0, 99, set("a"), registerOutput{unknown: true}), op(2, 1, 2, get, registerOutput{})}},
		"unknown, seen":     {true, []porcupine.Operation{op(1, 0, 99, set("a"), registerOutput{unknown: true}), op(2, 1, 2, get, saw("a"))}},
	} {
		if got := porcupine.CheckOperations(register.ToModel(), tc.history); got != tc.legal {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDuplicateProposals: commands are proposed three times each, and once more
// when they are long answered.
func TestDuplicateProposals(t *testing.T) {
	g := startGroup(t, 3, func(c *Config) { c.test.proposeMore = 2 })
	n := g.nodes[g.leader()%3+1]
	old := appendCommand(nil, &command{
		op: opSet, origin: n.sess.origin, epoch: n.sess.epoch, seq: 1, low: 1, key: []byte("k"), value: []byte("0"),
	})
	for i := range 50 {
		mustSet(t, n, "k", fmt.Sprint(i))
		wantValue(t, n, "k", fmt.Sprint(i))
	}
	before := n.Status()
	for _, from := range g.nodes { // it makes no difference who proposes it
		for range 10 {
			if _, err := from.propose(old, time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	poll(t, "the duplicates are in the log", func() error {
		if got := n.Status().AppliedIndex; got < before.AppliedIndex+30 {
			return fmt.Errorf("index %d after %d", got, before.AppliedIndex)
		}
		return nil
	})
	if got := g.agree(); len(got) != 1 || got["k"] != "49" {
		t.Errorf("content is %q", got)
	}
	if hash := n.Status().StateHash; hash != before.StateHash {
		t.Errorf("state hash %s, was %s", hash, before.StateHash)
	}
}
