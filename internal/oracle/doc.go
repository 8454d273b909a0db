// Package oracle proves what raftable() does wherever SQL lets a function stand. Every statement of testdata/sql/oracle,
// and many made at random, is run twice: through the proxy, on a database that has no such functions, and without it, on
// a database that has them in SQL over an ordinary table. The client must see the same messages. The package has tests
// only; it knows the proxy as a port, and nothing of how statements are classified or rewritten.
package oracle
