package sqlrewrite

import (
	"fmt"
	"strings"
)

const (
	// maxParams is what the protocol can number.
	maxParams = 65535
	// maxArguments is PostgreSQL's limit of function arguments.
	maxArguments = 100
)

// signature is that of the function with the most arguments; the others have fewer of the same.
var signature = [...]struct {
	name string
	oid  uint32
}{{"key", oidVarchar}, {"value", oidText}, {"timeout_ms", oidInt4}}

// resolver gives calls and parameters their types in the order in which PostgreSQL does.
type resolver struct {
	types []uint32 // of $1, $2, ...; 0 where it is still open
	// conflict is the first use of a parameter as another type than it has. It depends on the types
	// that the client declares.
	conflict *Refusal
}

// resolveStatically resolves the calls of a text for which the client has declared no types.
func (l *Local) resolveStatically() *Refusal {
	r := resolver{}
	for i := range l.calls {
		if refusal := r.call(&l.calls[i]); refusal != nil {
			return refusal
		}
	}
	for _, oid := range r.types {
		t := ParamNone
		switch oid {
		case oidVarchar:
			t = ParamKey
		case oidText:
			t = ParamValue
		case oidInt4:
			t = ParamTimeout
		}
		l.Params = append(l.Params, t)
	}
	return nil
}

// ResolveParams combines the types that a Parse message declares with those that the text deduces. It
// gives the type OID of every parameter that is used or declared: 0 where neither says anything, for
// which PostgreSQL's error is 42P18. The refusal is that of a text that cannot be served with these
// types. The plan is not changed.
func (l *Local) ResolveParams(declared []uint32) (types []uint32, refusal *Refusal) {
	r := resolver{types: make([]uint32, max(len(declared), len(l.Params)))}
	for i, oid := range declared {
		if oid != oidUnknown {
			r.types[i] = oid
		}
	}
	for _, c := range l.calls {
		c.args = append([]argument(nil), c.args...)
		if refusal := r.call(&c); refusal != nil {
			return nil, refusal
		}
		if r.conflict != nil {
			return nil, r.conflict
		}
	}
	return r.types, nil
}

// RefuseParams gives the error of a text with parameters where there can be none, as in a simple query.
// It is nil if no parameter is used.
func (l *Local) RefuseParams() *Refusal {
	for _, c := range l.calls {
		for _, a := range c.args {
			if a.isParam {
				return noParameter(a.param, a.pos)
			}
		}
	}
	return nil
}

func noParameter(n, pos int) *Refusal { return fail(pos, "42P02", "there is no parameter $%d", n) }

// call finds the function that is called, with PostgreSQL's errors if there is none, and settles the
// types of the parameters in it.
func (r *resolver) call(c *call) *Refusal {
	actual, refusal := r.actualTypes(c)
	if refusal != nil {
		return refusal
	}
	if len(c.args) > maxArguments {
		return fail(c.pos, "54023", "cannot pass more than %d arguments to a function", maxArguments)
	}
	if refusal := c.checkNames(); refusal != nil {
		return refusal
	}
	if refusal := c.match(actual); refusal != nil {
		return refusal
	}
	if refusal := c.checkClauses(); refusal != nil {
		return refusal
	}
	return r.settle(c, actual)
}

// param gives the place of a parameter's type.
func (r *resolver) param(n int) *uint32 {
	for len(r.types) < n {
		r.types = append(r.types, oidUnresolved)
	}
	return &r.types[n-1]
}

// actualTypes gives the types of the arguments before it is known what is called. A cast settles the
// type of an open parameter and converts a constant.
func (r *resolver) actualTypes(c *call) ([]uint32, *Refusal) {
	actual := make([]uint32, len(c.args))
	for i := range c.args {
		a := &c.args[i]
		actual[i] = a.textType()
		if !a.isParam {
			if actual[i] == oidInt4 && a.oid == oidUnresolved {
				if refusal := a.toInt4(); refusal != nil {
					return nil, refusal
				}
			}
			continue
		}
		if a.param < 1 || a.param > maxParams {
			return nil, noParameter(a.param, a.pos)
		}
		has := r.param(a.param)
		if len(a.casts) == 0 {
			actual[i] = *has
			continue
		}
		if *has == oidUnresolved {
			*has = a.casts[0]
		}
		if fitOf(*has, a.casts[0]) != fits {
			return nil, refuseArgument(c.pos)
		}
	}
	return actual, nil
}

// checkNames checks the named notation.
func (c *call) checkNames() *Refusal {
	for i, a := range c.args {
		for _, before := range c.args[:i] {
			switch {
			case a.name == "" && before.name != "":
				return fail(a.pos, "42601", "positional argument cannot follow named argument")
			case a.name != "" && a.name == before.name:
				return fail(a.namePos, "42601", "argument name \"%s\" used more than once", a.name)
			}
		}
	}
	return nil
}

// match finds out which function parameter each argument is, and whether the types allow that. One
// argument that does not fit decides, whatever the others are.
func (c *call) match(actual []uint32) *Refusal {
	worst := fits
	if len(c.args) > len(signature) {
		worst = fitsNot
	}
	for i := range c.args {
		if _, known := typeName(actual[i]); !known {
			return refuseArgument(c.pos)
		}
		a, f := &c.args[i], fitsNot
		if a.slot = c.slotOf(i); a.slot >= 0 {
			f = fitOf(actual[i], signature[a.slot].oid)
		}
		if f == fitsNot || worst == fits {
			worst = f
		}
	}
	switch worst {
	case fitsNot:
		return c.doesNotExist(actual)
	case fitsPerhaps:
		return refuseArgument(c.pos)
	}
	return nil
}

// slotOf gives the function parameter of argument i, of the function that has as many parameters as
// there are arguments; -1 if it has none of that name beyond those given by position.
func (c *call) slotOf(i int) int {
	if c.args[i].name == "" {
		return min(i, len(signature)-1)
	}
	for slot := range min(len(c.args), len(signature)) {
		if signature[slot].name == c.args[i].name && c.args[slot].name != "" {
			return slot
		}
	}
	return -1
}

func (c *call) doesNotExist(actual []uint32) *Refusal {
	types := make([]string, len(actual))
	for i, oid := range actual {
		types[i], _ = typeName(oid)
		if name := c.args[i].name; name != "" {
			types[i] = name + " => " + types[i]
		}
	}
	f := fail(c.pos, "42883", "function %s(%s) does not exist", c.name, strings.Join(types, ", "))
	f.Hint = "No function matches the given name and argument types. You might need to add explicit type casts."
	return f
}

// checkClauses refuses what only aggregate and window functions can have.
func (c *call) checkClauses() *Refusal {
	switch {
	case c.star:
		return fail(c.pos, "42809", "%s(*) specified, but %s is not an aggregate function", c.name, c.name)
	case c.distinct:
		return fail(c.pos, "42809", "DISTINCT specified, but %s is not an aggregate function", c.name)
	case c.over:
		return fail(c.pos, "42809", "OVER specified, but %s is not a window function nor an aggregate function", c.name)
	}
	return nil
}

// settle gives untyped constants and parameters the types of the function's parameters.
func (r *resolver) settle(c *call, actual []uint32) *Refusal {
	for i := range c.args {
		a, wanted := &c.args[i], signature[c.args[i].slot].oid
		if actual[i] != oidUnresolved {
			continue
		}
		if !a.isParam {
			if wanted == oidInt4 {
				if refusal := a.toInt4(); refusal != nil {
					return refusal
				}
			}
			continue
		}
		switch has := r.param(a.param); *has {
		case oidUnresolved:
			*has = wanted
		case wanted:
		default:
			if r.conflict == nil {
				r.conflict = inconsistent(a, *has, wanted)
			}
		}
	}
	return nil
}

func inconsistent(a *argument, has, wanted uint32) *Refusal {
	f := fail(a.pos, "42P08", "inconsistent types deduced for parameter $%d", a.param)
	first, _ := typeName(has)
	second, _ := typeName(wanted)
	f.Detail = fmt.Sprintf("%s versus %s", first, second)
	return f
}
