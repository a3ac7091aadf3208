package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
	"github.com/virtnode/nodeagent/test/prometheus"
)

// launcher is a virt-launcher pod with its machine: a bed of its own, in
// a control group that has the pod's UID, as the kubelet makes it.
type launcher struct {
	*libvirt.Host
	pod    *libvirt.Pod
	domain libvirt.Domain
	uuid   string
	group  string
}

// uidOf makes a pod's UID.
func uidOf(n int) string { return fmt.Sprintf("5d2f%04d-2a8c-4a6e-9d0e-3b1f00c0ffee", n) }

// startLauncher starts a pod's libvirtd and its machine, on a node whose
// kubelet has that folder.
func startLauncher(t *testing.T, kubelet string, n, user int, domain libvirt.Domain) *launcher {
	t.Helper()
	l := &launcher{pod: &libvirt.Pod{Kubelet: kubelet, UID: uidOf(n), User: user}, domain: domain}
	l.group = makeGroup(t, l.pod.UID)
	inGroup(t, l.group, func() {
		l.Host = libvirt.New(t, libvirt.Options{Pod: l.pod})
		must(t, l.StartDomain(t.Context(), domain))
	})
	var err error
	l.uuid, err = l.UUID(t.Context(), domain.Name)
	must(t, err)
	return l
}

// makeGroup makes a pod's control group, which goes when the test has ended,
// and the pod with it.
func makeGroup(t *testing.T, uid string) string {
	t.Helper()
	parent := filepath.Join(groups(), "kubepods-"+strconv.Itoa(os.Getpid()))
	group := filepath.Join(parent, "pod"+uid)
	must(t, os.MkdirAll(group, 0o755))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		err := hosttest.Poll(ctx, "the end of the pod's processes", func() (bool, error) { return os.Remove(group) == nil, nil })
		if err != nil {
			t.Error(err)
		}
		_ = os.Remove(parent) // others may be there
	})
	return group
}

// groups is a hierarchy of control groups: any, since processes are only put
// there, and version 1 has several.
func groups() string {
	if top := "/sys/fs/cgroup/pids"; exists(top) {
		return top
	}
	return "/sys/fs/cgroup"
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// inGroup does something while this process is in a control group: what it
// starts is born there.
func inGroup(t *testing.T, group string, do func()) {
	t.Helper()
	move := func(to string) {
		must(t, os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644))
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	before := groups()
	for line := range strings.Lines(string(own)) {
		// ID:CONTROLLERS:PATH
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && (parts[1] == "pids" || parts[1] == "" && groups() == "/sys/fs/cgroup") {
			before = filepath.Join(groups(), parts[2])
		}
	}
	move(group)
	defer move(before)
	do()
}

// startNodeAgent runs the agent as on a node: it finds by itself what there is
// below /var/lib/kubelet, and this machine's own libvirt is hidden.
func startNodeAgent(t *testing.T, kubelet string) *exporter.Process {
	t.Helper()
	mounts := map[string]string{"/var/lib/kubelet": kubelet, "/run/libvirt": t.TempDir()}
	return startAgentIn(t, exporter.AgentOptions{Mounts: mounts, Config: fmt.Sprintf("telemetry:\n  callTimeout: %v\n", callTimeout)})
}

// tells waits until the page has all of a launcher's machine, by the name and
// namespace that it has in the cluster.
func tells(t *testing.T, agent *exporter.Process, l *launcher) {
	t.Helper()
	namespace, name, _ := strings.Cut(l.domain.Name, "_")
	eventually(t, "the machine of pod "+l.pod.UID, func() error {
		page := scrape(t, agent)
		for _, family := range []string{"virtnode_vm_state", "virtnode_vm_memory_current_bytes", "virtnode_vm_block_read_bytes_total", "virtnode_vm_process_resident_memory_bytes"} {
			if len(page.Select(family, "uuid", l.uuid, "namespace", namespace, "name", name)) == 0 {
				return fmt.Errorf("no %s of %s/%s; there are %v", family, namespace, name, page.Select("virtnode_vm_info"))
			}
		}
		return nil
	})
}

// forgets waits until nothing of a machine is left on the page.
func forgets(t *testing.T, agent *exporter.Process, uuid string) {
	t.Helper()
	eventually(t, "the end of a machine's series", func() error {
		if left := scrape(t, agent).Select("", "uuid", uuid); len(left) > 0 {
			return fmt.Errorf("%d series are left, such as %s", len(left), left[0].Key())
		}
		return nil
	})
}

func TestPodsComeAndGo(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, libvirt.Missing())
	kubelet := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(kubelet, "pods", uidOf(99), "volumes"), 0o755)) // a pod without libvirt
	agent := startNodeAgent(t, kubelet)

	session := startLauncher(t, kubelet, 1, 107, libvirt.Domain{Name: "default_web"})
	tells(t, agent, session)
	system := startLauncher(t, kubelet, 2, 0, libvirt.Domain{Name: "shop_db"})
	tells(t, agent, system)

	// More pods come, one by one, and go while they are read.
	var before exporter.Usage
	for n := 3; n < 6; n++ {
		one := startLauncher(t, kubelet, n, 107, libvirt.Domain{Name: "default_short-" + strconv.Itoa(n)})
		tells(t, agent, one)
		must(t, one.Close())
		forgets(t, agent, one.uuid)
		tells(t, agent, session)
		tells(t, agent, system)
		if n == 3 {
			var err error
			before, err = exporter.UsageOf(agent.PID)
			must(t, err)
		}
	}
	eventually(t, "the agent to hold no more descriptors than before", func() error {
		scrape(t, agent)
		now, err := exporter.UsageOf(agent.PID)
		if err == nil && now.Descriptors > before.Descriptors {
			err = fmt.Errorf("it holds %d, and held %d", now.Descriptors, before.Descriptors)
		}
		return err
	})

	// A launcher's libvirt that dies leaves what the kernel tells.
	must(t, session.KillDaemon(t.Context()))
	eventually(t, "the kernel's part alone", func() error {
		page := scrape(t, agent)
		if len(page.Select("virtnode_vm_process_resident_memory_bytes", "uuid", session.uuid)) != 1 || len(page.Select("virtnode_vm_state", "uuid", session.uuid)) != 0 {
			return fmt.Errorf("%v", page.Select("", "uuid", session.uuid))
		}
		return nil
	})
	inGroup(t, session.group, func() { must(t, session.StartDaemon(t.Context())) })
	tells(t, agent, session)
}

// TestPodsMayNotLead puts into a pod's volume what leads out of it: nothing of
// the host's own machines may be told as the pod's, and the page stays whole.
func TestPodsMayNotLead(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, libvirt.Missing())
	kubelet := t.TempDir()
	host := newFleet(t, libvirt.Options{}, libvirt.Domain{Name: "treasure"})
	victim := startLauncher(t, kubelet, 1, 107, libvirt.Domain{Name: "default_victim"})
	agent := startNodeAgent(t, kubelet)
	tells(t, agent, victim)

	volume := func(n int) string {
		pod := libvirt.Pod{Kubelet: kubelet, UID: uidOf(n)}
		dir := filepath.Dir(pod.Socket())
		must(t, os.MkdirAll(dir, 0o755))
		return dir
	}
	must(t, os.Symlink(host.Socket(), filepath.Join(volume(11), "virtqemud-sock")))
	must(t, os.Link(host.Socket(), filepath.Join(volume(12), "virtqemud-sock")))
	must(t, os.Link(victim.pod.Socket(), filepath.Join(volume(13), "virtqemud-sock")))
	dir := volume(14)
	must(t, os.Remove(dir))
	must(t, os.Symlink(filepath.Dir(host.Socket()), dir))
	must(t, os.WriteFile(filepath.Join(volume(15), "virtqemud-sock"), []byte("no socket"), 0o644))
	must(t, unix.Mkfifo(filepath.Join(volume(16), "virtqemud-sock"), 0o666))

	// A pod that behaves, after these, shows that they were looked at.
	last := startLauncher(t, kubelet, 20, 107, libvirt.Domain{Name: "default_last"})
	tells(t, agent, last)
	treasure := host.uuids["treasure"]
	for range 10 {
		page := scrape(t, agent)
		if told := page.Select("virtnode_vm_state", "uuid", treasure); len(told) > 0 {
			t.Fatalf("a pod led to the host's libvirt: %s", told[0].Key())
		}
		if told := page.Select("virtnode_vm_state", "uuid", victim.uuid); len(told) != 1 {
			t.Fatalf("a pod led to another pod's libvirt: %v", told)
		}
	}

	// The pod's own socket becomes the host's under way.
	must(t, os.Link(host.Socket(), filepath.Join(victim.pod.Kubelet, "next")))
	must(t, os.Rename(filepath.Join(victim.pod.Kubelet, "next"), victim.pod.Socket()))
	must(t, victim.KillDaemon(t.Context()))
	eventually(t, "the pod's daemon to be gone", func() error {
		page := scrape(t, agent)
		if told := page.Select("virtnode_vm_state", "uuid", treasure); len(told) > 0 {
			t.Fatalf("a swapped socket led to the host's libvirt: %s", told[0].Key())
		}
		if len(page.Select("virtnode_vm_state", "uuid", victim.uuid)) > 0 {
			return errors.New("the machine still has a state")
		}
		return nil
	})
	tells(t, agent, last)
}

// hostileName is as long as the name in its place: a reply that has it is as
// long as the real one.
const (
	plainName   = "hostile-0123456789-0123456789"
	hostileName = "\"x\"} 1\n# EOF\n\xff\xfe\\{a=\"b\"}\x00\r\x1b"
)

// lie puts the hostile name in the place of the plain one.
func lie(packet []byte) {
	for i := bytes.Index(packet, []byte(plainName)); i >= 0; i = bytes.Index(packet, []byte(plainName)) {
		copy(packet[i:], hostileName+strings.Repeat("\n", len(plainName)-len(hostileName)))
	}
}

// TestHostileNames lets libvirt tell names that break a page which does not
// escape them: those that libvirt itself takes, and those that only a daemon
// that lies can tell.
func TestHostileNames(t *testing.T) {
	if len(plainName) < len(hostileName) {
		t.Fatalf("the plain name must be longer than %d bytes", len(hostileName))
	}
	long := strings.Repeat("a\"\\{}=\t", 1500)
	const openStack = "instance-1"
	f := newFleet(t, libvirt.Options{},
		libvirt.Domain{Name: `quo"te\back{sl}ash=,`, NICs: []libvirt.NIC{{}}, Title: `ti"tle` + long},
		libvirt.Domain{Name: openStack, NICs: []libvirt.NIC{{}}, Metadata: `<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:name>` + long + `</nova:name>` +
			`<nova:owner><nova:project uuid="1">p` + long + `</nova:project></nova:owner></nova:instance>`},
		libvirt.Domain{Name: "naïve-☃-" + strings.Repeat("x", 180), NICs: []libvirt.NIC{{}}},
		libvirt.Domain{Name: plainName, NICs: []libvirt.NIC{{}}},
	)
	liar := startImpostor(t, f.Socket(), 1<<30, lie)
	agent := startAgent(t, "", "qemu+unix:///system?socket="+liar.socket)
	var page *exporter.Page
	eventually(t, "a page with all machines", func() error {
		page = scrape(t, agent) // and so it parses
		for name, uuid := range f.uuids {
			told := page.Select("virtnode_vm_memory_current_bytes", "uuid", uuid)
			want := name
			switch name {
			case plainName:
				want = strings.ToValidUTF8(hostileName, "�")[:8]
			case openStack:
				want = long // as its XML says, which comes when libvirt tells
			}
			if len(told) != 1 || !strings.HasPrefix(told[0].Labels["name"], want[:min(len(want), 60)]) {
				return fmt.Errorf("%s: %v", name, told)
			}
		}
		return nil
	})
	if err := prometheus.CheckMetrics(t.Context(), page.Text); err != nil {
		t.Errorf("promtool: %v", err)
	}
	for _, sample := range page.Samples {
		for label, value := range sample.Labels {
			if len(value) > 256 {
				t.Errorf("%s: label %s has %d bytes", sample.Name, label, len(value))
			}
		}
	}
	w := watchAgent(t, f, agent)
	w.during(t, 10, func(page *exporter.Page) { w.keeps(t, page, f.names, kernel, light, monitor) }, func(*exporter.Page) error { return nil })
	w.recovers(t)
}

// TestHostileNamesInAPod has a pod whose machine's name breaks a page that does
// not escape it, and then a libvirt that lies, in the pod's own control group.
func TestHostileNamesInAPod(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, libvirt.Missing())
	kubelet := t.TempDir()
	agent := startNodeAgent(t, kubelet)
	named := startLauncher(t, kubelet, 1, 107, libvirt.Domain{Name: `default_quo"te\back{sl}ash=,`})
	lied := startLauncher(t, kubelet, 2, 107, libvirt.Domain{Name: plainName})
	last := startLauncher(t, kubelet, 3, 107, libvirt.Domain{Name: "default_last"})
	called := func(l *launcher, name string) func() error {
		return func() error {
			page := scrape(t, agent) // and so it parses
			told := page.Select("virtnode_vm_memory_current_bytes", "uuid", l.uuid)
			if len(told) != 1 || !strings.HasPrefix(told[0].Labels["name"], name) {
				return fmt.Errorf("%v, want %q", told, name)
			}
			return prometheus.CheckMetrics(t.Context(), page.Text)
		}
	}
	eventually(t, "a machine with a hostile name", called(named, named.domain.Name))
	eventually(t, "a machine with a plain one", called(lied, plainName))

	moved := filepath.Join(t.TempDir(), "real")
	must(t, os.Rename(lied.pod.Socket(), moved))
	liar := startImpostor(t, moved, 1<<30, lie)
	must(t, os.Rename(liar.socket, lied.pod.Socket()))
	agent = startNodeAgent(t, kubelet) // the other one's connections are older
	inGroup(t, lied.group, func() {
		eventually(t, "the lie", called(lied, strings.ToValidUTF8(hostileName, "\uFFFD")[:8]))
	})
	tells(t, agent, last)
}
