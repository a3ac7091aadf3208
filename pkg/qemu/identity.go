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

// maxName bounds a name in bytes: as long as one in Kubernetes may be. Longer
// ones are cut, so that no machine makes the page of all of them unreadable.
const maxName = 253

// identify gives a machine the names by which its users know it. What it is
// called by itself, or by its pod, is a claim: a namespace is a tenant's, so
// the kubelet's word for it goes before the pod's.
//
//   - KubeVirt calls a domain NAMESPACE_NAME; names of Kubernetes hold no
//     underscore.
//   - OpenStack calls it instance-N, and tells project and name in metadata.
//   - Everything else has a name and no namespace.
func (vm *VM) identify(from pod) {
	vm.Domain, vm.Pod = vm.Name, from.uid
	vm.PodName = from.name
	switch {
	case from.uid != "":
		vm.identifyPod(from)
	case vm.Definition != nil && vm.Definition.nova:
		vm.Kind, vm.Namespace = KindOpenStack, vm.Definition.project
		if vm.Definition.name != "" {
			vm.Name = vm.Definition.name
		}
	case vm.Source == SourceProc:
		vm.Kind = KindQEMU
	default:
		vm.Kind = KindLibvirt
	}
	vm.Name, vm.Domain = boundName(vm.Name), boundName(vm.Domain)
}

func (vm *VM) identifyPod(from pod) {
	vm.Kind, vm.Namespace = KindQEMU, from.namespace
	namespace, name, split := strings.Cut(vm.Domain, "_")
	if !split || !isNamespace(namespace) || !isPodName(name) {
		return
	}
	if vm.Namespace == "" {
		vm.Namespace = namespace
	}
	if vm.Namespace == namespace {
		vm.Kind, vm.Name = KindKubeVirt, name
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

// isPodName reports whether text may name an object in Kubernetes: small
// letters, digits, dashes and dots.
func isPodName(text string) bool {
	return text != "" && len(text) <= maxName && !strings.ContainsFunc(text, func(r rune) bool {
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

func podOfGroup(name string) string {
	if slice, systemd := strings.CutSuffix(name, ".slice"); systemd {
		_, uid, _ := strings.Cut(slice, "-pod")
		name = "pod" + strings.ReplaceAll(uid, "_", "-")
	}
	if uid, found := strings.CutPrefix(name, "pod"); found && isPodUID(uid) {
		return uid
	}
	return ""
}
