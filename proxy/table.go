package proxy

import "context"

// Table is what the proxy needs of the replicated table. All methods are safe for concurrent use. Keys and values are UTF-8.
//
// An error may carry what a client is told beyond its text: see StateError. An error without a state reaches the client
// as an internal error (XX000).
type Table interface {
	// Get appends the local replica's value of key to dst. It does not keep key and does not block.
	Get(dst, key []byte) (out []byte, found bool)
	// List yields all rows of one applied index of the local replica, in bytewise key order, until yield returns false.
	// The slices are valid during the call of yield only.
	List(yield func(key, value []byte) bool)
	// Set returns when key has the value on the local replica. It does not keep key or value after it returns.
	Set(ctx context.Context, key, value []byte) error
	// Delete returns when key is gone from the local replica; deleting what is not there is no error.
	Delete(ctx context.Context, key []byte) error
	// SetAll sets many keys in order, or deletes those whose value is nil. It returns when the first applied of them are
	// visible on the local replica, with nil for all of them and otherwise with the error of the next one: it and those
	// after it are not applied, unless the error says that this is unknown. The slices are as long as each other; they and
	// what they hold must not change before it returns, and are not kept.
	SetAll(ctx context.Context, keys, values [][]byte) (applied int, err error)
	// Barrier returns when the local replica has applied everything that was acknowledged anywhere before the call.
	Barrier(ctx context.Context) error
}

// StateError is implemented by table errors that say what PostgreSQL's error fields should be. Error() is the message.
type StateError interface {
	error
	// SQLState is the five-character code.
	SQLState() string
	// Detail says what is known of the outcome; "" for no such field.
	Detail() string
	// Hint says what to do; "" for no such field.
	Hint() string
}
