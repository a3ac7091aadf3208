package qemu

import (
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
		"libvirt":                     {"/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -S -machine pc,accel=kvm -uuid " + aUUID + " -daemonize", identity{"web", aUUID, true}},
		"by hand":                     {"qemu-system-aarch64 -M virt -name web -m 1G", identity{"web", "", true}},
		"two dashes":                  {"qemu-kvm --name web --uuid " + aUUID, identity{"web", aUUID, true}},
		"name with more":              {"qemu-kvm -name web,process=foo", identity{"web", "", true}},
		"guest is not first":          {"qemu-kvm -name debug-threads=on,guest=web", identity{"web", "", true}},
		"a comma in the name":         {"qemu-kvm -name guest=a,,b,,,debug-threads=on", identity{"a,b,", "", true}},
		"an equals sign in the name":  {"qemu-kvm -name guest=a=b", identity{"a=b", "", true}},
		"upper case UUID":             {"qemu-kvm -uuid " + strings.ToUpper(aUUID), identity{"", aUUID, true}},
		"no UUID at all":              {"qemu-kvm -uuid hello", identity{"", "", true}},
		"asked what it can do":        {"qemu-kvm -S -no-user-config -machine none,accel=kvm:tcg -qmp x", identity{"", "", false}},
		"neither name nor UUID":       {"qemu-kvm -hda x", identity{"", "", true}},
		"the option without a value":  {"qemu-kvm -name", identity{"", "", true}},
		"no arguments":                {"", identity{"", "", true}},
		"the name of another option":  {"qemu-kvm -name -uuid -uuid " + aUUID, identity{"-uuid", aUUID, true}},
		"a name given twice":          {"qemu-kvm -name web -name db", identity{"web", "", true}},
		"a name that is only options": {"qemu-kvm -name process=foo", identity{"", "", true}},
	} {
		t.Run(name, func(t *testing.T) {
			data := strings.ReplaceAll(tc.args, " ", "\x00") + "\x00"
			if diff := cmp.Diff(tc.want, parseCmdline([]byte(data)), cmp.AllowUnexported(identity{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	line := statLine(42, "CPU 0/KVM", 101, 777)
	got, err := parseStat([]byte(line))
	if want := (stat{"CPU 0/KVM", 'S', 101, 777}); err != nil || got != want {
		t.Errorf("have %+v, %v; want %+v", got, err, want)
	}
	hostile := statLine(42, "a) R 1 (b", 5, 6)
	got, err = parseStat([]byte(hostile))
	if want := (stat{"a) R 1 (b", 'S', 5, 6}); err != nil || got != want {
		t.Errorf("a name with parentheses: have %+v, %v; want %+v", got, err, want)
	}
	for name, text := range map[string]string{
		"empty": "", "no name": "42 S 1 1", "cut": line[:60], "not a number": strings.Replace(line, " 777 ", " x ", 1),
		"parentheses the wrong way round": ") 42 (",
	} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%s: no error but %+v", name, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for text, want := range map[string]Num{
		"Name:\tx\nVmRSS:\t   12 kB\nVmSwap:\t 3 kB\n": Some(12 << 10),
		"Name:\tVmRSS:\nState:\tZ (zombie)\n":          {},
		"VmRSS:\t0 kB\n":                               Some(0),
	} {
		if got, err := parseStatus([]byte(text)); err != nil || got != want {
			t.Errorf("%q: have %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"VmRSS:\t12\n", "VmRSS:\t-1 kB\n", "VmRSS:\t99999999999999999999 kB\n"} {
		if got, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("%q: no error but %+v", text, got)
		}
	}
}

func TestRoles(t *testing.T) {
	for comm, want := range map[string]Role{
		"CPU 0/KVM": RoleVCPU, "CPU 17/TCG": RoleVCPU, "ALL CPUs/TCG": RoleVCPU, "IO iothread1": RoleIOThread,
		"IO mon_iothread": RoleIOThread, "vhost-4711": RoleVhost, "worker": RoleOther, "vnc_worker": RoleOther, "qemu-kvm": RoleOther, "CPU": RoleOther,
	} {
		if got := roleOf(comm, false); got != want {
			t.Errorf("%s: role %s, want %s", comm, Roles[got], Roles[want])
		}
	}
	if got := roleOf("CPU 0/KVM", true); got != RoleEmulator {
		t.Errorf("the main thread is %s", Roles[got])
	}
}

// scan reads a host's processes once.
func scan(t *testing.T, s *scanner) []VM {
	t.Helper()
	r, err := s.read(t.Context())
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
	h.write("/proc/14/stat", statLine(14, "vhost-10", 33, 3))
	h.write("/proc/self/comm", "qemu-kvm\n")
	h.process(15, 3, "qemu-kvm\x00", 1)
	h.remove("/proc/15/stat") // ends while it is being read
	vms := scan(t, newScanner(h.root, newClock().Now))
	if len(vms) != 1 || vms[0].Name != "a" || vms[0].Process.PID != 10 {
		t.Fatalf("%+v", vms)
	}
	if got := vms[0].Process.CPU[RoleVhost]; got != Some(33) {
		t.Errorf("the kernel thread that works for it: %+v", got)
	}
}

func TestScanNoticesAnotherProcessWithTheSameNumber(t *testing.T) {
	h := newHost(t)
	s := newScanner(h.root, newClock().Now)
	h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", 500, thread{"CPU 0/KVM", 400})
	scan(t, s)
	h.process(10, 9, "qemu-kvm\x00-name\x00b\x00", 30, thread{"CPU 0/KVM", 20})
	vms := scan(t, s)
	if len(vms) != 1 || vms[0].Name != "b" || vms[0].Process.CPU[RoleVCPU] != Some(20) {
		t.Errorf("%+v", vms)
	}
}

func TestScanFindsAProcessThatBecomesQEMU(t *testing.T) {
	h, now := newHost(t), newClock()
	s := newScanner(h.root, now.Now)
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

func TestRoleTimesOnlyGrow(t *testing.T) {
	h := newHost(t)
	s := newScanner(h.root, newClock().Now)
	read := func(total uint64, threads ...thread) [len(Roles)]Num {
		t.Helper()
		h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", total, threads...)
		return scan(t, s)[0].Process.CPU
	}
	read(207, thread{"CPU 0/KVM", 100}, thread{"CPU 1/KVM", 50}, thread{"worker", 50})
	// CPU 1 is unplugged, the worker has ended, 10 ticks more for CPU 0.
	got := read(220, thread{"CPU 0/KVM", 110})
	want := [len(Roles)]Num{RoleVCPU: Some(160), RoleEmulator: Some(7), RoleOther: Some(53)}
	if got != want {
		t.Errorf("have %v, want %v", got, want)
	}
	// The process's own number lags behind its threads': nothing shrinks.
	if got := read(220, thread{"CPU 0/KVM", 130}); got[RoleOther] != Some(53) || got[RoleVCPU] != Some(180) {
		t.Errorf("have %v", got)
	}
}

func TestScanSaysWhatItCannotRead(t *testing.T) {
	h := newHost(t)
	s := newScanner(h.root, newClock().Now)
	h.process(10, 1, "qemu-kvm\x00-name\x00a\x00", 1)
	h.write("/proc/10/status", "VmRSS:\tmuch\n")
	if _, err := s.read(t.Context()); err == nil || !strings.Contains(err.Error(), "/proc/10/status") {
		t.Errorf("error %v, want one that names the file", err)
	}
	h.write("/proc/stat", "cpu 1\n")
	if _, err := newScanner(h.root, time.Now).read(t.Context()); err == nil || !strings.Contains(err.Error(), "/proc/stat") {
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

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine(1, "a) b", 3, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStat(data)
		if err == nil && !strings.Contains(string(data), "("+s.comm+")") {
			t.Errorf("name %q", s.comm)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("VmRSS:\t 12 kB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := parseStatus(data); n.Set && err != nil {
			t.Errorf("%+v and %v", n, err)
		}
	})
}
