package hostfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// replayed records what use reads of a host, and opens the recording.
func replayed(t *testing.T, host *Root, manifest Manifest, use func(*Root)) *Root {
	t.Helper()
	live, recorder := host.Record()
	use(live)
	var archive bytes.Buffer
	if err := recorder.WriteArchive(&archive, manifest); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "host.tar.gz")
	if err := os.WriteFile(name, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestRecordingReplaysWhatWasRead(t *testing.T) {
	host := tree(t, map[string]string{
		"sys/bus/pci/devices/0000:00:01.0":             "->../../../devices/pci0000:00/0000:00:01.0",
		"sys/devices/pci0000:00/0000:00:01.0/class":    "0x020000\n",
		"sys/devices/pci0000:00/0000:00:01.0/secret":   "not asked for",
		"sys/devices/pci0000:00/0000:00:01.0/driver":   "->../../../bus/pci/drivers/igb",
		"sys/bus/pci/drivers/igb/bind":                 "",
		"sys/devices/pci0000:00/0000:00:01.0/net/eth0": "",
		"dev/kvm":       "",
		"proc/unlisted": "",
	})
	use := func(r *Root) map[string]any {
		const device = "/sys/bus/pci/devices/0000:00:01.0"
		out := make(map[string]any)
		put := func(key string, value any, err error) {
			out[key] = value
			if err != nil {
				out[key+" error"] = err.Error()
			}
		}
		names, err := r.ReadDir("/sys/bus/pci/devices")
		put("devices", names, err)
		class, err := r.ReadString(device + "/class")
		put("class", class, err)
		driver, err := r.ReadLink(device + "/driver")
		put("driver", driver, err)
		bound, err := r.Exists(device + "/driver")
		put("bound", bound, err)
		kvm, err := r.Exists("/dev/kvm")
		put("kvm", kvm, err)
		vfs, err := r.Exists(device + "/sriov_totalvfs")
		put("vfs", vfs, err)
		missing, err := r.ReadUint(device + "/numa_node")
		put("missing", missing, err)
		wrong, err := r.ReadFile(device + "/net")
		put("a directory", wrong, err)
		notLink, err := r.ReadLink(device + "/class")
		put("not a link", notLink, err)
		return out
	}
	var live map[string]any
	root := replayed(t, host, Manifest{Arch: "amd64"}, func(r *Root) { live = use(r) })
	if diff := cmp.Diff(live, use(root)); diff != "" {
		t.Errorf("replayed differently (-live +replayed):\n%s", diff)
	}
	if root.Recording().Arch != "amd64" {
		t.Error("the manifest's own fields are lost")
	}
	// What nobody asked for is undecided, not absent.
	for _, name := range []string{"/sys/devices/pci0000:00/0000:00:01.0/secret", "/proc/unlisted", "/proc/cpuinfo"} {
		if _, err := root.ReadFile(name); !errors.Is(err, ErrNotRecorded) {
			t.Errorf("%s: got %v, want it not recorded", name, err)
		}
	}
	if _, err := root.Exists("/sys/module"); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("got %v, want it not recorded", err)
	}
	if _, err := root.ReadFile("/sys/bus/pci/devices/0000:00:02.0/class"); !Absent(err) {
		t.Errorf("a device that the listing lacks: got %v", err)
	}
}

func TestMaskReplacesIdentities(t *testing.T) {
	host := tree(t, map[string]string{
		"sys/class/dmi/id/product_serial":        "ABC123\n",
		"sys/class/dmi/id/product_uuid":          "4c4c4544-0051-3510-8052-b4c04f4a5931\n",
		"sys/class/net/enx0a1b2c3d4e5f/address":  "0a:1b:2c:3d:4e:5f\n",
		"sys/class/net/eth1/address":             "0a:1b:2c:3d:4e:60\n",
		"sys/class/net/eth1/peer":                "0a:1b:2c:3d:4e:5f\n",
		"proc/cmdline":                           "root=UUID=4c4c4544-0051-3510-8052-b4c04f4a5931 intel_iommu=on iommu.passthrough=1 password=hunter2 -- ABC123 iommu=off\n",
		"sys/bus/pci/devices/0000:00:01.0/class": "0x020000\n",
		"proc/1/mountinfo":                       "36 35 98:0 / /data rw shared:1 - nfs4 ABC123:/export rw,password=hunter2\n",
		"etc/cni/net.d/10-x.conf":                `{"type":"x","k8s_auth_token": "hunter2","mtu":1450}`,
	})
	root := replayed(t, host, Manifest{Masked: true}, func(r *Root) {
		for _, name := range []string{
			"/sys/class/dmi/id/product_serial", "/sys/class/dmi/id/product_uuid",
			"/sys/class/net/enx0a1b2c3d4e5f/address", "/sys/class/net/eth1/address", "/sys/class/net/eth1/peer",
			"/proc/cmdline", "/sys/bus/pci/devices/0000:00:01.0/class", "/proc/1/mountinfo", "/etc/cni/net.d/10-x.conf",
		} {
			if _, err := r.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.ReadDir("/sys/class/net"); err != nil {
			t.Fatal(err)
		}
	})
	err := filepath.WalkDir(root.Dir(), func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		for _, secret := range []string{"ABC123", "4c4c4544", "hunter2", "0a:1b:2c", "0a1b2c"} {
			if strings.Contains(name+string(data), secret) {
				t.Errorf("%s shows %s", name, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names, err := root.ReadDir("/sys/class/net")
	if err != nil || len(names) != 2 {
		t.Fatalf("got %v, %v", names, err)
	}
	renamed, err := root.ReadString("/sys/class/net/" + names[0] + "/address")
	peer, err2 := root.ReadString("/sys/class/net/eth1/peer")
	own, err3 := root.ReadString("/sys/class/net/eth1/address")
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	if renamed != peer || peer == own {
		t.Errorf("equal addresses must stay equal and others differ: %s %s %s", renamed, peer, own)
	}
	if line, err := root.ReadString("/proc/cmdline"); line != "intel_iommu=on iommu.passthrough=1" {
		t.Errorf("masked command line: got %q, %v", line, err)
	}
	if line, err := root.ReadString("/proc/1/mountinfo"); line != "36 35 98:0 / /data rw shared:1 - nfs4 masked masked" {
		t.Errorf("masked mount: got %q, %v", line, err)
	}
	if text, err := root.ReadString("/etc/cni/net.d/10-x.conf"); text != `{"type":"x","k8s_auth_token": "masked","mtu":1450}` {
		t.Errorf("masked network: got %q, %v", text, err)
	}
	if _, err := root.ReadString("/sys/bus/pci/devices/0000:00:01.0/class"); err != nil {
		t.Errorf("a PCI address was masked: %v", err)
	}
}

func tarOf(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, header := range headers {
		body := header.Linkname
		if header.Typeflag == tar.TypeReg {
			header.Size, header.Linkname = int64(len(body)), ""
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostileArchivesAreRefused(t *testing.T) {
	manifest := &tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Linkname: `{"version":1}`}
	for name, archive := range map[string][]byte{
		"an empty file":        {},
		"no archive":           []byte("hello, world, this is no archive at all"),
		"gzip of nothing":      {0x1f, 0x8b, 0, 0},
		"no manifest":          tarOf(t, &tar.Header{Typeflag: tar.TypeReg, Name: "proc/cpuinfo", Linkname: "x"}),
		"a device":             tarOf(t, manifest, &tar.Header{Typeflag: tar.TypeChar, Name: "dev/mem"}),
		"a hard link":          tarOf(t, manifest, &tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "/etc/shadow"}),
		"a file written twice": tarOf(t, manifest, manifest),
		"another version":      tarOf(t, &tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Linkname: `{"version":99}`}),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.tar")
			if err := os.WriteFile(file, archive, 0o600); err != nil {
				t.Fatal(err)
			}
			root, err := Open(file)
			if err == nil {
				t.Fatalf("opened: %+v", root.Recording())
			}
			t.Log(err)
		})
	}
}

func TestUnpackStaysInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "victim")
	dir := t.TempDir()
	archive := tarOf(t,
		&tar.Header{Typeflag: tar.TypeReg, Name: "../../../../../../" + outside, Linkname: "escaped"},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: filepath.Dir(outside)},
		&tar.Header{Typeflag: tar.TypeReg, Name: "link/victim", Linkname: "escaped"},
	)
	err := unpack(bytes.NewReader(archive), dir)
	if _, statErr := os.Stat(outside); !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("a file was written outside (unpack said %v)", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, &tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Linkname: `{"version":1}`}))
	f.Add(tarOf(f, &tar.Header{Typeflag: tar.TypeSymlink, Name: "a/b", Linkname: "../../x"}))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = unpack(bytes.NewReader(data), t.TempDir())
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"listed":{"/sys":["a"]},"absent":["/x"],"faults":{"read /y":"EIO"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		manifest, err := parseManifest(data)
		if err != nil {
			return
		}
		_, _ = manifest.list("/sys")
		_ = manifest.fault("read", "/y")
		_ = manifest.absence("/x/y/z")
	})
}

func FuzzValues(f *testing.F) {
	f.Add([]byte("Y\n"))
	f.Add([]byte("-12\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseBool(data)
		_, _ = parseInt(data)
		_, _ = parseUint(data)
		_, _ = parseString(data)
	})
}
