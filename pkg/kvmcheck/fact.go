package kvmcheck

import "cmp"

// Fact is a part of [Facts] that says of itself whether it is known.
type Fact interface {
	// Undecided says why nobody can tell, naming the path; it is empty when
	// the fact is known, wholly.
	Undecided() string
}

// Undecided implements [Fact]. A list that could be read in part is not
// known wholly.
func (r Reading[T]) Undecided() string {
	if r.Err == "" && !r.Known {
		return cmp.Or(r.Source, "a fact") + ": not known"
	}
	return r.Err
}

// Undecided implements [Fact]: a node that could not be looked at, or
// failed to open in a way that says nothing.
func (n Node) Undecided() string {
	if n.State == NodeRefused {
		return whyUnknown(refusedNode("", "", n, ""))
	}
	if n.State == NodeUnknown {
		return cmp.Or(n.Err, cmp.Or(n.Path, "a device node")+": not known")
	}
	return ""
}

// Undecided implements [Fact]: a proof that came to no verdict.
func (p Proof) Undecided() string {
	return whyUnknown(evaluateProof(Facts{KVM: KVMFacts{Proof: p}}))
}

func whyUnknown(finding Finding) string {
	if finding.Status != Unknown {
		return ""
	}
	return cmp.Or(finding.Message, "not known")
}
