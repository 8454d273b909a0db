package sqlrewrite

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// site is a call and where it stands.
type site struct {
	call *pg_query.FuncCall
	// around are the nodes around the call, the statement first.
	around []step
}

// step is a node and the field of it that leads on to the call.
type step struct {
	node  protoreflect.Message
	field protoreflect.Name
}

// findCalls walks the whole statement and gives every call whose name stands at one of the places, in
// the order of the text.
func findCalls(raw *pg_query.RawStmt, names []int) []site {
	w := walker{names: names}
	w.message(raw.ProtoReflect())
	slices.SortFunc(w.sites, func(a, b site) int { return int(a.call.Location - b.call.Location) })
	// In UPDATE t SET (a, b) = (SELECT ...) the tree has the sub-select once for each column.
	return slices.CompactFunc(w.sites, func(a, b site) bool { return a.call.Location == b.call.Location })
}

type walker struct {
	names []int
	path  []step
	sites []site
}

func (w *walker) message(m protoreflect.Message) {
	if call, ok := m.Interface().(*pg_query.FuncCall); ok && w.isOurs(call) {
		w.sites = append(w.sites, site{call, slices.Clone(w.path)})
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if field.Message() == nil {
			return true
		}
		// A Node is a wrapper around one other node and says nothing by itself.
		_, wrapper := m.Interface().(*pg_query.Node)
		if !wrapper {
			w.path = append(w.path, step{m, field.Name()})
		}
		if field.IsList() {
			for i, list := 0, v.List(); i < list.Len(); i++ {
				w.message(list.Get(i).Message())
			}
		} else {
			w.message(v.Message())
		}
		if !wrapper {
			w.path = w.path[:len(w.path)-1]
		}
		return true
	})
}

// hasColumn reports whether there is a column in what is below a node.
func hasColumn(m protoreflect.Message) bool {
	return below(m, func(m protoreflect.Message) (found, skip bool) {
		_, found = m.Interface().(*pg_query.ColumnRef)
		return found, false
	})
}

// hasOwnColumn is hasColumn without what is in sub-selects.
func hasOwnColumn(m protoreflect.Message) bool {
	return below(m, func(m protoreflect.Message) (found, skip bool) {
		_, found = m.Interface().(*pg_query.ColumnRef)
		_, skip = m.Interface().(*pg_query.SelectStmt)
		return found, skip
	})
}

// hasScalarSubselect reports whether a sub-select stands for a value in what is below a node.
func hasScalarSubselect(m protoreflect.Message) bool {
	return below(m, func(m protoreflect.Message) (found, skip bool) {
		l, ok := m.Interface().(*pg_query.SubLink)
		return ok && l.SubLinkType == pg_query.SubLinkType_EXPR_SUBLINK, false
	})
}

// below reports whether a node, or one below it, is what is looked for. What is below one that is to be skipped is not looked at.
func below(m protoreflect.Message, is func(protoreflect.Message) (found, skip bool)) bool {
	found, skip := is(m)
	if found || skip {
		return found
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i, list := 0, v.List(); i < list.Len() && !found; i++ {
				found = below(list.Get(i).Message(), is)
			}
		default:
			found = below(v.Message(), is)
		}
		return !found
	})
	return found
}

// isOurs reports whether a call is one of raftable or public.raftable, written so that it can be read.
func (w *walker) isOurs(call *pg_query.FuncCall) bool {
	if _, found := slices.BinarySearch(w.names, int(call.Location)); !found {
		return false
	}
	switch name := call.Funcname; len(name) {
	case 1:
		return name[0].GetString_().GetSval() == word
	case 2:
		return name[0].GetString_().GetSval() == "public" && name[1].GetString_().GetSval() == word
	}
	return false
}

// has reports whether m has no other fields set than those named. A field that nobody thought of makes
// a node something else than what it looks like.
func has(m proto.Message, fields ...protoreflect.Name) bool {
	only := true
	r := m.ProtoReflect()
	r.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		only = slices.Contains(fields, field.Name())
		return only
	})
	return only && len(r.GetUnknown()) == 0
}
