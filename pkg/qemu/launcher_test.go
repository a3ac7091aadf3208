package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	podA = "aaaaaaaa-0000-1111-2222-333333333333"
	podB = "bbbbbbbb-0000-1111-2222-333333333333"
	pods = "/var/lib/kubelet/pods"
)

// runtimeDir is where a pod's libvirt has its socket.
func runtimeDir(uid string) string {
	return path.Join(append([]string{pods, uid}, launcherVolume[:]...)...)
}

// launcher makes a pod with a daemon, whose socket's path is too long for an
// address, and which is of the pod as far as /proc tells.
func (h *fakeHost) launcher(uid string) *fakeDaemon {
	h.t.Helper()
	d := startDaemon(h.t, h.dir, "/"+uid[:4])
	h.cgroup("0::/kubepods/burstable/pod" + uid + "/compute\n")
	h.move("/"+uid[:4], path.Join(runtimeDir(uid), "virtqemud-sock"))
	return d
}

// cgroup says where this process is, which all fake daemons are.
func (h *fakeHost) cgroup(text string) {
	h.write(fmt.Sprintf("/proc/%d/cgroup", os.Getpid()), text)
}

func (h *fakeHost) mkdir(name string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, name), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) move(from, to string) {
	h.t.Helper()
	h.mkdir(path.Dir(to))
	if err := os.Rename(filepath.Join(h.dir, from), filepath.Join(h.dir, to)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) launchers() *launchers {
	return newLaunchers(h.root, "/var/lib/kubelet", slog.New(slog.DiscardHandler))
}

// connectPod opens the daemon of pod A.
func (h *fakeHost) connectPod() error {
	l := line{daemon: &daemon{root: h.root, target: target{name: "pod:" + podA, dir: pods, pod: podA, owner: -1}, life: h.t.Context()}}
	defer l.close()
	return l.connect(time.Now().Add(time.Minute))
}

// found are the first letters of the pods that are known.
func (l *launchers) found() string {
	var all []byte
	for _, t := range l.targets() {
		all = append(all, t.pod[0])
	}
	return string(all)
}

func TestLauncherIsFoundAndOpened(t *testing.T) {
	h := newHost(t)
	d := h.launcher(podA)
	h.mkdir("/var/log/pods/ns_virt-launcher-vm-abcde_" + podA)
	h.mkdir("/var/log/pods/ns_other_" + podB)
	h.mkdir(runtimeDir(podB)) // its libvirt has not started
	h.mkdir(path.Join(pods, "not a pod", "volumes"))
	l := h.launchers()
	l.scan(nil)
	if have := l.found(); have != "a" {
		t.Fatalf("found %q, want a", have)
	}
	if got, want := l.pod(podA), (pod{podA, "ns", "virt-launcher-vm-abcde"}); got != want {
		t.Errorf("have %+v, want %+v", got, want)
	}
	if got := l.pod("other"); got != (pod{uid: "other"}) {
		t.Errorf("a pod without logs: %+v", got)
	}
	if full := filepath.Join(h.dir, runtimeDir(podA), "virtqemud-sock"); len(full) <= maxSunPath {
		t.Fatalf("%s is too short for the test", full)
	}
	if err := h.connectPod(); err != nil || len(d.opens) != 1 || d.opens[0] != 1 {
		t.Errorf("%v; opened with flags %v, want once and read-only", err, d.opens)
	}
}

// TestLauncherAsksForTheOtherDriver: which one a pod's daemon serves depends
// on the user it runs as inside.
func TestLauncherAsksForTheOtherDriver(t *testing.T) {
	h := newHost(t)
	d := h.launcher(podA)
	for _, only := range []string{driverSystem, driverSession} {
		d.set(func(d *fakeDaemon) { d.control.driver, d.opens = only, nil })
		if err := h.connectPod(); err != nil || len(d.opens) != 1 {
			t.Errorf("%s: %v", only, err)
		}
	}
	d.set(func(d *fakeDaemon) { d.control.driver = "none" })
	var refused *callError
	if err := h.connectPod(); !errors.As(err, &refused) {
		t.Errorf("no driver: %v", err)
	}
}

func TestLauncherOfOldKubeVirt(t *testing.T) {
	h := newHost(t)
	h.launcher(podA)
	h.move(path.Join(runtimeDir(podA), "virtqemud-sock"), path.Join(runtimeDir(podA), "libvirt-sock"))
	l := h.launchers()
	l.scan(nil)
	if have := l.found(); have != "a" {
		t.Errorf("found %q, want a", have)
	}
	if err := h.connectPod(); err != nil {
		t.Error(err)
	}
}

// TestLauncherFollowsNoLink: whatever a pod puts on the way to its socket, the
// host's daemon is not reached.
func TestLauncherFollowsNoLink(t *testing.T) {
	for name, attack := range map[string]func(h *fakeHost){
		"socket, absolute": func(h *fakeHost) { h.link(path.Join(runtimeDir(podA), "virtqemud-sock"), "/run/libvirt/libvirt-sock") },
		"socket, outside the root": func(h *fakeHost) {
			h.link(path.Join(runtimeDir(podA), "virtqemud-sock"), filepath.Join(h.dir, "/run/libvirt/libvirt-sock"))
		},
		"socket, relative": func(h *fakeHost) {
			h.link(path.Join(runtimeDir(podA), "virtqemud-sock"), "../../../../../../../../run/libvirt/libvirt-sock")
		},
		"socket of another name":  func(h *fakeHost) { h.link(path.Join(runtimeDir(podA), "libvirt-sock"), "/run/libvirt/libvirt-sock") },
		"directory of the socket": func(h *fakeHost) { h.link(runtimeDir(podA), filepath.Join(h.dir, "/run/libvirt")) },
		"directory on the way": func(h *fakeHost) {
			h.link(path.Join(pods, podA, "volumes"), filepath.Join(h.dir, "/var/lib/kubelet/pods", podB, "volumes"))
		},
		"the pod's own directory":   func(h *fakeHost) { h.link(path.Join(pods, podA), podB) },
		"a file, not a socket":      func(h *fakeHost) { h.write(path.Join(runtimeDir(podA), "virtqemud-sock"), "x") },
		"a directory, not a socket": func(h *fakeHost) { h.mkdir(path.Join(runtimeDir(podA), "virtqemud-sock")) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			host := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
			h.link("/run/libvirt/virtqemud-sock", "libvirt-sock")
			other := h.launcher(podB)
			h.cgroup("0::/kubepods/pod" + podA + "\n") // the last line of defence is down
			attack(h)
			l := h.launchers()
			l.scan(nil)
			if err := h.connectPod(); err == nil {
				t.Error("connected")
			}
			if len(host.opens)+len(other.opens) > 0 {
				t.Error("another daemon was reached")
			}
		})
	}
}

// TestLauncherBelievesTheControlGroup: a socket of the host, moved or bound
// into the pod, is served by a process outside the pod.
func TestLauncherBelievesTheControlGroup(t *testing.T) {
	h := newHost(t)
	d := h.launcher(podA)
	for _, elsewhere := range []string{"0::/system.slice/libvirtd.service\n", "0::/kubepods/pod" + podB + "/x/pod" + podA + "\n", "0::/\n", ""} {
		h.cgroup(elsewhere)
		if err := h.connectPod(); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%q: %v", elsewhere, err)
		}
	}
	if len(d.opens) > 0 {
		t.Error("a daemon was opened before its peer was checked")
	}
	if err := checkPod(h.root, podA, &unix.Ucred{Pid: 1 << 30, Uid: 107}); err != nil {
		t.Errorf("a user, the group unknown: %v", err)
	}
	if err := checkPod(h.root, podA, &unix.Ucred{Pid: 1 << 30}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("root, the group unknown: %v", err)
	}
}

// TestLauncherSocketIsTheOneThatWasLookedAt swaps the socket for a link to the
// host's as fast as it can: every connection is the pod's or fails.
func TestLauncherSocketIsTheOneThatWasLookedAt(t *testing.T) {
	h := newHost(t)
	host := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	own := h.launcher(podA)
	socket := filepath.Join(h.dir, runtimeDir(podA), "virtqemud-sock")
	h.link("/evil", filepath.Join(h.dir, "/run/libvirt/libvirt-sock"))
	evil := filepath.Join(h.dir, "evil")
	ctx, cancel := context.WithCancel(t.Context())
	swapped := make(chan struct{})
	go func() {
		defer close(swapped)
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, evil, unix.AT_FDCWD, socket, unix.RENAME_EXCHANGE)
		}
	}()
	connected, refused := 0, 0
	for try := 0; try < 20_000 && (connected < 20 || refused < 20); try++ {
		switch err := h.connectPod(); {
		case err == nil:
			connected++
		case errors.Is(err, unix.ELOOP):
			refused++
		default:
			t.Errorf("connect: %v", err)
		}
	}
	cancel()
	<-swapped
	if connected < 20 || refused < 20 {
		t.Errorf("connected %d times and refused %d times: nothing was swapped", connected, refused)
	}
	host.set(func(host *fakeDaemon) {
		if len(host.conns) > 0 {
			t.Errorf("the host's daemon was reached %d times", len(host.conns))
		}
	})
	own.set(func(own *fakeDaemon) {
		if len(own.opens) != connected {
			t.Errorf("the pod's daemon was opened %d times, want %d", len(own.opens), connected)
		}
	})
}

// follow runs launchers until the test ends.
func (l *launchers) follow(t *testing.T) {
	t.Helper()
	checkGoroutines(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func TestLaunchersComeAndGo(t *testing.T) {
	h := newHost(t)
	h.mkdir(pods)
	h.mkdir("/var/log/pods")
	l := h.launchers()
	l.rescan, l.blind, l.settle = time.Hour, time.Hour, time.Millisecond // only inotify is fast enough
	l.follow(t)
	until := func(what, want string) {
		t.Helper()
		eventually(t, what, func() bool { return l.found() == want })
	}
	h.mkdir(path.Join(pods, podB)) // one that never becomes a launcher
	h.mkdir(path.Join(pods, podB, "volumes", "kubernetes.io~empty-dir", "data"))
	for round := range 3 {
		h.launcher(podA)
		until(fmt.Sprint("round ", round, ": the pod comes"), "a")
		h.remove(path.Join(runtimeDir(podA), "virtqemud-sock"))
		until("its socket goes", "")
		h.launcher(podA)
		until("its socket is back", "a")
		h.remove(path.Join(pods, podA))
		until("the pod goes", "")
	}
	// Step by step, as the kubelet does it.
	h.launcher(podA)
	h.mkdir(path.Join(pods, podB, "volumes", "kubernetes.io~empty-dir", "libvirt-runtime"))
	h.move(path.Join(runtimeDir(podA), "virtqemud-sock"), path.Join(runtimeDir(podB), "virtqemud-sock"))
	until("a socket appears in a pod that was there", "b")
}

func TestLaunchersAreFoundWithoutInotify(t *testing.T) {
	for name, watch := range map[string]func() (*watch, error){
		"no instance": func() (*watch, error) { return nil, unix.EMFILE },
		"no watch": func() (*watch, error) {
			w, err := newWatch()
			if err == nil {
				w.fd = -1
			}
			return w, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mkdir(pods)
			l := h.launchers()
			l.watch, l.rescan, l.blind = watch, time.Hour, time.Millisecond
			l.follow(t)
			h.launcher(podA)
			eventually(t, "the pod is found", func() bool { return l.found() == "a" })
			h.remove(path.Join(pods, podA))
			eventually(t, "the pod is dropped", func() bool { return l.found() == "" })
		})
	}
}

func TestLaunchersAreFoundWhenTheKubeletComesLate(t *testing.T) {
	h := newHost(t)
	l := h.launchers()
	l.rescan, l.blind = time.Hour, time.Millisecond
	l.follow(t)
	h.launcher(podA)
	eventually(t, "the pod is found", func() bool { return l.found() == "a" })
}

// TestLaunchersLeaveNoWatchBehind: a watch of a directory that is of no more
// interest would pin memory in the kernel.
func TestLaunchersLeaveNoWatchBehind(t *testing.T) {
	h := newHost(t)
	w, err := newWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	l := h.launchers()
	h.launcher(podA)
	h.launcher(podB)
	if !l.scan(w) || len(w.placed) != 3 {
		t.Fatalf("%d watches, want those of two pods and of the directory of pods", len(w.placed))
	}
	h.remove(path.Join(pods, podA))
	if !l.scan(w) || len(w.placed) != 2 {
		t.Errorf("%d watches after a pod went, want 2", len(w.placed))
	}
}

func BenchmarkLauncherScan(b *testing.B) {
	h := newHost(b)
	for i := range 250 {
		uid := fmt.Sprintf("%08x-0000-1111-2222-333333333333", i)
		h.mkdir(path.Join(pods, uid, "volumes", "kubernetes.io~empty-dir", "data"))
		if i%5 == 0 {
			h.write(path.Join(runtimeDir(uid), "virtqemud-sock"), "")
			h.mkdir("/var/log/pods/ns_pod_" + uid)
		}
	}
	w, err := newWatch()
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	l := h.launchers()
	l.scan(w)
	b.ReportAllocs()
	for b.Loop() {
		l.scan(w)
	}
}

// TestCollectFollowsPods: machines of pods are told by their names in the
// cluster, with their process, as long as the pod is there.
func TestCollectFollowsPods(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	host := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	host.domains = []fakeDomain{domainNamed("ns_vm", 1)}
	h.mkdir(pods)
	opt := patient(h, now)
	opt.Kubelet = "/var/lib/kubelet"
	c := run(t, opt)
	names := func() string {
		s := c.Collect(t.Context())
		defer s.Release()
		var all []string
		for _, vm := range s.VMs {
			all = append(all, fmt.Sprintf("%s/%s %s %t %.1s", vm.Namespace, vm.Name, vm.Kind, vm.Process != nil, vm.Pod))
		}
		return strings.Join(all, ", ")
	}
	until := func(what, want string) {
		t.Helper()
		var have string
		eventually(t, what+": "+want, func() bool { have = names(); return have == want })
	}
	until("the host's alone", "/ns_vm libvirt false ")

	_, uuid := uuidOf(2)
	h.process(200, 300, "qemu-system-x86_64\x00-name\x00guest=ns_vm\x00-uuid\x00"+uuid+"\x00", 20)
	h.write("/proc/200/cgroup", "0::/kubepods/pod"+podA+"/compute\n")
	h.mkdir("/var/log/pods/ns_virt-launcher-vm-abcde_" + podA)
	d := h.launcher(podA)
	d.set(func(d *fakeDaemon) {
		// A second one is more than a launcher has.
		d.domains = []fakeDomain{domainNamed("ns_vm", 2), domainNamed("ns_more", 3)}
		d.control.xml = map[string]string{"ns_vm": domainText}
	})
	until("with its pod", "/ns_vm libvirt false , ns/vm kubevirt true a")

	d.set(func(d *fakeDaemon) {
		d.domains = []fakeDomain{domainNamed(strings.Repeat("\xff\"\n", 4000), 2)}
	})
	eventually(t, "a hostile name is bounded", func() bool {
		have := names()
		return strings.Contains(have, "ns/\uFFFD\"\n") && len(have) < 1000 && utf8.ValidString(have)
	})

	h.remove(path.Join(pods, podA))
	h.remove("/proc/200")
	until("the pod has gone", "/ns_vm libvirt false ")
	d.set(func(d *fakeDaemon) { d.domains = nil })
}

// TestSessionsAreTrustedLeast: a user's libvirt may call its machines anything,
// and who comes first has the name.
func TestSessionsAreTrustedLeast(t *testing.T) {
	h := newHost(t)
	startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	startDaemon(t, h.dir, fmt.Sprintf("/run/user/%d/libvirt/libvirt-sock", os.Getuid()))
	h.launcher(podA)
	opt := patient(h, newClock())
	opt.Kubelet = "/var/lib/kubelet"
	c := run(t, opt)
	eventually(t, "the host's, the pod's and the user's libvirt", func() bool {
		s := c.Collect(t.Context())
		defer s.Release()
		var all []string
		for _, source := range s.Sources {
			if source.Class == Light {
				all = append(all, source.Source)
			}
		}
		return slices.Equal(all, []string{system, "pod:" + podA, fmt.Sprintf("qemu:///session?uid=%d", os.Getuid())})
	})
}
