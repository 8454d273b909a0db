// Package compat proves that PostgreSQL's own programs and the drivers of many languages work through the proxy. It has
// tests only, and small client programs in testdata; it knows the proxy as a port that speaks PostgreSQL's protocol.
package compat
