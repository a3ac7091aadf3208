package qemu

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const aUUID = "6f1c1f2e-6b5a-4d0e-9a51-0a0b0c0d0e0f"

func TestParseCmdline(t *testing.T) {
	for name, tc := range map[string]struct {
		args string // blanks stand for NUL
		want identity
	}{
		"libvirt":                     {"/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -S -machine pc,accel=kvm -uuid " + aUUID + " -daemonize", identity{name: "web", uuid: aUUID, machine: true}},
		"by hand":                     {"qemu-system-aarch64 -M virt -name web -m 1G", identity{name: "web", uuid: "", machine: true}},
		"two dashes":                  {"qemu-kvm --name web --uuid " + aUUID, identity{name: "web", uuid: aUUID, machine: true}},
		"name with more":              {"qemu-kvm -name web,process=foo", identity{name: "web", uuid: "", machine: true}},
		"guest is not first":          {"qemu-kvm -name debug-threads=on,guest=web", identity{name: "web", uuid: "", machine: true}},
		"a comma in the name":         {"qemu-kvm -name guest=a,,b,,,debug-threads=on", identity{name: "a,b,", uuid: "", machine: true}},
		"an equals sign in the name":  {"qemu-kvm -name guest=a=b", identity{name: "a=b", uuid: "", machine: true}},
		"upper case UUID":             {"qemu-kvm -uuid " + strings.ToUpper(aUUID), identity{name: "", uuid: aUUID, machine: true}},
		"no UUID at all":              {"qemu-kvm -uuid hello", identity{name: "", uuid: "", machine: true}},
		"asked what it can do":        {"qemu-kvm -S -no-user-config -machine none,accel=kvm:tcg -qmp x", identity{name: "", uuid: "", machine: false}},
		"neither name nor UUID":       {"qemu-kvm -hda x", identity{name: "", uuid: "", machine: true}},
		"the option without a value":  {"qemu-kvm -name", identity{name: "", uuid: "", machine: true}},
		"no arguments":                {"", identity{name: "", uuid: "", machine: true}},
		"the name of another option":  {"qemu-kvm -name -uuid -uuid " + aUUID, identity{name: "-uuid", uuid: aUUID, machine: true}},
		"a name given twice":          {"qemu-kvm -name web -name db", identity{name: "web", uuid: "", machine: true}},
		"a name that is only options": {"qemu-kvm -name process=foo", identity{name: "", uuid: "", machine: true}},
	} {
		t.Run(name, func(t *testing.T) {
			data := strings.ReplaceAll(tc.args, " ", "\x00") + "\x00"
			if diff := cmp.Diff(tc.want, parseCmdline([]byte(data)), cmp.AllowUnexported(identity{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRoles(t *testing.T) {
	for comm, want := range map[string]struct {
		role Role
		part string
	}{
		"CPU 0/KVM": {RoleVCPU, "0"}, "CPU 17/TCG": {RoleVCPU, "17"}, "ALL CPUs/TCG": {RoleVCPU, ""}, "IO iothread1": {RoleIOThread, "iothread1"},
		"IO mon_iothread": {RoleIOThread, "mon_iothread"}, "vhost-4711": {RoleVhost, ""}, "worker": {RoleOther, ""}, "vnc_worker": {RoleOther, ""},
		"qemu-kvm": {RoleOther, ""}, "CPU": {RoleOther, ""}, "CPU 0": {RoleOther, ""},
	} {
		if role, part := roleOf([]byte(comm), false); role != want.role || string(part) != want.part {
			t.Errorf("%s: role %s of %q, want %s of %q", comm, Roles[role], part, Roles[want.role], want.part)
		}
	}
	if role, _ := roleOf([]byte("CPU 0/KVM"), true); role != RoleEmulator {
		t.Errorf("the main thread is %s", Roles[role])
	}
}

func TestSharedMemory(t *testing.T) {
	for args, want := range map[string]bool{
		`-object {"qom-type":"memory-backend-ram","id":"pc.ram","size":1}`:                                       false,
		`-object {"qom-type":"memory-backend-memfd","id":"pc.ram","x-use-canonical-path-for-ramblock-id":false}`: true,
		`-object {"qom-type":"memory-backend-memfd","share":false}`:                                              false,
		`-object memory-backend-file,id=m,mem-path=/dev/hugepages,share=on`:                                      true,
		`-object memory-backend-file,id=m,mem-path=/x`:                                                           false,
		`-object memory-backend-memfd,id=m,share=on -object memory-backend-ram,id=n`:                             false,
		`-object iothread,id=io`: false,
		`-m 64`:                  false,
	} {
		id := parseCmdline([]byte("qemu-kvm\x00" + strings.ReplaceAll(args, " ", "\x00") + "\x00"))
		if id.shared != want {
			t.Errorf("%s: shared is %v", args, id.shared)
		}
	}
}

// scanner reads the host's kernel class.
func (h *fakeHost) scanner(now *clock) *scanner {
	s := newScanner(Options{Root: h.root, Now: now.Now, Groups: map[string]bool{threadDetail: true}})
	h.t.Cleanup(s.close)
	return s
}

// spent is CPU time that a thread used, in ticks.
func spent(sum, system uint64) Usage { return Usage{CPU: ticks(sum), System: ticks(system)} }

func ticks(n uint64) Num { return Some(n * uint64(tick)) }

// scan reads a host's processes once.
func scan(t *testing.T, s *scanner) []VM {
	t.Helper()
	r, err := s.read(t.Context(), slab{})
	if err != nil {
		t.Fatal(err)
	}
	return r.vms
}

func TestScanFindsOnlyMachines(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", 1)
	h.process(11, 1, "qemu-system-x86_64\x00-machine\x00none,accel=kvm\x00", 1)
	h.process(12, 2, "", 1)
	h.write("/proc/12/stat", strings.Replace(statLine(12, "qemu-system-x86", 1, 2), ") S", ") Z", 1))
	h.write("/proc/13/comm", "bash\n")
	h.write("/proc/14/comm", "vhost-10\n")
	h.write("/proc/14/stat", kernelThread(statLine(14, "vhost-10", 33, 3)))
	h.write("/proc/16/comm", "vhost-10\n")
	h.write("/proc/16/stat", statLine(16, "vhost-10", 77, 3)) // calls itself so
	h.write("/proc/self/comm", "qemu-kvm\n")
	h.process(15, 3, "qemu-kvm\x00", 1)
	h.remove("/proc/15/stat") // ends while it is being read
	s := h.scanner(newClock())
	vms := scan(t, s)
	if len(vms) != 1 || vms[0].Name != "a" || vms[0].Process.PID != 10 {
		t.Fatalf("%+v", vms)
	}
	if got := vms[0].Process.Threads[RoleVhost].CPU; got != ticks(33) {
		t.Errorf("the kernel thread that works for it: %+v", got)
	}
	h.write("/proc/14/stat", statLine(14, "vhost-10", 99, 4)) // somebody took the number and the name
	for range 2 {
		if got := scan(t, s)[0].Process.Threads[RoleVhost].CPU; got != ticks(33) {
			t.Errorf("when the kernel thread has ended: %+v", got)
		}
	}
}

// TestKernelThreadsAreKnown on the kernel that runs this.
func TestKernelThreadsAreKnown(t *testing.T) {
	for name, want := range map[string]bool{"/proc/self/stat": false, "/proc/2/stat": true} {
		data, err := os.ReadFile(name)
		if err != nil || want && !bytes.Contains(data, []byte("(kthreadd)")) {
			continue // this is the namespace of a container
		}
		if now, err := parseStat(data); err != nil || now.kernel != want {
			t.Errorf("%s: %+v, %v", name, now, err)
		}
	}
}

// TestAPodHasOnlySoManyMachines: whoever is in a pod may call any process QEMU.
func TestAPodHasOnlySoManyMachines(t *testing.T) {
	h, now := newHost(t), newClock()
	h.write("/proc/1/cgroup", "0::/init.scope\n")
	for pid := 100; pid < 100+3*mostOfPod; pid++ {
		h.process(pid, uint64(pid), "qemu-kvm\x00", 1)
		h.write(fmt.Sprintf("/proc/%d/cgroup", pid), "0::/kubepods/pod"+podA+"/compute\n")
	}
	h.process(200, 200, "qemu-kvm\x00-name\x00other\x00", 1)
	h.write("/proc/200/cgroup", "0::/kubepods/pod"+podB+"/compute\n")
	h.process(201, 201, "qemu-kvm\x00-name\x00host\x00", 1)
	s := h.scanner(now)
	count := func() (a, b, host int) {
		for _, vm := range scan(t, s) {
			switch vm.Pod {
			case podA:
				a++
			case podB:
				b++
			default:
				host++
			}
		}
		return a, b, host
	}
	for range 2 {
		if a, b, host := count(); a != mostOfPod || b != 1 || host != 1 {
			t.Errorf("%d machines of a crowded pod, %d of another, %d of the host", a, b, host)
		}
	}
	for pid := 100; pid < 100+3*mostOfPod; pid++ {
		if s.processes[pid].qemu != nil {
			h.remove(fmt.Sprintf("/proc/%d", pid))
			break
		}
	}
	if a, _, _ := count(); a != mostOfPod-1 {
		t.Errorf("%d machines when one has ended", a)
	}
	now.advance(mostRescan)
	if a, _, _ := count(); a != mostOfPod {
		t.Errorf("%d machines when there is place for another", a)
	}
}

func TestScanNoticesAnotherProcessWithTheSameNumber(t *testing.T) {
	h := newHost(t)
	s := h.scanner(newClock())
	h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", 500, thread{"CPU 0/KVM", 400})
	scan(t, s)
	h.process(10, 9, "qemu-kvm\x00-name\x00b\x00", 30, thread{"CPU 0/KVM", 20})
	vms := scan(t, s)
	if len(vms) != 1 || vms[0].Name != "b" || vms[0].Process.Threads[RoleVCPU].CPU != ticks(20) {
		t.Errorf("%+v", vms)
	}
}

func TestScanFindsAProcessThatBecomesQEMU(t *testing.T) {
	h, now := newHost(t), newClock()
	s := h.scanner(now)
	h.process(10, 1, "", 1)
	h.write("/proc/10/comm", "libvirtd\n")
	if vms := scan(t, s); len(vms) != 0 {
		t.Fatalf("before exec: %+v", vms)
	}
	h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", 1)
	now.advance(rescan)
	if vms := scan(t, s); len(vms) != 1 {
		t.Errorf("after exec: %+v", vms)
	}
}

func TestScanLooksLessAndLessAtWhatIsNoQEMU(t *testing.T) {
	h, now := newHost(t), newClock()
	s := h.scanner(now)
	h.process(10, 1, "", 1)
	h.write("/proc/10/comm", "sh\n")
	for _, rest := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		scan(t, s)
		if got := s.processes[10].due.Sub(now.Now()); got != rest*time.Second {
			t.Errorf("looked at again after %v, want %v s", got, int(rest))
		}
		now.advance(rest*time.Second - 1)
		scan(t, s)
		now.advance(1)
	}
	h.process(10, 1, "qemu-kvm\x00-name\x00late\x00", 1)
	if vms := scan(t, s); len(vms) != 1 {
		t.Errorf("after a late exec: %+v", vms)
	}
}

func TestRoleTimesOnlyGrow(t *testing.T) {
	h := newHost(t)
	s := h.scanner(newClock())
	read := func(total uint64, threads ...thread) [len(Roles)]Num {
		t.Helper()
		h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", total, threads...)
		var sums [len(Roles)]Num
		for role, used := range scan(t, s)[0].Process.Threads {
			sums[role] = used.CPU
		}
		return sums
	}
	read(207, thread{"CPU 0/KVM", 100}, thread{"CPU 1/KVM", 50}, thread{"worker", 50})
	// CPU 1 is unplugged, the worker has ended, 10 ticks more for CPU 0.
	got := read(220, thread{"CPU 0/KVM", 110})
	want := [len(Roles)]Num{RoleVCPU: ticks(160), RoleEmulator: ticks(7), RoleOther: ticks(53)}
	if got != want {
		t.Errorf("have %v, want %v", got, want)
	}
	// The process's own number lags behind its threads': nothing shrinks.
	if got := read(220, thread{"CPU 0/KVM", 130}); got[RoleOther] != ticks(53) || got[RoleVCPU] != ticks(180) {
		t.Errorf("have %v", got)
	}
}

func TestAValueThatCannotBeReadCostsItselfOnly(t *testing.T) {
	h := newHost(t)
	s := h.scanner(newClock())
	h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", 50)
	h.write("/proc/10/status", "VmRSS:\tmuch\n")
	h.write("/proc/10/io", "rchar: 1\nread_bytes: many\n")
	h.process(11, 2, "qemu-kvm\x00-name\x00b\x00", 50)
	h.write("/proc/11/stat", "11 (qemu-kvm) S 1 1")
	r, err := s.read(t.Context(), slab{})
	if err != nil || len(r.vms) != 1 || r.unused != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	p := r.vms[0].Process
	if p.Resident.Set || p.IO.ReadBytes.Set || p.Threads[RoleOther].CPU != ticks(43) {
		t.Errorf("%+v", p)
	}
	h.write("/proc/stat", "cpu 1\n")
	if _, err := h.scanner(newClock()).read(t.Context(), slab{}); err == nil || !strings.Contains(err.Error(), "/proc/stat") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add([]byte("qemu-kvm\x00-name\x00guest=a,,b,debug-threads=on\x00-uuid\x00" + aUUID + "\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		id := parseCmdline(data)
		if id.uuid != "" && normalUUID(id.uuid) != id.uuid {
			t.Errorf("UUID %q", id.uuid)
		}
	})
}

// TestASnapshotIsNotWrittenTo has somebody read one for as long as later
// collections take, which use the memory of earlier readings.
func TestASnapshotIsNotWrittenTo(t *testing.T) {
	h, now := newHost(t), newClock()
	state := func(ticks uint64) {
		h.process(100, 1, "qemu-kvm\x00-name\x00web\x00", ticks, thread{"CPU 0/KVM", ticks / 2}, thread{"IO iothread1", ticks / 3})
	}
	state(100)
	c := run(t, patient(h, now))
	c.Collect(t.Context()).Release()
	held := c.Collect(t.Context())
	text := fmt.Sprintf("%+v %+v", held.VMs[0], *held.VMs[0].Process)
	for i := range 6 {
		state(uint64(1000 * (i + 1)))
		now.advance(time.Second)
		s := c.Collect(t.Context())
		if got := s.VMs[0].Process.VCPUs[0].CPU; got != ticks(uint64(500*(i+1))) {
			t.Errorf("collection %d: have %+v", i, got)
		}
		s.Release()
	}
	if again := fmt.Sprintf("%+v %+v", held.VMs[0], *held.VMs[0].Process); again != text {
		t.Errorf("it was\n%s\nand is\n%s", text, again)
	}
	held.Release()
}
