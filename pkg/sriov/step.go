package sriov

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// WriterName begins the kinds of the steps of this package.
const WriterName = "sriov"

// The properties that steps move. The target of each is a PF, by its address;
// the item of all but the first two is the index of a VF. A property of a VF
// that is only made by the plan was null before.
const (
	kindVFs        = WriterName + "/vfs"        // vfSet
	kindAutoprobe  = WriterName + "/autoprobe"  // bool
	kindAttributes = WriterName + "/attributes" // Attributes
	kindDriver     = WriterName + "/driver"     // binding
	kindMTU        = WriterName + "/mtu"        // int
)

// vfSet is how many VFs a PF has, and what those that there were before looked
// like: what is destroyed can be made again only from that.
type vfSet struct {
	Count int       `json:"count"`
	VFs   []setting `json:"vfs,omitempty"`
}

// setting is what is set of one VF.
type setting struct {
	Index      int        `json:"index"`
	Binding    binding    `json:"binding,omitzero"`
	Attributes Attributes `json:"attributes,omitzero"`
}

// binding is who drives a VF, and what goes with its driver.
type binding struct {
	Driver   string `json:"driver,omitempty"`
	Override string `json:"override,omitempty"`
	MTU      int    `json:"mtu,omitempty"` // of its interface
}

// Drivers that are not named.
const (
	kernelsChoice = "(kernel's choice)" // the one that the kernel picks by itself
	anyOrNone     = "(any)"             // the same, and it may pick none
	noDriver      = "(none)"            // it has none
)

func namedDriver(driver string) bool { return driver != "" && !strings.HasPrefix(driver, "(") }

// snapshot is what has to be known to make the VFs of a PF again.
func snapshot(pf PFState) vfSet {
	set := vfSet{Count: pf.NumVFs}
	for i := range pf.VFs {
		vf := &pf.VFs[i]
		set.VFs = append(set.VFs, setting{Index: vf.Index, Binding: bindingOf(vf), Attributes: vf.Attributes})
	}
	return set
}

func bindingOf(vf *VFState) binding {
	driver := vf.Driver
	if driver == "" {
		driver = noDriver
	}
	return binding{driver, vf.Override, vf.MTU}
}

// satisfies reports whether a VF has the driver that is wanted.
func (b binding) satisfies(want string) bool {
	switch want {
	case "":
		return true
	case kernelsChoice, anyOrNone:
		return b.Driver != noDriver && !isVFIO(b.Driver, nil)
	}
	return b.Driver == want
}

// newStep makes a step that harms nobody, unless its planner says so.
func newStep(kind, pf, item, policy string, was, want any, text string) reconcile.Step {
	return reconcile.Step{
		Kind: kind, Target: pf, Item: item, Policy: policy,
		Was: reconcile.Value(was), Want: reconcile.Value(want), Disruption: reconcile.None, Text: text,
	}
}

func vfItem(index int) string { return strconv.Itoa(index) }

func itemVF(item string) (int, error) {
	index, err := strconv.Atoi(item)
	if err != nil || index < 0 || index >= maxVFs {
		return 0, fmt.Errorf("item %q of a step: want the index of a VF", item)
	}
	return index, nil
}

// known reads a value, unless it is null.
func known[T any](value []byte) (v T, is bool, err error) {
	if reconcile.Same(value, nil) {
		return v, false, nil
	}
	v, err = reconcile.Read[T](value)
	return v, err == nil, err
}
