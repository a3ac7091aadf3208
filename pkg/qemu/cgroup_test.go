package qemu

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	podUID   = "0c7f1b9e-5f0e-4c57-8a6e-1d2f3a4b5c6d"
	podSlice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0c7f1b9e_5f0e_4c57_8a6e_1d2f3a4b5c6d.slice"
	inPod    = podSlice + "/cri-containerd-abc.scope"
	scope    = `/machine.slice/machine-qemu\x2d1\x2dweb.scope`
)

func TestOwnGroups(t *testing.T) {
	for name, tc := range map[string]struct {
		threads    []string // paths
		all, whole []string
	}{
		"a pod of systemd":    {[]string{inPod, inPod}, []string{podSlice, inPod}, []string{podSlice, inPod}},
		"a pod of cgroupfs":   {[]string{"/kubepods/pod" + podUID + "/abc"}, []string{"/kubepods/pod" + podUID, "/kubepods/pod" + podUID + "/abc"}, []string{"/kubepods/pod" + podUID, "/kubepods/pod" + podUID + "/abc"}},
		"libvirt of systemd":  {[]string{scope + "/libvirt/emulator", scope + "/libvirt/vcpu0"}, []string{scope, scope + "/libvirt", scope + "/libvirt/emulator", scope + "/libvirt/vcpu0"}, []string{scope, scope + "/libvirt"}},
		"libvirt without":     {[]string{"/machine/qemu-1-web.libvirt-qemu/emulator"}, []string{"/machine/qemu-1-web.libvirt-qemu", "/machine/qemu-1-web.libvirt-qemu/emulator"}, []string{"/machine/qemu-1-web.libvirt-qemu", "/machine/qemu-1-web.libvirt-qemu/emulator"}},
		"a service":           {[]string{"/system.slice/web.service"}, []string{"/system.slice/web.service"}, []string{"/system.slice/web.service"}},
		"the root":            {[]string{"/"}, nil, nil},
		"threads all over":    {[]string{"/a", "/b"}, []string{"/a", "/b"}, nil},
		"outside":             {[]string{"/../../etc"}, nil, nil},
		"on the way out":      {[]string{"/a/../../etc"}, nil, nil},
		"a pod by name only":  {[]string{"/podium/x"}, []string{"/podium/x"}, []string{"/podium/x"}},
		"a slice like a pod":  {[]string{"/user-pod" + strings.Repeat("a", 36) + ".slice/x"}, []string{"/user-pod" + strings.Repeat("a", 36) + ".slice/x"}, []string{"/user-pod" + strings.Repeat("a", 36) + ".slice/x"}},
		"a colon in the name": {[]string{"/a:b/c"}, []string{"/a:b/c"}, []string{"/a:b/c"}},
	} {
		t.Run(name, func(t *testing.T) {
			var threads [][]byte
			for _, place := range tc.threads {
				threads = append(threads, []byte("4:cpu,cpuacct:/other\n1:name=systemd:/x\n0::"+place+"\n"))
			}
			all, whole := ownGroups(threads, "", "", "")
			if !slices.Equal(all, tc.all) || !slices.Equal(whole, tc.whole) {
				t.Errorf("have %q and %q", all, whole)
			}
		})
	}
}

func TestPathsFromAGroup(t *testing.T) {
	for place, want := range map[string]string{
		"/../../../kubepods/podx/c": "/kubepods/podx/c", "/../d": "/a/b/d", "/..": "/a/b", "/../../..": "/", "/below": "/a/b/c/below",
		"/../../../../too/far": "", "/../x/../../y": "", "/a/../../etc": "", "/..x": "/a/b/c/..x", "/../..x": "/a/b/..x", "x": "",
	} {
		got, found := parseCgroup([]byte("0::"+place+"\n"), "", "/a/b/c")
		if got != want || found != (want != "") {
			t.Errorf("%s is %q, %v, want %q", place, got, found, want)
		}
	}
}

// unified makes a host with version 2 and a machine in a group of libvirt's.
func unified(t *testing.T) *fakeHost {
	h := newHost(t)
	h.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50, thread{"CPU 0/KVM", 6})
	h.write("/proc/10/cgroup", "0::"+scope+"/libvirt/emulator\n")
	h.write("/proc/10/task/11/cgroup", "0::"+scope+"/libvirt/vcpu0\n")
	top := cgroupRoot + scope
	for name, content := range map[string]string{
		"/cpu.max": "max 100000\n", "/cpu.stat": "usage_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
		"/libvirt/cpu.max": "150000 100000\n", "/libvirt/cpu.stat": "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 500\n",
		"/libvirt/emulator/cpu.max": "max 100000\n", "/libvirt/emulator/cpu.stat": "usage_usec 5\n",
		"/libvirt/vcpu0/cpu.max": "50000 100000\n", "/libvirt/vcpu0/cpu.stat": "usage_usec 5\nnr_periods 100\nnr_throttled 40\nthrottled_usec 7\n",
		"/memory.current": "5000\n", "/memory.max": "9000\n", "/libvirt/memory.current": "4000\n", "/libvirt/memory.max": "7000\n",
		"/memory.events":   "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
		"/cpu.pressure":    "some avg10=1.50 avg60=0.00 avg300=0.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n",
		"/memory.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=13\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=14\n",
		"/io.pressure":     "some avg10=1.50 avg60=0.00 avg300=0.00 total=15\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=16\n",
	} {
		h.write(top+name, content)
	}
	return h
}

func TestControlGroupsOfVersion2(t *testing.T) {
	h, now := unified(t), newClock()
	s := h.scanner(now)
	want := Cgroup{
		Periods: Some(113), Throttled: Some(46), ThrottledTime: Some(508_000), CPULimit: Some(1_500_000_000),
		Memory: Some(5000), MemoryLimit: Some(7000), MemoryHeadroom: Some(3000),
		Events:      MemoryEvents{High: Some(1), Max: Some(2), OOM: Some(3), OOMKill: Some(4)},
		CPUPressure: Pressure{Some(11_000), Some(12_000)}, MemoryPressure: Pressure{Some(13_000), Some(14_000)}, IOPressure: Pressure{Some(15_000), Some(16_000)},
	}
	check := func(what string) {
		t.Helper()
		if diff := cmp.Diff(want, scan(t, s)[0].Process.Cgroup); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("at first")
	top := cgroupRoot + scope
	h.write(top+"/libvirt/vcpu0/cpu.stat", "nr_periods 101\nnr_throttled 41\nthrottled_usec 8\n")
	h.write(top+"/memory.current", "8500\n")
	want.Periods, want.Throttled, want.ThrottledTime = Some(114), Some(47), Some(509_000)
	want.Memory, want.MemoryHeadroom = Some(8500), Some(500)
	check("later")
	// The virtual CPU is unplugged, and its group with it: nothing goes back.
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.end(top + "/libvirt/vcpu0")
	now.advance(2 * lasting)
	check("without the group")
	h.write(top+"/libvirt/cpu.max", "max 100000\n")
	h.write(top+"/libvirt/memory.max", "max\n")
	now.advance(2 * lasting)
	want.CPULimit, want.MemoryLimit = Num{}, Some(9000)
	check("without the limit")
	h.write(top+"/memory.max", "max\n")
	want.MemoryLimit, want.MemoryHeadroom = Num{}, Num{}
	check("without any limit")
	h.remove(top + "/io.pressure")
	h.remove(top + "/memory.events")
	fresh := h.scanner(now)
	if got := scan(t, fresh)[0].Process.Cgroup; got.IOPressure.Some.Set || got.Events.Max.Set || !got.CPUPressure.Some.Set {
		t.Errorf("a kernel that lacks some: %+v", got)
	}
}

func TestControlGroupsOfVersion1AndHybrid(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.write("/proc/10/cgroup", "9:name=systemd:"+inPod+"\n4:memory:"+inPod+"\n1:cpuacct,cpu:"+inPod+"\n0::"+inPod+"\n")
	for name, content := range map[string]string{
		"/cpu" + podSlice + "/cpu.cfs_quota_us": "-1\n", "/cpu" + podSlice + "/cpu.cfs_period_us": "100000\n", "/cpu" + podSlice + "/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
		"/cpu" + inPod + "/cpu.cfs_quota_us": "25000\n", "/cpu" + inPod + "/cpu.cfs_period_us": "100000\n", "/cpu" + inPod + "/cpu.stat": "nr_periods 5\nnr_throttled 3\nthrottled_time 77\nnr_bursts 0\nburst_time 0\n",
		"/memory" + podSlice + "/memory.usage_in_bytes": "100\n", "/memory" + podSlice + "/memory.limit_in_bytes": "9223372036854771712\n",
		"/memory" + inPod + "/memory.usage_in_bytes": "90\n", "/memory" + inPod + "/memory.limit_in_bytes": "80\n",
		"/memory" + podSlice + "/memory.failcnt": "6\n", "/memory" + podSlice + "/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		"/unified" + podSlice + "/cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
	} {
		h.write(cgroupRoot+name, content)
	}
	want := Cgroup{
		Periods: Some(5), Throttled: Some(3), ThrottledTime: Some(77), CPULimit: Some(250_000_000),
		Memory: Some(100), MemoryLimit: Some(80), MemoryHeadroom: Some(0),
		Events: MemoryEvents{Max: Some(6), OOMKill: Some(2)}, CPUPressure: Pressure{Some: Some(5000)},
	}
	if diff := cmp.Diff(want, scan(t, h.scanner(newClock()))[0].Process.Cgroup); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAGroupOfSeveralMachinesSaysNothingAboutOne(t *testing.T) {
	h := unified(t)
	s := h.scanner(newClock())
	h.process(20, 2, "qemu-kvm\x00-name\x00db\x00", 50)
	h.write("/proc/20/cgroup", "0::"+scope+"\n")
	read := func() (some int) {
		for _, vm := range scan(t, s) {
			if vm.Process.Cgroup != (Cgroup{}) {
				some++
			}
		}
		return some
	}
	if got := read(); got != 0 {
		t.Errorf("%d machines have numbers of the group that they share", got)
	}
	h.end("/proc/20")
	if got := read(); got != 1 {
		t.Errorf("%d machines have numbers of the group that is now one's own", got)
	}
	h.end("/proc/10")
	if scan(t, s); len(s.groups) != 0 {
		t.Errorf("groups are left: %v", s.groups)
	}
}

func TestParseLimits(t *testing.T) {
	for text, want := range map[string]Num{"max 100000\n": {}, "150000 100000\n": Some(1_500_000_000), "1000 100000\n": Some(10_000_000)} {
		if got, err := parseCPUMax([]byte(text)); err != nil || got != want {
			t.Errorf("%q: have %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "max\n", "100000\n", "1 0\n", "99999999999999 1\n", "1 x\n"} {
		if got, err := parseCPUMax([]byte(text)); err == nil {
			t.Errorf("%q: no error but %+v", text, got)
		}
	}
	for text, want := range map[string]Num{"max\n": {}, "9223372036854771712\n": {}, "9223372036854710272\n": {}, "4096\n": Some(4096), "0\n": Some(0)} {
		if got, err := parseMemoryLimit([]byte(text)); err != nil || got != want {
			t.Errorf("%q: have %+v, %v", text, got, err)
		}
	}
}

func FuzzCgroupFiles(f *testing.F) {
	f.Add([]byte("4:cpu,cpuacct:/a/b\n0::/kubepods/pod" + podUID + "/x\n"))
	f.Add([]byte("150000 100000\n"))
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"))
	f.Add([]byte("nr_periods 5\nthrottled_usec 1\noom_kill 3\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, controller := range []string{"", "cpu", "memory"} {
			all, whole := ownGroups([][]byte{data, data}, controller, cgroupRoot, "/a/b")
			for _, dir := range append(all, whole...) {
				if !strings.HasPrefix(dir, cgroupRoot+"/") || strings.Contains(dir, "/../") || strings.HasSuffix(dir, "/..") {
					t.Errorf("%q is no group", dir)
				}
			}
		}
		for _, parse := range []func([]byte) (Num, error){parseCPUMax, parseMemoryLimit, numberLine} {
			if n, err := parse(data); n.Set && err != nil {
				t.Errorf("%+v and %v", n, err)
			}
		}
		_, _ = parseCPUStat(data)
		_, _ = parseMemoryEvents(data)
		if p, err := parsePressure(data); err != nil && p != (Pressure{}) {
			t.Error(fmt.Sprint(p, err))
		}
	})
}
