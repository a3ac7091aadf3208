package qemu

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestIdentify(t *testing.T) {
	uid := "11111111-2222-3333-4444-555555555555"
	nova := &Definition{nova: true, project: "admin", name: "web server"}
	for _, tt := range []struct {
		name string
		vm   VM
		from pod
		want VM
	}{
		{"the host's own", VM{Name: "web_1", Source: "s"}, pod{}, VM{Name: "web_1", Kind: KindLibvirt}},
		{"a process", VM{Name: "web", Source: SourceProc}, pod{}, VM{Name: "web", Kind: KindQEMU}},
		{"OpenStack", VM{Name: "instance-1", Definition: nova}, pod{}, VM{Namespace: "admin", Name: "web server", Kind: KindOpenStack}},
		{"OpenStack without a name", VM{Name: "instance-1", Definition: &Definition{nova: true}}, pod{}, VM{Name: "instance-1", Kind: KindOpenStack}},
		{"KubeVirt", VM{Name: "ns-1_vm.x"}, pod{uid: uid, namespace: "ns-1", name: "virt-launcher-vm.x-abcde"}, VM{Namespace: "ns-1", Name: "vm.x", Kind: KindKubeVirt}},
		{"KubeVirt, the kubelet silent", VM{Name: "ns_vm"}, pod{uid: uid}, VM{Namespace: "ns", Name: "vm", Kind: KindKubeVirt}},
		{"a pod that claims another's namespace", VM{Name: "kube-system_dns"}, pod{uid: uid, namespace: "tenant"}, VM{Namespace: "tenant", Name: "kube-system_dns", Kind: KindQEMU}},
		{"a pod that claims a project", VM{Name: "x", Definition: nova}, pod{uid: uid, namespace: "tenant"}, VM{Namespace: "tenant", Name: "x", Kind: KindQEMU}},
		{"a pod that claims no namespace", VM{Name: "_vm"}, pod{uid: uid}, VM{Name: "_vm", Kind: KindQEMU}},
		{"a pod with a wild name", VM{Name: "ns_a\"b\n"}, pod{uid: uid}, VM{Name: "ns_a\"b\n", Kind: KindQEMU}},
		{"a pod with two underscores", VM{Name: "ns_a_b"}, pod{uid: uid}, VM{Name: "ns_a_b", Kind: KindQEMU}},
	} {
		got := tt.vm
		got.identify(tt.from)
		if got.Namespace != tt.want.Namespace || got.Name != tt.want.Name || got.Kind != tt.want.Kind {
			t.Errorf("%s: %q/%q, %s; want %q/%q, %s", tt.name, got.Namespace, got.Name, got.Kind, tt.want.Namespace, tt.want.Name, tt.want.Kind)
		}
		if got.Domain != tt.vm.Name || got.Pod != tt.from.uid || got.PodName != tt.from.name {
			t.Errorf("%s: domain %q of pod %q, %q", tt.name, got.Domain, got.Pod, got.PodName)
		}
	}
}

func TestBoundName(t *testing.T) {
	for name, want := range map[string]string{
		"":                         "",
		"web":                      "web",
		"a\xffb":                   "a\uFFFDb",
		strings.Repeat("x", 10000): strings.Repeat("x", maxName),
		strings.Repeat("ä", 200):   strings.Repeat("ä", 126), // 253 bytes cut one in two
	} {
		if got := boundName(name); got != want {
			t.Errorf("%.20q: %.20q with %d bytes, want %.20q with %d", name, got, len(got), want, len(want))
		}
	}
}

func TestParsePodCgroup(t *testing.T) {
	uid := "11111111-2222-3333-4444-55555555555f"
	under := strings.ReplaceAll(uid, "-", "_")
	for name, tt := range map[string]struct{ text, want string }{
		"cgroupfs":          {"0::/kubepods/burstable/pod" + uid + "/abc\n", uid},
		"guaranteed":        {"0::/kubepods/pod" + uid + "/abc", uid},
		"systemd":           {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-abc.scope", uid},
		"systemd, nested":   {"0::/kubepods.slice/kubepods-pod" + under + ".slice/x", uid},
		"version 1":         {"12:pids:/\n3:cpu,cpuacct:/kubepods/besteffort/pod" + uid + "/abc\n1:name=systemd:/\n", uid},
		"seen from a pod":   {"0::/../../pod" + uid + "/abc", uid},
		"from a file":       {"0::/kubepods/pod0123456789abcdef0123456789abcdef/abc", "0123456789abcdef0123456789abcdef"},
		"one made inside":   {"0::/kubepods/pod" + uid + "/abc/pod99999999-2222-3333-4444-555555555555", uid},
		"the host's":        {"0::/system.slice/libvirtd.service", ""},
		"machine":           {"0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt", ""},
		"no UID":            {"0::/kubepods/podman/x", ""},
		"nothing":           {"", ""},
		"broken":            {"0:/pod" + uid, ""},
		"a colon in a path": {"0::/a:b/pod" + uid, uid},
	} {
		if got := parsePodCgroup([]byte(tt.text)); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestParsePodLog(t *testing.T) {
	uid := "11111111-2222-3333-4444-555555555555"
	if got, ok := parsePodLog("ns-1_virt-launcher-vm-abcde_" + uid); !ok || got != (pod{uid, "ns-1", "virt-launcher-vm-abcde"}) {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, name := range []string{"", "_", "__", "ns_pod", "ns_pod_x", "n.s_pod_" + uid, "ns__" + uid, "_pod_" + uid, "ns_a_b_" + uid, "NS_pod_" + uid} {
		if got, ok := parsePodLog(name); ok {
			t.Errorf("%q: %+v", name, got)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("ns_vm", "ns", "0::/kubepods/pod11111111-2222-3333-4444-555555555555/x")
	f.Add("\xff\"\n", "", "")
	f.Fuzz(func(t *testing.T, name, namespace, cgroup string) {
		uid := parsePodCgroup([]byte(cgroup))
		if uid != "" && !isPodUID(uid) {
			t.Errorf("UID %q", uid)
		}
		if !isNamespace(namespace) {
			namespace = ""
		}
		vm := VM{Name: name}
		vm.identify(pod{uid: uid, namespace: namespace})
		for _, text := range []string{vm.Namespace, vm.Name, vm.Domain} {
			if len(text) > maxName || !utf8.ValidString(text) {
				t.Errorf("%q", text)
			}
		}
		if uid != "" && namespace != "" && vm.Namespace != namespace {
			t.Errorf("a pod of %q is in %q", namespace, vm.Namespace)
		}
	})
}
