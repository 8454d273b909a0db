// Package cluster is the replicated key-value table: a Raft node, the state
// machine that applies its log to the shared-memory segment, and the rules of
// setting, reading and reporting. It knows nothing of PostgreSQL's wire
// protocol or of SQL text; SQLSTATE codes are all it borrows from there.
package cluster
