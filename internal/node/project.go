package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// The conditions that the agent writes.
const (
	VirtualizationReady = "VirtualizationReady"
	HostNetworkReady    = "HostNetworkReady"
)

// Look is what was found in one look at a host: what the labels, conditions
// and the NodeVirtualization are made of.
type Look struct {
	Report kvmcheck.Report
	Custom []Custom
}

// Custom is a label of the user's own, by the name that stands after its prefix.
type Custom interface {
	Name() string
	// Value is what facts say: a value, or that there is none, or that nobody
	// can tell, and why.
	Value(facts kvmcheck.Facts) (value string, known bool, why string)
}

// Label is what facts say of one label.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"` // empty: the label is not there
	Known bool   `json:"known"`           // else what was published stays
}

// Labels lists what a look says of each label, the most important first. It is
// pure.
func Labels(look Look) []Label {
	facts := judgeFacts(look.Report.Facts)
	var all []Label
	for _, row := range rows() {
		answer := row.of(facts)
		all = append(all, Label{Prefix + row.name, answer.value, answer.known})
	}
	for _, custom := range look.Custom {
		value, known, _ := custom.Value(look.Report.Facts)
		all = append(all, Label{customPrefix + custom.Name(), labelValue(value), known})
	}
	return all
}

// truth is what is published of a host: what looks have brought, held so that
// it does not flap.
type truth struct {
	labels     held[struct{}]
	conditions held[Condition]
	findings   held[v1alpha1.NodeFinding]
	pfs        held[[]v1alpha1.PhysicalFunction]
	network    networkTruth
	order      []string // of the findings
	agent      string
	seen       bool // whether there was a look at all
}

// Condition is one without its times.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"` // True, False, Unknown
	Reason  string `json:"reason"`
	Message string `json:"message"`

	reasons string // all of them
}

func (c Condition) value() string { return c.Status + "/" + c.Reason }

// Ready is what a look says of the condition [VirtualizationReady].
func Ready(look Look) Condition {
	c := virtualizationReady(look.Report)
	c.Type = VirtualizationReady
	return c
}

// observe returns the truth after a look.
func (t truth) observe(look Look) truth {
	at := look.Report.Time
	next := truth{agent: look.Report.Agent, seen: true, network: t.network}
	next.labels = t.labels.observe(at, proposedLabels(Labels(look)))
	next.conditions = t.conditions.observe(at, []proposal[Condition]{proposedCondition(VirtualizationReady, virtualizationReady(look.Report))})
	var findings []proposal[v1alpha1.NodeFinding]
	for i := range look.Report.Findings {
		findings = append(findings, proposedFinding(&look.Report.Findings[i]))
		next.order = append(next.order, look.Report.Findings[i].Key())
	}
	next.findings = t.findings.observe(at, findings)
	next.pfs = t.pfs.observe(at, []proposal[[]v1alpha1.PhysicalFunction]{proposedPFs(look.Report.Facts)})
	return next
}

func proposedLabels(labels []Label) []proposal[struct{}] {
	var all []proposal[struct{}]
	for _, label := range labels {
		p := proposal[struct{}]{key: label.Key, value: label.Value, pace: early}
		switch {
		case !label.Known:
			p.pace = keep
		case label.Value == yes:
			p.pace = now
		case label.Value == "" || label.Value == "false":
			p.pace = slow
		}
		all = append(all, p)
	}
	return all
}

func proposedCondition(kind string, c Condition) proposal[Condition] {
	c.Type = kind
	p := proposal[Condition]{key: kind, value: c.value(), pace: early, of: c}
	switch c.Status {
	case "True":
		p.pace = now
	case "Unknown":
		p.pace = doubt
	}
	return p
}

// virtualizationReady is the verdict on a host as a condition.
func virtualizationReady(report kvmcheck.Report) Condition {
	var reasons, lines []string
	for i := range report.Findings {
		finding := &report.Findings[i]
		// Of a node that is not ready, only what is known to be missing
		// decides; what could not be read may be fine.
		if finding.Level == kvmcheck.Required && finding.Status == report.Verdict && finding.Status != kvmcheck.Ready {
			if !slices.Contains(reasons, string(finding.Reason)) {
				reasons = append(reasons, string(finding.Reason))
			}
			lines = append(lines, fmt.Sprintf("%s: %s", finding.Key(), finding.Message))
		}
	}
	if report.Verdict == kvmcheck.Ready {
		return Condition{Status: "True", Reason: "VirtualizationReady", Message: "all that VMs need was found (profile " + report.Profile + ")"}
	}
	c := Condition{Status: "False", Reason: "NotReady", Message: clip(strings.Join(lines, "; "), mostMessage), reasons: strings.Join(reasons, ",")}
	if report.Verdict == kvmcheck.Unknown {
		c.Status = "Unknown"
	}
	if len(reasons) > 0 {
		c.Reason = reasons[0]
	}
	return c
}

// Bounds of what a host can make the agent publish.
const (
	mostMessage  = 1024 // of a condition
	mostDetail   = 512  // of a finding
	mostFindings = 256
)

// clip cuts a text at a rune, and takes out what would steer a terminal.
func clip(text string, most int) string {
	text = kvmcheck.Printable(strings.ToValidUTF8(text, "?"))
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}

// proposedFinding leaves out the message of what is fine: it holds numbers that
// change, and is on the node's own page.
func proposedFinding(finding *kvmcheck.Finding) proposal[v1alpha1.NodeFinding] {
	told := v1alpha1.NodeFinding{
		Area: finding.Area, Check: finding.Check, Level: string(finding.Level), Status: finding.Status.String(), Reason: string(finding.Reason),
	}
	p := proposal[v1alpha1.NodeFinding]{key: finding.Key(), pace: now}
	if finding.Status != kvmcheck.Ready {
		told.Message, told.Remedy = clip(finding.Message, mostDetail), clip(finding.Remedy, mostDetail)
		p.pace = early
	}
	if finding.Status == kvmcheck.Unknown {
		p.pace = doubt
	}
	p.value, p.of = findingValue(told), told
	return p
}

// findingValue is what of a finding makes it another one.
func findingValue(f v1alpha1.NodeFinding) string { return f.Status + "/" + f.Reason + "/" + f.Level }

func proposedPFs(facts kvmcheck.Facts) proposal[[]v1alpha1.PhysicalFunction] {
	p := proposal[[]v1alpha1.PhysicalFunction]{key: "pfs", pace: keep}
	if !facts.SRIOV.PFs.Known {
		return p
	}
	for _, pf := range facts.SRIOV.PFs.Value {
		p.of = append(p.of, v1alpha1.PhysicalFunction{
			PCIAddress: pf.Address, Name: pf.Netdev(), Driver: pf.Driver, NUMANode: pf.NUMANode,
			VFCount: v1alpha1.VFCount{Total: pf.TotalVFs, Configured: pf.NumVFs},
		})
	}
	if len(p.of) > mostFindings {
		p.of = p.of[:mostFindings]
	}
	p.value, p.pace = pfsValue(p.of), early
	return p
}

// pfsValue is what of physical functions makes them others.
func pfsValue(pfs []v1alpha1.PhysicalFunction) string {
	value, err := json.Marshal(pfs)
	if err != nil {
		panic(err) // they are texts and numbers
	}
	return string(value)
}

// wanted is what the API server shall have of a node.
type wanted struct {
	labels     map[string]string
	cut        []string // labels that were one too many
	conditions []Condition
	status     v1alpha1.NodeVirtualizationStatus // its conditions have no times
}

// want turns the truth into objects.
func (t truth) want() wanted {
	w := wanted{labels: make(map[string]string)}
	keys := append(t.labels.keys(), t.network.labels.keys()...)
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	size := 0
	for _, key := range keys {
		value := t.labels[key].value + t.network.labels[key].value // one of them has it
		size += len(key) + len(value)
		if len(w.labels) == mostLabels || size > mostBytes || len(key) > len(Prefix)+mostValue {
			w.cut = append(w.cut, key)
			continue
		}
		w.labels[key] = value
	}
	for _, kind := range t.conditions.keys() {
		w.conditions = append(w.conditions, t.conditions[kind].of)
	}
	for _, kind := range t.network.conditions.keys() {
		w.conditions = append(w.conditions, t.network.conditions[kind].of)
	}
	w.status = t.status(w)
	return w
}

func (t truth) status(w wanted) v1alpha1.NodeVirtualizationStatus {
	ready := t.conditions[VirtualizationReady].of
	status := v1alpha1.NodeVirtualizationStatus{
		Agent: t.agent, Verdict: map[string]string{"True": "Ready", "False": "NotReady"}[ready.Status],
		Reasons: ready.reasons, FactsDigest: digest(w.labels), PFs: t.pfs["pfs"].of, Networks: t.network.reports,
	}
	status.Verdict = cmp.Or(status.Verdict, "Unknown")
	for _, key := range slices.Concat(t.order, missing(t.findings.keys(), t.order)) {
		if finding := t.findings[key]; finding.value != "" && len(status.Findings) < mostFindings {
			status.Findings = append(status.Findings, finding.of)
		}
	}
	for _, pf := range status.PFs {
		status.VFs.Total += pf.Total
		status.VFs.Configured += pf.Configured
	}
	return status
}

// missing lists what is in all and not in some.
func missing(all, some []string) []string {
	return slices.DeleteFunc(all, func(key string) bool { return slices.Contains(some, key) })
}

// digest names the capabilities of a host: what VMs can be placed by.
func digest(labels map[string]string) string {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&text, "%s=%s\n", key, labels[key])
	}
	sum := sha256.Sum256([]byte(text.String()))
	return hex.EncodeToString(sum[:6])
}
