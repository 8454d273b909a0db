package oracle

import (
	"context"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"
)

// mapTable is the proxy's table in a map. It is safe for concurrent use.
type mapTable struct {
	mu    sync.Mutex
	rows  map[string]string
	stall bool // sets and barriers take no effect until their time is over
}

// tableError says what the oracle's functions say; see setup.sql.
type tableError struct{ code, message, detail string }

func (e *tableError) Error() string    { return e.message }
func (e *tableError) SQLState() string { return e.code }
func (e *tableError) Detail() string   { return e.detail }
func (e *tableError) Hint() string     { return "" }

// Get appends the value of key to dst.
func (t *mapTable) Get(dst, key []byte) ([]byte, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.rows[string(key)]
	return append(dst, v...), ok
}

// List yields the rows in the order of their keys.
func (t *mapTable) List(yield func(key, value []byte) bool) {
	rows := t.content()
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		if !yield([]byte(k), []byte(rows[k])) {
			return
		}
	}
}

// Barrier waits if the table is stalled.
func (t *mapTable) Barrier(ctx context.Context) error { return t.wait(ctx) }

func (t *mapTable) wait(ctx context.Context) error {
	t.mu.Lock()
	stall := t.stall
	t.mu.Unlock()
	if !stall {
		return nil
	}
	<-ctx.Done()
	return &tableError{code: "55000", message: "the table stands still", detail: "not applied"}
}

// Set gives key a value.
func (t *mapTable) Set(ctx context.Context, key, value []byte) error {
	if utf8.RuneCount(key) > 64 {
		return &tableError{code: "22001", message: "value too long for type character varying(64)"}
	}
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[string(key)] = string(value)
	return nil
}

// Delete removes key.
func (t *mapTable) Delete(ctx context.Context, key []byte) error {
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rows, string(key))
	return nil
}

// SetAll sets the keys one by one; a nil value deletes.
func (t *mapTable) SetAll(ctx context.Context, keys, values [][]byte) (applied int, err error) {
	for i, k := range keys {
		if values[i] == nil {
			err = t.Delete(ctx, k)
		} else {
			err = t.Set(ctx, k, values[i])
		}
		if err != nil {
			return i, err
		}
	}
	return len(keys), nil
}

func (t *mapTable) content() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.rows)
}

func (t *mapTable) fill(rows map[string]string, stall bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows, t.stall = maps.Clone(rows), stall
}
