package v1alpha1

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The words that fields take.
const (
	ProbeGateway   = "gateway"
	ProbeAPIServer = "apiserver"

	BondActiveBackup = "active-backup"
	Bond8023AD       = "802.3ad"

	AttachMacvlan = "macvlan"
	AttachMacvtap = "macvtap"
	AttachBridge  = "bridge"
	AttachSRIOV   = "sriov"
)

// Limits. A policy that needs more is a mistake. The CRD has the same ones, in
// the markers of the fields.
const (
	maxInterfaces = 256 // and attachments, and VLANs of an interface or a bridge
	maxPools      = 64  // and ports of a bond, addresses and routes
	maxTargets    = 16
	maxApproved   = 1024
	maxNodes      = 10000
	maxVFIndex    = 1<<16 - 1
	maxLinkName   = 15  // IFNAMSIZ less the zero byte
	maxAltname    = 127 // ALTIFNAMSIZ less the zero byte
	minMTU        = 68
	maxMTU        = 65535
)

var (
	linkName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
	pciID      = regexp.MustCompile(`^[0-9a-f]{4}$`)
	driverName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
	planHash   = regexp.MustCompile(`^[0-9a-f]{12}$`)
	percentage = regexp.MustCompile(`^(100|[1-9]?[0-9])%$`)
)

// Problem is what is wrong with a document, and where.
type Problem struct {
	Path    string // "spec.interfaces[0].mtu"
	Message string
}

func (p Problem) String() string { return p.Path + ": " + p.Message }

// problems collects what is wrong.
type problems []Problem

func (p *problems) add(path, format string, args ...any) {
	*p = append(*p, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// Validate returns what is wrong with a document whose defaults are filled in.
func (h *HostNetwork) Validate() []Problem {
	var bad problems
	if h.APIVersion != APIVersion {
		bad.add("apiVersion", "%q: want %s", h.APIVersion, APIVersion)
	}
	if h.Kind != KindHostNetwork {
		bad.add("kind", "%q: want %s", h.Kind, KindHostNetwork)
	}
	if len(validation.IsDNS1123Subdomain(h.Name)) > 0 {
		bad.add("metadata.name", "%q: want a name of small letters, digits, dashes and dots", h.Name)
	}
	spec := &h.Spec
	if _, err := h.Selects(nil); err != nil {
		bad.add("spec.nodeSelector", "%v", err)
	}
	bad.oneOf("spec.disruption", string(spec.Disruption), string(DisruptionNone), string(DisruptionAllow))
	if timeout, err := spec.Probes.Timeout.Parse(); err != nil {
		bad.add("spec.probes.timeout", "%v", err)
	} else if timeout < time.Second || timeout > 10*time.Minute {
		bad.add("spec.probes.timeout", "%v: want 1s to 10m", timeout)
	}
	bad.atMost("spec.probes.targets", len(spec.Probes.Targets), maxTargets)
	for i, target := range spec.Probes.Targets {
		bad.probe(fmt.Sprintf("spec.probes.targets[%d]", i), target)
	}
	bad.rollout(spec)
	if !bad.atMost("spec.interfaces", len(spec.Interfaces), maxInterfaces) || !bad.atMost("spec.attachments", len(spec.Attachments), maxInterfaces) {
		return bad
	}
	names := make(map[string]string)
	for i := range spec.Interfaces {
		bad.iface(fmt.Sprintf("spec.interfaces[%d]", i), &spec.Interfaces[i], names)
	}
	for i := range spec.Interfaces {
		bad.references(fmt.Sprintf("spec.interfaces[%d]", i), spec, i)
	}
	bad.attachments(spec)
	return bad
}

// rollout looks at what is of a cluster only.
func (p *problems) rollout(spec *HostNetworkSpec) {
	p.atMost("spec.approvedPlans", len(spec.ApprovedPlans), maxApproved)
	for i, hash := range spec.ApprovedPlans {
		at := fmt.Sprintf("spec.approvedPlans[%d]", i)
		if !planHash.MatchString(hash) {
			p.add(at, "%q: want the hash of a plan, twelve hexadecimal digits", hash)
		}
		if slices.Contains(spec.ApprovedPlans[:i], hash) {
			p.add(at, "%q is there already", hash)
		}
	}
	if spec.MaxUnavailable != nil {
		p.share("spec.maxUnavailable", *spec.MaxUnavailable)
	}
}

// share is a number of nodes, or a percentage of them.
func (p *problems) share(path string, value intstr.IntOrString) {
	if value.Type == intstr.Int {
		p.between(path, value.IntValue(), 0, maxNodes)
	} else if !percentage.MatchString(value.StrVal) {
		p.add(path, "%q: want a number, or 0%% to 100%%", value.StrVal)
	}
}

// atMost reports whether there are not too many of something.
func (p *problems) atMost(path string, n, most int) bool {
	if n > most {
		p.add(path, "%d of them, the most is %d", n, most)
	}
	return n <= most
}

func (p *problems) oneOf(path, value string, words ...string) {
	if !slices.Contains(words, value) {
		p.add(path, "%q: want one of %s", value, strings.Join(words, ", "))
	}
}

func (p *problems) between(path string, value, least, most int) {
	if value < least || value > most {
		p.add(path, "%d: want %d to %d", value, least, most)
	}
}

func (p *problems) mtu(path string, value int) {
	if value != 0 {
		p.between(path, value, minMTU, maxMTU)
	}
}

func (p *problems) probe(path, target string) {
	if target == ProbeGateway || target == ProbeAPIServer {
		return
	}
	address, isTCP := strings.CutPrefix(target, "tcp://")
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if !isTCP || err != nil || portErr != nil || number == 0 || host == "" {
		p.add(path, "%q: want gateway, apiserver or tcp://HOST:PORT", target)
	}
}

// link checks a name that the kernel gives a link, and that no other has it.
func (p *problems) link(path, name string, names map[string]string) {
	switch before, taken := names[name]; {
	case !linkName.MatchString(name) || len(name) > maxLinkName || name == "." || name == "..":
		p.add(path, "%q: want a link name of at most %d letters, digits, _, - and .", name, maxLinkName)
	case taken:
		p.add(path, "%q is the name of %s already", name, before)
	default:
		names[name] = path
	}
}

func (p *problems) iface(path string, i *Interface, names map[string]string) {
	switch before, taken := names[i.Name]; {
	case !linkName.MatchString(i.Name) || len(i.Name) > maxAltname:
		p.add(path+".name", "%q: want a name of at most %d letters, digits, _, - and .", i.Name, maxAltname)
	case taken:
		p.add(path+".name", "%q is the name of %s already", i.Name, before)
	default:
		names[i.Name] = path
	}
	p.mtu(path+".mtu", i.MTU)
	switch {
	case (i.Match == nil) == (i.Bond == nil):
		p.add(path, "want either match, for a network card, or bond")
	case i.Match != nil:
		p.match(path+".match", *i.Match)
	default:
		p.bond(path+".bond", i.Bond, names)
		if i.SRIOV != nil {
			p.add(path+".sriov", "a bond has no virtual functions: write it at its ports")
		}
	}
	if i.SRIOV != nil {
		p.sriov(path+".sriov", i.SRIOV)
	}
	p.atMost(path+".vlans", len(i.VLANs), maxInterfaces)
	ids := make(map[string]bool)
	for v, vlan := range i.VLANs {
		at := fmt.Sprintf("%s.vlans[%d]", path, v)
		p.between(at+".id", vlan.ID, 1, 4094)
		p.link(at+".name", vlan.Name, names)
		p.oneOf(at+".protocol", vlan.Protocol, Protocol8021Q, Protocol8021AD)
		p.mtu(at+".mtu", vlan.MTU)
		if tag := fmt.Sprint(vlan.Protocol, vlan.ID); ids[tag] {
			p.add(at+".id", "%d is there already", vlan.ID)
		} else {
			ids[tag] = true
		}
		if i.MTU != 0 && vlan.MTU > i.MTU {
			p.add(at+".mtu", "%d is more than that of the interface below, %d", vlan.MTU, i.MTU)
		}
	}
	if i.Bridge != nil {
		p.bridge(path+".bridge", i.Bridge, names)
	}
	if i.HostShim != nil {
		p.shim(path+".hostShim", i.HostShim, names)
	}
}

func (p *problems) match(path string, m Match) {
	if m == (Match{}) {
		p.add(path, "says nothing: want at least one of pciAddress, permanentMAC, driver, vendor and name")
	}
	check := func(field, value string, pattern *regexp.Regexp, want string) {
		if value != "" && !pattern.MatchString(value) {
			p.add(path+"."+field, "%q: want %s", value, want)
		}
	}
	check("pciAddress", m.PCIAddress, pciAddress, "an address such as 0000:01:00.0")
	check("driver", m.Driver, driverName, "the name of a driver")
	check("vendor", m.Vendor, pciID, "four hexadecimal digits, in small letters")
	check("device", m.Device, pciID, "four hexadecimal digits, in small letters")
	check("name", m.Name, linkName, "the name of a link")
	if m.PermanentMAC != "" {
		if mac, err := net.ParseMAC(m.PermanentMAC); err != nil || mac.String() != m.PermanentMAC {
			p.add(path+".permanentMAC", "%q: want an address such as 52:54:00:12:34:56, in small letters", m.PermanentMAC)
		}
	}
	if m.Device != "" && m.Vendor == "" {
		p.add(path+".device", "says nothing without a vendor")
	}
}

func (p *problems) bond(path string, b *Bond, names map[string]string) {
	p.link(path+".name", b.Name, names)
	p.oneOf(path+".mode", b.Mode, "balance-rr", BondActiveBackup, "balance-xor", "broadcast", Bond8023AD, "balance-tlb", "balance-alb")
	p.oneOf(path+".transmitHashPolicy", b.TransmitHashPolicy, "layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac")
	p.between(path+".monitorInterval", b.MonitorInterval, 1, 60000)
	switch {
	case b.Mode == Bond8023AD:
		p.oneOf(path+".lacpRate", b.LACPRate, "slow", "fast")
	case b.LACPRate != "":
		p.add(path+".lacpRate", "is of mode 802.3ad only")
	}
	if len(b.Ports) == 0 {
		p.add(path+".ports", "a bond needs at least one")
	}
	p.atMost(path+".ports", len(b.Ports), maxPools)
	seen := make(map[string]bool)
	for i, port := range b.Ports {
		if seen[port] {
			p.add(fmt.Sprintf("%s.ports[%d]", path, i), "%q is there already", port)
		}
		seen[port] = true
	}
}

func (p *problems) bridge(path string, b *Bridge, names map[string]string) {
	p.link(path+".name", b.Name, names)
	if len(b.VLANs) > 0 && !b.VLANFiltering {
		p.add(path+".vlans", "say nothing without vlanFiltering")
	}
	p.atMost(path+".vlans", len(b.VLANs), maxInterfaces)
	for i, text := range b.VLANs {
		if _, _, err := ParseRange(text, 1, 4094); err != nil {
			p.add(fmt.Sprintf("%s.vlans[%d]", path, i), "%v", err)
		}
	}
}

func (p *problems) shim(path string, s *HostShim, names map[string]string) {
	p.link(path+".name", s.Name, names)
	p.atMost(path+".addresses", len(s.Addresses), maxPools)
	p.atMost(path+".routes", len(s.Routes), maxPools)
	for i, text := range s.Addresses {
		if prefix, err := parsePrefix(text); err != nil || prefix.String() != text || prefix.Addr().IsUnspecified() || prefix.Addr().IsMulticast() {
			p.add(fmt.Sprintf("%s.addresses[%d]", path, i), "%q: want an address with its prefix length, such as 10.7.0.2/32", text)
		}
	}
	for i, text := range s.Routes {
		if prefix, err := parsePrefix(text); err != nil || prefix.Masked().String() != text {
			p.add(fmt.Sprintf("%s.routes[%d]", path, i), "%q: want a network, such as 10.7.0.0/24, without host bits", text)
		} else if prefix.Bits() == 0 {
			p.add(fmt.Sprintf("%s.routes[%d]", path, i), "%s would take all traffic", text)
		}
	}
}

// parsePrefix reads a network. An IPv4 address in the clothes of an IPv6 one
// is none: no two programs mean the same by it.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix.Addr().Is4In6() {
		err = fmt.Errorf("%q: write an IPv4 address as such", text)
	}
	return prefix, err
}

// ParseRange reads N or N-M.
func ParseRange(text string, least, most int) (first, last int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, err = strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err != nil || err2 != nil || first < least || last > most || first > last || strings.ContainsAny(text, "+ ") {
		return 0, 0, fmt.Errorf("%q: want N or N-M, of %d to %d", text, least, most)
	}
	return first, last, nil
}

// ParseIndices reads a list such as 0-3,6, and returns it in order.
func ParseIndices(text string) ([]int, error) {
	var all []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, err := ParseRange(part, 0, maxVFIndex)
		if err != nil {
			return nil, err
		}
		for n := first; n <= last; n++ {
			all = append(all, n)
		}
		if len(all) > maxVFIndex+1 {
			return nil, fmt.Errorf("%q: too many", text)
		}
	}
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != len(all) {
		return nil, fmt.Errorf("%q: an index is there twice", text)
	}
	return all, nil
}
