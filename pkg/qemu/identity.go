package qemu

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Kind says who manages a machine.
type Kind string

// The kinds.
const (
	KindLibvirt   Kind = "libvirt" // nobody but libvirt
	KindQEMU      Kind = "qemu"    // not even libvirt
	KindKubeVirt  Kind = "kubevirt"
	KindOpenStack Kind = "openstack"
)

// naming is what a machine is called, and by whom.
type naming struct {
	namespace, name string // by which its users know it
	domain          string // in libvirt, or of the process
	kind            Kind
	pod             pod // that it runs in
}

// identify names a machine of a domain. What it is called by itself, or by
// its pod, is a claim: a namespace is a tenant's, so the kubelet's word for it
// goes before the pod's.
//
//   - KubeVirt calls a domain NAMESPACE_NAME; names of Kubernetes hold no
//     underscore.
//   - OpenStack calls it instance-N, and tells project and name in metadata.
//   - Everything else has a name and no namespace.
func identify(domain, source string, definition *Definition, from pod) naming {
	n := naming{name: boundName(domain), domain: boundName(domain), pod: from}
	switch {
	case from.uid != "":
		n.identifyPod(from)
	case definition != nil && definition.nova:
		n.kind, n.namespace = KindOpenStack, definition.project
		if definition.name != "" {
			n.name = definition.name
		}
	case source == SourceProc:
		n.kind = KindQEMU
	default:
		n.kind = KindLibvirt
	}
	return n
}

func (n *naming) identifyPod(from pod) {
	n.kind, n.namespace = KindQEMU, from.namespace
	namespace, name, split := strings.Cut(n.domain, "_")
	if !split || !isNamespace(namespace) || !isPodName(name) {
		return
	}
	if n.namespace == "" {
		n.namespace = namespace
	}
	if n.namespace == namespace {
		n.kind, n.name = KindKubeVirt, name
	}
}

// boundName makes a name from outside one that a page can bear.
func boundName(name string) string {
	if len(name) <= maxName && utf8.ValidString(name) {
		return name
	}
	name = strings.ToValidUTF8(name[:min(len(name), 2*maxName)], "\uFFFD")
	if len(name) > maxName {
		cut := maxName
		for !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut]
	}
	return name
}

// isNamespace reports whether text may name a namespace: a DNS label.
func isNamespace(text string) bool {
	return len(text) <= 63 && isPodName(text) && !strings.Contains(text, ".")
}

// isPodName reports whether text may name an object in Kubernetes: up
// to 253 small letters, digits, dashes and dots.
func isPodName(text string) bool {
	return text != "" && len(text) <= 253 && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

// isPodUID reports whether text may be a pod's UID: a UUID, or for a pod from
// a file the hash of that, both in hexadecimal.
func isPodUID(text string) bool {
	return len(text) >= 32 && len(text) <= 36 && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'f') && (r < '0' || r > '9') && r != '-'
	})
}

// parsePodCgroup returns the UID of the pod that a process belongs to, read
// from its /proc/PID/cgroup; empty means none. The kubelet calls a pod's
// control group podUID, or with systemd kubepods-…-podUID.slice with
// underscores in UID. A pod may make groups of any name inside its own, so of
// several the outermost counts.
func parsePodCgroup(data []byte) string {
	for line := range bytes.Lines(data) {
		// ID:CONTROLLERS:PATH
		fields := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 3)
		if len(fields) != 3 {
			continue
		}
		for part := range strings.SplitSeq(string(fields[2]), "/") {
			if uid := podOfGroup(part); uid != "" {
				return uid
			}
		}
	}
	return ""
}

// podOfGroup returns the UID of the pod that a control group is of.
func podOfGroup(name string) string {
	if slice, systemd := strings.CutSuffix(name, ".slice"); systemd {
		if !strings.HasPrefix(slice, "kubepods") {
			return ""
		}
		name = strings.ReplaceAll(slice[strings.LastIndexByte(slice, '-')+1:], "_", "-")
	}
	if uid, found := strings.CutPrefix(name, "pod"); found && isPodUID(uid) {
		return uid
	}
	return ""
}
