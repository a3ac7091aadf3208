package nodestack

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const exampleMounts = `21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
22 21 0:20 / /proc rw,nosuid shared:5 master:2 - proc proc rw
40 21 254:16 / /var/lib/with\040space rw - xfs /dev/vdb rw
`

func TestParseMountinfo(t *testing.T) {
	mounts, err := parseMountinfo([]byte(exampleMounts))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{{"/", "ext4", true}, {"/proc", "proc", true}, {"/var/lib/with space", "xfs", false}}
	if diff := cmp.Diff(want, mounts); diff != "" {
		t.Error(diff)
	}
	for _, lie := range []string{"", "\n", "21 1 254:0 / / rw,relatime shared:1", "1 2 3 - ext4 x y", "\x00"} {
		if mounts, err := parseMountinfo([]byte(lie)); err == nil {
			t.Errorf("%q gave %v", lie, mounts)
		}
	}
}

func TestMountOfTakesTheLongestAndTheLast(t *testing.T) {
	mounts := known([]Mount{{"/", "ext4", true}, {"/var", "xfs", true}, {"/var/lib", "btrfs", false}, {"/var/lib", "zfs", true}, {"/var/libelle", "nfs", true}})
	for name, want := range map[string]string{"/var/lib/kubelet": "zfs", "/var/lib": "zfs", "/var/log": "xfs", "/variety": "ext4", "/": "ext4"} {
		if got := mountOf(mounts, name); got.Value.Type != want {
			t.Errorf("%s lies on %+v, want %s", name, got, want)
		}
	}
	if got := mountOf(known([]Mount{{"/var", "xfs", true}}), "/etc"); got.Known {
		t.Errorf("a path outside every mount: %+v", got)
	}
}

func TestParseFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want map[string]string
	}{
		"assigned":           {[]string{"/usr/bin/kubelet", "--root-dir=/data/kubelet", "--v=2"}, map[string]string{"root-dir": "/data/kubelet"}},
		"in two arguments":   {[]string{"kubelet", "--config", "/k.yaml", "--root-dir"}, map[string]string{"config": "/k.yaml"}},
		"the last one wins":  {[]string{"kubelet", "--config=/a", "-config=/b"}, map[string]string{"config": "/b"}},
		"none":               {[]string{"kubelet"}, map[string]string{}},
		"not a flag":         {[]string{"kubelet", "root-dir=/x"}, map[string]string{}},
		"secrets stay there": {[]string{"kubelet", "--tls-private-key-file=/k", "--token=x"}, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseFlags([]byte(strings.Join(test.args, "\x00")+"\x00"))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte("Name:\tkubelet\nUid:\t0\t0\t0\t0\nNSpid:\t812\t7\n"))
	if err != nil || got != (process{uid: 0, nested: true}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := parseStatus([]byte("Name:\tx\n")); err == nil {
		t.Errorf("no Uid: %+v", got)
	}
}

func TestParseCheckpoint(t *testing.T) {
	got, err := parseCheckpoint([]byte(`{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"devices.kubevirt.io/kvm":["kvm0","kvm1"],"nvidia.com/gpu":[]}},"Checksum":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"devices.kubevirt.io/kvm": 2, "nvidia.com/gpu": 0}, got); diff != "" {
		t.Error(diff)
	}
	for _, lie := range []string{"", "{}", `{"Data":{"RegisteredDevices":{"x":"y"}}}`, `{"Data":`} {
		if got, err := parseCheckpoint([]byte(lie)); err == nil {
			t.Errorf("%q gave %v", lie, got)
		}
	}
}

func TestParseModuleList(t *testing.T) {
	const list = `kernel/drivers/md/dm-crypt.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/block/rbd.ko: kernel/net/ceph/libceph.ko
updates/dkms/nfs.ko.zst:
kernel/fs/nfsd/nfsd.ko
`
	if diff := cmp.Diff([]string{"dm_crypt", "rbd", "nfs"}, parseModuleList([]byte(list), storageModules)); diff != "" {
		t.Error(diff)
	}
}

func TestParseBlacklist(t *testing.T) {
	for name, test := range map[string]struct {
		conf string
		want bool
	}{
		"as Longhorn wants it":   {"defaults {\n user_friendly_names yes\n}\nblacklist {\n    devnode \"^sd[a-z0-9]+\"\n}\n", true},
		"on one line":            {`blacklist { devnode "^sd" }`, true},
		"commented out":          {"#blacklist {\n# devnode \"^sd\"\n#}\n", false},
		"empty":                  {"blacklist {\n}\n", false},
		"only exceptions":        {"blacklist_exceptions {\n devnode \"^sd\"\n}\n", false},
		"a device in defaults":   {"devices {\n device {\n vendor x\n }\n}\n", false},
		"a device type":          {"blacklist {\n device {\n vendor \"IET\"\n }\n}\n", true},
		"nothing":                {"", false},
		"a section never closed": {"blacklist {\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseBlacklist([]byte(test.conf)); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestParseDomain(t *testing.T) {
	status := func(channel string) string {
		return "<!--\nWARNING\n-->\n<domstatus state='running' pid='1'><domain type='kvm' id='1'><name>web</name><devices>" + channel + "</devices></domain></domstatus>\n"
	}
	for name, test := range map[string]struct {
		text string
		want string
		bad  bool
	}{
		"connected":           {status(`<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>`), "connected", false},
		"never opened":        {status(`<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`), "disconnected", false},
		"another channel":     {status(`<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0' state='connected'/></channel>`), "", false},
		"no channel":          {status(""), "", false},
		"no domain":           {"<domstatus/>", "", true},
		"another document":    {"<network/>", "", true},
		"nothing":             {"", "", true},
		"cut in the middle":   {status("")[:90], "", true},
		"an undefined entity": {status("&lol;"), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseDomain([]byte(test.text))
			if (err != nil) != test.bad || got.Agent != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestParseKubeletConfig(t *testing.T) {
	got, err := parseKubeletConfig([]byte("kind: KubeletConfiguration\ncgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n"))
	if err != nil || got != (KubeletConfig{"systemd", "unix:///run/crio/crio.sock"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := parseKubeletConfig([]byte("a: [")); err == nil {
		t.Errorf("got %+v", got)
	}
	for endpoint, want := range map[string]string{
		"unix:///run/crio/crio.sock": "/run/crio/crio.sock", "/run/a/../b.sock": "/run/b.sock", "": "", "tcp://1.2.3.4:5": "", "unix://rel": "",
	} {
		if got := socketPath(endpoint); got != want {
			t.Errorf("%q is %q, want %q", endpoint, got, want)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want Network
	}{
		"a list": {
			`{"cniVersion":"0.3.1","name":"cbr0","plugins":[{"type":"bridge","mtu":1450,"ipam":{"type":"host-local"}},{"type":"portmap","capabilities":{}}]}`,
			Network{Name: "cbr0", Plugins: []Plugin{{Type: "bridge", IPAM: "host-local", MTU: 1450}, {Type: "portmap"}}},
		},
		"a single plugin": {`{"name":"lo","type":"loopback"}`, Network{Name: "lo", Plugins: []Plugin{{Type: "loopback"}}}},
		"thin Multus with delegates": {
			`{"name":"multus","type":"multus","kubeconfig":"/x","delegates":[{"name":"cbr0","plugins":[{"type":"flannel"},{"type":"portmap"}]},{"type":"macvlan","mtu":9000}]}`,
			Network{Name: "multus", Plugins: []Plugin{{Type: "multus"}}, Delegates: []Plugin{{Type: "flannel"}, {Type: "portmap"}, {Type: "macvlan", MTU: 9000}}},
		},
		"thick Multus": {
			`{"name":"multus","type":"multus-shim","clusterNetwork":"/host/etc/cni/net.d/10-calico.conflist"}`,
			Network{Name: "multus", Plugins: []Plugin{{Type: "multus-shim"}}, ClusterNetwork: "/host/etc/cni/net.d/10-calico.conflist"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseNetwork([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, lie := range map[string]string{
		"nothing": "", "no object": "[]", "no type": "{}", "no plugin": `{"plugins":[]}`, "half": `{"plugins":[{"type":"br`,
		"a path for a program": `{"type":"../../bin/sh"}`, "an absolute path": `{"type":"/bin/sh"}`, "dots": `{"type":".."}`,
		"a path for an IPAM": `{"type":"bridge","ipam":{"type":"a/b"}}`, "a negative MTU": `{"type":"bridge","mtu":-1}`,
		"too many plugins": `{"plugins":[` + strings.Repeat(`{"type":"x"},`, 100) + `{"type":"x"}]}`,
	} {
		if got, err := parseNetwork([]byte(lie)); err == nil {
			t.Errorf("%s gave %+v", name, got)
		}
	}
}

func TestParseSettings(t *testing.T) {
	yes, no := true, false
	for name, test := range map[string]struct {
		text string
		want RuntimeSettings
	}{
		"containerd 1.6": {
			`{"containerd":{"snapshotter":"overlayfs","defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}},"cni":{"binDir":"/opt/cni/bin/","confDir":"/etc/cni/net.d"}}`,
			RuntimeSettings{Snapshotter: "overlayfs", SystemdCgroup: &yes, CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin"}},
		},
		"no options is runc's default": {
			`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":null}}}}`, RuntimeSettings{SystemdCgroup: &no},
		},
		"containerd 2.1": {
			`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"kata":{}}},"cni":{"binDir":"","binDirs":["/opt/cni/bin","/usr/lib/cni"],"confDir":"/etc/cni/net.d"}}`,
			RuntimeSettings{CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin", "/usr/lib/cni"}},
		},
		"CRI-O": {`{"sandboxImage":"registry.k8s.io/pause:3.10"}`, RuntimeSettings{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSettings([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte(exampleMounts))
	f.Add([]byte("kubelet\x00--root-dir=/x\x00"))
	f.Add([]byte("Uid:\t0\t0\t0\t0\nNSpid:\t1\n"))
	f.Add([]byte(`{"Data":{"RegisteredDevices":{"a":["b"]}}}`))
	f.Add([]byte("kernel/a/rbd.ko.xz: x\n"))
	f.Add([]byte("blacklist { devnode \"x\" }"))
	f.Add([]byte("cgroupDriver: systemd\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if mounts, err := parseMountinfo(data); err == nil && len(mounts) == 0 {
			t.Error("no mount and no error")
		}
		for name, value := range parseFlags(data) {
			if value == "" || len(value) > maxFlag {
				t.Errorf("flag %s is %d bytes long", name, len(value))
			}
		}
		if process, err := parseStatus(data); err == nil && process.uid < 0 {
			t.Errorf("%+v and no error", process)
		}
		_, _ = parseCheckpoint(data)
		_ = parseModuleList(data, storageModules)
		_ = parseBlacklist(data)
		_, _ = parseKubeletConfig(data)
		_ = clip(string(data))
	})
}

func FuzzParseNetwork(f *testing.F) {
	f.Add([]byte(`{"name":"multus","type":"multus","delegates":[{"plugins":[{"type":"flannel"}]}]}`))
	f.Add([]byte(`{"plugins":[{"type":"bridge","mtu":1,"ipam":{"type":"static"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		network, err := parseNetwork(data)
		if err != nil {
			return
		}
		if len(network.Plugins) == 0 {
			t.Error("no plugin and no error")
		}
		for _, name := range network.programs() {
			if strings.ContainsAny(name, "/\x00") || name == ".." {
				t.Errorf("%q may be joined to a path", name)
			}
		}
		_ = describe(network)
	})
}

func FuzzParseDomain(f *testing.F) {
	f.Add([]byte(`<domstatus><domain><name>x</name><devices><channel><target name='org.qemu.guest_agent.0' state='connected'/></channel></devices></domain></domstatus>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if domain, err := parseDomain(data); err == nil && domain.Name == "" {
			t.Error("no name and no error")
		}
	})
}

func FuzzParseSettings(f *testing.F) {
	f.Add([]byte(`{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}},"cni":{"binDir":"/opt/cni/bin"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, _ := parseSettings(data)
		for _, dir := range settings.CNIBinDirs {
			if !usable(dir) {
				t.Errorf("%q would be looked at", dir)
			}
		}
	})
}

func FuzzParseAnswers(f *testing.F) {
	f.Add([]byte(`{"running":{"daemons":{"value":[{"name":"kubelet"}]}},"runtimes":{"/x":{"state":"answered"}},"clock":{"error":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		live, err := parseAnswers(data)
		if err != nil {
			return
		}
		_ = live.Running()
		_ = live.Clock()
	})
}
