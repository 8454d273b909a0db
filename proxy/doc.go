// Package proxy speaks PostgreSQL's wire protocol to clients and to one PostgreSQL server (the upstream). It forwards what
// passes through as the bytes it came in, and answers statements made of raftable() calls itself, from a Table. It must not
// know where a table's rows live or how they are replicated, and it must not know SQL beyond what package sqlrewrite tells it.
//
// The way of a message from the client: an event loop (type loop), or in a session with TLS a goroutine of its own
// (readLoop), reads what the socket has, frontend.feed walks the message headers in it, everything but Query and Parse
// (and, in a session with statements of our own, the rest of the extended protocol) goes on unread, and a Query or Parse
// that contains the word raftable is looked up in the plan cache. From the server: backend.feed walks the headers, keeps
// the account of what the server still owes (type owed), and passes the bytes on.
//
// A statement that needs postgres and the table is sent with values put in (type remote; type batch for simple queries), and
// what the server answers is changed on its way back as a reply says.
//
// What an event loop runs must not block before it has left the loop, see type side.
//
// An answer of our own never overtakes one of the server's: it waits until the server owes nothing (frontend.settle) and
// is written between two messages, under the client's write lock.
package proxy
