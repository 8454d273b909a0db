package proxy

import "github.com/raftproxy/raftproxy/sqlrewrite"

// openBlock opens a transaction block of ours in front of a statement that runs in a block only, if none is open: for it, that of
// a query string counts.
func (b *batch) openBlock(t *part) {
	if t.control == sqlrewrite.ControlNeedsBlock && len(b.prog.parts) > 1 && !b.block && !b.inBlock {
		b.block = true
		b.statement("BEGIN", quiet)
	}
}

// leaveBlock ends our block in front of a statement of which the server would see that it is one. Without it, the server has a
// warning for COMMIT and ROLLBACK, and an error for what else there is, as in the transaction of a query string.
func (b *batch) leaveBlock(t *part) {
	if !b.block {
		return
	}
	end := "ROLLBACK"
	switch t.control {
	case sqlrewrite.ControlCommit:
		end = "COMMIT"
	case sqlrewrite.ControlRollback, sqlrewrite.ControlWithin:
	default:
		return
	}
	b.block = false
	b.statement(end, quietAnswer)
}

// followBlock notes what a statement that was sent does to the transaction block. What begins a block takes ours over, as it takes
// over the transaction of a query string.
func (b *batch) followBlock(t *part) {
	switch t.control {
	case sqlrewrite.ControlBegin:
		b.block, b.inBlock = false, true
	case sqlrewrite.ControlCommit, sqlrewrite.ControlRollback, sqlrewrite.ControlPrepare:
		b.block, b.inBlock = false, false
	}
}

func rollbackMessages() []byte {
	b := simpleStatement("ROLLBACK")
	return append(append(b, executeUnnamed...), syncMessage...)
}
