package kvmcheck

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// tscTolerance is by how much, in millionths, the frequencies of two TSCs may
// differ for KVM to take them for the same (tsc_tolerance_ppm of module kvm).
const tscTolerance = 250

// Comparison is how two hosts differ in what they can show to guests.
type Comparison struct {
	A           Reading[Fingerprint] `json:"a"`
	B           Reading[Fingerprint] `json:"b"`
	Differences []Difference         `json:"differences"`
	AToB        Migration            `json:"aToB"`
	BToA        Migration            `json:"bToA"`
}

// Difference is one thing that the hosts do not have alike.
type Difference struct {
	What string `json:"what"` // "avx2", "physical address bits"
	A    string `json:"a"`    // "yes" or "no" of a feature, or a value
	B    string `json:"b"`
}

// Migration says whether any guest of one host can go on living on the other:
// Ready when all that it may have seen exists there.
type Migration struct {
	Status Status   `json:"status"`
	Why    []string `json:"why,omitempty"` // what stops it, or leaves it open
}

// Compare finds out what differs between two hosts and in which direction
// live migration is safe. A guest may have seen everything that its host can
// show, as with the CPU model host-passthrough; one with a smaller model can
// go further than this says. Family and model stop nobody: KVM shows a guest
// any that it is told.
func Compare(a, b Reading[Fingerprint]) Comparison {
	c := Comparison{A: a, B: b, Differences: []Difference{}}
	if !a.Known || !b.Known {
		for name, side := range map[string]Reading[Fingerprint]{"A": a, "B": b} {
			if !side.Known {
				why := fmt.Sprintf("%s has no fingerprint: %s", name, side.Err)
				c.AToB.Why, c.BToA.Why = append(c.AToB.Why, why), append(c.BToA.Why, why)
			}
		}
		slices.Sort(c.AToB.Why)
		slices.Sort(c.BToA.Why)
		return c
	}
	c.AToB.Status, c.BToA.Status = Ready, Ready
	c.compareIdentity(a.Value, b.Value)
	c.compareFeatures(a.Value, b.Value)
	c.compareNumbers(a.Value, b.Value)
	c.compareTSC(a.Value, b.Value)
	return c
}

// Verdict is NotReady when one direction is unsafe, Unknown when one is open.
func (c Comparison) Verdict() Status {
	switch {
	case c.AToB.Status == NotReady || c.BToA.Status == NotReady:
		return NotReady
	case c.AToB.Status == Unknown || c.BToA.Status == Unknown:
		return Unknown
	default:
		return Ready
	}
}

func (m *Migration) stop(why string) {
	if m.Status != NotReady {
		m.Why = nil // what left it open does not matter any more
	}
	m.Status = NotReady
	m.Why = append(m.Why, why)
}

func (m *Migration) leaveOpen(why string) {
	if m.Status != NotReady {
		m.Status = Unknown
		m.Why = append(m.Why, why)
	}
}

func (c *Comparison) differ(what string, a, b any) {
	c.Differences = append(c.Differences, Difference{What: what, A: fmt.Sprint(a), B: fmt.Sprint(b)})
}

func (c *Comparison) compareIdentity(a, b Fingerprint) {
	if a.Vendor != b.Vendor {
		c.differ("vendor", a.Vendor, b.Vendor)
		c.AToB.stop("another vendor")
		c.BToA.stop("another vendor")
	}
	if a.Family != b.Family || a.Model != b.Model {
		c.differ("family and model", fmt.Sprintf("%d/%d", a.Family, a.Model), fmt.Sprintf("%d/%d", b.Family, b.Model))
	}
}

func (c *Comparison) compareFeatures(a, b Fingerprint) {
	for _, feature := range a.Features {
		if _, found := slices.BinarySearch(b.Features, feature); !found {
			c.differ(feature, "yes", "no")
			c.AToB.stop(feature)
		}
	}
	for _, feature := range b.Features {
		if _, found := slices.BinarySearch(a.Features, feature); !found {
			c.differ(feature, "no", "yes")
			c.BToA.stop(feature)
		}
	}
}

// compareNumbers lets a larger amount stand for a smaller one, and wants the
// same layout where both hosts have one: who has none lacks its feature, too.
func (c *Comparison) compareNumbers(a, b Fingerprint) {
	for _, name := range bothKeys(a.Amounts, b.Amounts) {
		switch inA, inB := a.Amounts[name], b.Amounts[name]; {
		case inA > inB:
			c.differ(name, inA, inB)
			c.AToB.stop(name)
		case inA < inB:
			c.differ(name, inA, inB)
			c.BToA.stop(name)
		}
	}
	for _, name := range bothKeys(a.Layout, b.Layout) {
		inA, hasA := a.Layout[name]
		inB, hasB := b.Layout[name]
		if hasA && hasB && inA != inB {
			c.differ(name, inA, inB)
			c.AToB.stop(name)
			c.BToA.stop(name)
		}
	}
}

func bothKeys(a, b map[string]uint64) []string {
	keys := slices.Concat(slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(b)))
	slices.Sort(keys)
	return slices.Compact(keys)
}

// compareTSC matters to guests that were promised a constant TSC (invtsc):
// they need the same frequency, or a host that scales.
func (c *Comparison) compareTSC(a, b Fingerprint) {
	const frequency, scaling, promise = "TSC frequency in kHz", "TSC scaling", "invtsc"
	if a.TSCScaling != b.TSCScaling {
		c.differ(scaling, yesNo(a.TSCScaling), yesNo(b.TSCScaling))
	}
	unknown := !a.TSCKHz.Known || !b.TSCKHz.Known
	same := !unknown && sameFrequency(a.TSCKHz.Value, b.TSCKHz.Value)
	if !unknown && !same {
		c.differ(frequency, a.TSCKHz.Value, b.TSCKHz.Value)
	}
	for _, direction := range []struct {
		migration *Migration
		from, to  Fingerprint
	}{{&c.AToB, a, b}, {&c.BToA, b, a}} {
		_, promised := slices.BinarySearch(direction.from.Features, promise)
		switch {
		case same || !promised || direction.to.TSCScaling:
		case unknown:
			direction.migration.leaveOpen(frequency + " is not known")
		default:
			direction.migration.stop(frequency)
		}
	}
}

func sameFrequency(a, b uint64) bool {
	low, high := min(a, b), max(a, b)
	return float64(high-low)*1e6 <= float64(low)*tscTolerance
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Write prints the comparison for a person, who knows the hosts by names.
func (c Comparison) Write(w io.Writer, nameA, nameB string) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n\n", c.headline())
	width := max(len(nameA), len(nameB))
	for _, side := range []struct {
		letter, name string
		print        Reading[Fingerprint]
	}{{"A", nameA, c.A}, {"B", nameB, c.B}} {
		fmt.Fprintf(&out, "%s  %-*s  %s\n", side.letter, width, Printable(side.name), describe(side.print))
	}
	out.WriteString("\n")
	for _, direction := range []struct {
		name, target string
		migration    Migration
	}{{"A to B", "B", c.AToB}, {"B to A", "A", c.BToA}} {
		text := "safe"
		switch direction.migration.Status {
		case NotReady:
			text = "UNSAFE, " + direction.target + " lacks or differs in: " + strings.Join(direction.migration.Why, ", ")
		case Unknown:
			text = "unknown, " + strings.Join(direction.migration.Why, "; ")
		}
		for i, line := range wrap(Printable(text), 100) {
			label := direction.name + ": "
			if i > 0 {
				label = strings.Repeat(" ", len(label))
			}
			fmt.Fprintf(&out, "%s%s\n", label, line)
		}
	}
	c.writeDifferences(&out)
	_, err := io.WriteString(w, out.String())
	return err
}

func (c Comparison) headline() string {
	switch {
	case c.Verdict() == Unknown:
		return "UNDECIDED whether VMs can migrate"
	case c.AToB.Status == NotReady && c.BToA.Status == NotReady:
		return "UNSAFE to migrate VMs in both directions"
	case c.AToB.Status == NotReady:
		return "SAFE to migrate VMs from B to A only"
	case c.BToA.Status == NotReady:
		return "SAFE to migrate VMs from A to B only"
	case len(c.Differences) == 0:
		return "SAME for VMs: safe to migrate in both directions"
	default:
		return "SAFE to migrate VMs in both directions"
	}
}

func describe(print Reading[Fingerprint]) string {
	if !print.Known {
		return "no fingerprint"
	}
	f := print.Value
	return fmt.Sprintf("%s  %s family %d model %d, %d features", f.Hash, Printable(f.Vendor), f.Family, f.Model, len(f.Features))
}

func (c Comparison) writeDifferences(out *strings.Builder) {
	if len(c.Differences) == 0 {
		return
	}
	width := len("DIFFERENCE")
	for _, difference := range c.Differences {
		width = max(width, len(difference.What))
	}
	fmt.Fprintf(out, "\n%-*s  %-12s  B\n", width, "DIFFERENCE", "A")
	for _, difference := range c.Differences {
		fmt.Fprintf(out, "%-*s  %-12s  %s\n", width, Printable(difference.What), Printable(difference.A), Printable(difference.B))
	}
}
