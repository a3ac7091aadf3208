package qemu

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestIdentify(t *testing.T) {
	uid := "11111111-2222-3333-4444-555555555555"
	nova := &Definition{nova: true, project: "admin", name: "web server"}
	for _, tt := range []struct {
		name       string
		domain     string
		source     string
		definition *Definition
		from       pod
		want       naming
	}{
		{"the host's own", "web_1", "s", nil, pod{}, naming{name: "web_1", kind: KindLibvirt}},
		{"a process", "web", SourceProc, nil, pod{}, naming{name: "web", kind: KindQEMU}},
		{"OpenStack", "instance-1", "s", nova, pod{}, naming{namespace: "admin", name: "web server", kind: KindOpenStack}},
		{"OpenStack without a name", "instance-1", "s", &Definition{nova: true}, pod{}, naming{name: "instance-1", kind: KindOpenStack}},
		{"KubeVirt", "ns-1_vm.x", "s", nil, pod{uid: uid, namespace: "ns-1", name: "virt-launcher-vm.x-abcde"}, naming{namespace: "ns-1", name: "vm.x", kind: KindKubeVirt}},
		{"KubeVirt, the kubelet silent", "ns_vm", "s", nil, pod{uid: uid}, naming{namespace: "ns", name: "vm", kind: KindKubeVirt}},
		{"KubeVirt, libvirt silent", "ns_vm", SourceProc, nil, pod{uid: uid}, naming{namespace: "ns", name: "vm", kind: KindKubeVirt}},
		{"a pod that claims another's namespace", "kube-system_dns", "s", nil, pod{uid: uid, namespace: "tenant"}, naming{namespace: "tenant", name: "kube-system_dns", kind: KindQEMU}},
		{"a pod that claims a project", "x", "s", nova, pod{uid: uid, namespace: "tenant"}, naming{namespace: "tenant", name: "x", kind: KindQEMU}},
		{"a pod that claims no namespace", "_vm", "s", nil, pod{uid: uid}, naming{name: "_vm", kind: KindQEMU}},
		{"a pod with a wild name", "ns_a\"b\n", "s", nil, pod{uid: uid}, naming{name: "ns_a\"b\n", kind: KindQEMU}},
		{"a pod with two underscores", "ns_a_b", "s", nil, pod{uid: uid}, naming{name: "ns_a_b", kind: KindQEMU}},
	} {
		tt.want.domain, tt.want.pod = tt.domain, tt.from
		if got := identify(tt.domain, tt.source, tt.definition, tt.from); got != tt.want {
			t.Errorf("%s: have %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestBoundName(t *testing.T) {
	for name, want := range map[string]string{
		"":                             "",
		"web":                          "web",
		"a\xffb":                       "a\uFFFDb",
		strings.Repeat("x", 10000):     strings.Repeat("x", maxName),
		strings.Repeat("ä", 200):       strings.Repeat("ä", 128),
		"x" + strings.Repeat("ä", 200): "x" + strings.Repeat("ä", 127), // the last one would be cut in two
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
		"a slice like one":  {"0::/user-pod" + under + ".slice/x", ""},
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
		got := identify(name, "s", nil, pod{uid: uid, namespace: namespace})
		for _, text := range []string{got.namespace, got.name, got.domain} {
			if len(text) > maxName || !utf8.ValidString(text) {
				t.Errorf("%q", text)
			}
		}
		if uid != "" && namespace != "" && got.namespace != namespace {
			t.Errorf("a pod of %q is in %q", namespace, got.namespace)
		}
	})
}

// TestAPodDescribesItsOwnMachineOnly: whatever its daemon or its processes
// claim, the numbers and the names of others are out of reach.
func TestAPodDescribesItsOwnMachineOnly(t *testing.T) {
	a, b := pod{uid: podA, namespace: "tenant-a"}, pod{uid: podB, namespace: "tenant-b"}
	named := func(uid string) pod { return map[string]pod{podA: a, podB: b, "": {}}[uid] }
	process := func(pid int, name, uuid, in string) VM {
		return VM{Name: name, UUID: uuid, Source: SourceProc, Pod: in, Process: &Process{PID: pid}}
	}
	for name, tt := range map[string]struct {
		host, a, b []VM
		processes  []VM
		want       []string
	}{
		"each has its own": {
			host: []VM{{Name: "web", UUID: "1"}}, a: []VM{{Name: "tenant-a_web", UUID: "2"}}, b: []VM{{Name: "tenant-b_web", UUID: "3"}},
			processes: []VM{process(10, "web", "1", ""), process(20, "tenant-a_web", "2", podA), process(30, "tenant-b_web", "", podB)},
			want:      []string{"/web 1 libvirt 10", "tenant-a/web 2 kubevirt 20", "tenant-b/web 3 kubevirt 30"},
		},
		"a daemon claims another's UUID and name": {
			host: []VM{{Name: "web", UUID: "1"}}, a: []VM{{Name: "tenant-a_web", UUID: "2"}}, b: []VM{{Name: "tenant-a_web", UUID: "2"}},
			processes: []VM{process(20, "tenant-a_web", "2", podA)},
			want:      []string{"/web 1 libvirt 0", "tenant-a/web 2 kubevirt 20", "tenant-b/tenant-a_web 2 qemu 0"},
		},
		"a daemon claims the host's": {
			host: []VM{{Name: "web", UUID: "1"}}, b: []VM{{Name: "web", UUID: "1"}},
			processes: []VM{process(10, "web", "1", "")},
			want:      []string{"/web 1 libvirt 10", "tenant-b/web 1 qemu 0"},
		},
		"a process claims the host's UUID": {
			host:      []VM{{Name: "web", UUID: "1"}},
			processes: []VM{process(30, "web", "1", podB)},
			want:      []string{"/web 1 libvirt 0", "tenant-b/web 1 qemu 30"},
		},
		"a process claims the host's name": {
			host:      []VM{{Name: "web", UUID: "1"}},
			processes: []VM{process(30, "web", "", podB)},
			want:      []string{"/web 1 libvirt 0", "tenant-b/web  qemu 30"},
		},
		"libvirt is silent": {
			processes: []VM{process(20, "tenant-a_web", "2", podA), process(10, "web", "1", "")},
			want:      []string{"/web 1 qemu 10", "tenant-a/web 2 kubevirt 20"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMerger()
			for _, d := range []struct {
				vms []VM
				in  pod
			}{{tt.host, pod{}}, {tt.a, a}, {tt.b, b}} {
				light, daemon := classes(d.vms)
				m.addDaemon(light, daemon, d.in, time.Time{})
			}
			m.addProcesses(tt.processes, named)
			var have []string
			for _, vm := range m.appendTo(nil) {
				pid := 0
				if vm.Process != nil {
					pid = vm.Process.PID
				}
				have = append(have, fmt.Sprintf("%s/%s %s %s %d", vm.Namespace, vm.Name, vm.UUID, vm.Kind, pid))
			}
			if diff := cmp.Diff(tt.want, have); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPodsOfProcesses(t *testing.T) {
	h := newHost(t)
	h.write("/proc/1/cgroup", "0::/init.scope\n")
	h.write("/proc/10/cgroup", "0::/machine.slice/x\n")
	h.write("/proc/20/cgroup", "0::/kubepods/pod"+podA+"/compute\n")
	for pid := 10; pid <= 30; pid += 10 {
		h.process(pid, uint64(pid), "qemu-kvm\x00", 1)
	}
	s := h.scanner(newClock())
	find := func(want ...string) {
		t.Helper()
		var have []string
		for _, vm := range scan(t, s) {
			have = append(have, vm.Pod)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Error(diff)
		}
	}
	find("", podA, "")
	h.write("/proc/20/cgroup", "0::/\n") // a process cannot leave: it is not asked again
	find("", podA, "")
	h.write("/proc/1/cgroup", "0::/kubepods/pod"+podA+"/node\n") // the host itself runs in a pod
	h.write("/proc/20/cgroup", "0::/kubepods/pod"+podA+"/node/libvirtd\n")
	h.write("/proc/30/cgroup", "0::/kubepods/pod"+podB+"\n")
	s = h.scanner(newClock())
	find("", "", podB)
}
