package proxy

import (
	"context"
	"sort"
	"sync"
	"unicode/utf8"
)

// mapTable is a Table in a map. block, if set, is called by every Set, Delete and Barrier before it takes effect,
// and by SetAll for each of its keys.
type mapTable struct {
	mu    sync.RWMutex
	rows  map[string]string
	block func(ctx context.Context) error
}

func newMapTable() *mapTable { return &mapTable{rows: map[string]string{}} }

type mapError struct{ code, message, detail string }

func (e *mapError) Error() string    { return e.message }
func (e *mapError) SQLState() string { return e.code }
func (e *mapError) Detail() string   { return e.detail }
func (e *mapError) Hint() string     { return "" }

func (t *mapTable) Get(dst, key []byte) ([]byte, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.rows[string(key)]
	return append(dst, v...), ok
}

func (t *mapTable) List(yield func(key, value []byte) bool) {
	t.mu.RLock()
	keys := make([]string, 0, len(t.rows))
	values := make([]string, 0, len(t.rows))
	for k := range t.rows {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		values = append(values, t.rows[k])
	}
	t.mu.RUnlock()
	for i, k := range keys {
		if !yield([]byte(k), []byte(values[i])) {
			return
		}
	}
}

func (t *mapTable) wait(ctx context.Context) error {
	t.mu.RLock()
	block := t.block
	t.mu.RUnlock()
	if block == nil {
		return nil
	}
	return block(ctx)
}

func (t *mapTable) Set(ctx context.Context, key, value []byte) error {
	if utf8.RuneCount(key) > 64 {
		return &mapError{code: "22001", message: "value too long for type character varying(64)"}
	}
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[string(key)] = string(value)
	return nil
}

func (t *mapTable) Delete(ctx context.Context, key []byte) error {
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rows, string(key))
	return nil
}

func (t *mapTable) SetAll(ctx context.Context, keys, values [][]byte) (applied int, err error) {
	for i, key := range keys {
		if values[i] == nil {
			err = t.Delete(ctx, key)
		} else {
			err = t.Set(ctx, key, values[i])
		}
		if err != nil {
			return i, err
		}
	}
	return len(keys), nil
}

func (t *mapTable) Barrier(ctx context.Context) error { return t.wait(ctx) }

// put sets a key without asking anybody.
func (t *mapTable) put(key, value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[key] = value
}

func (t *mapTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.rows)
}
