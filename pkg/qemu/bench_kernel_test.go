package qemu

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkKernelClass reads machines with two virtual CPUs, an I/O thread and
// a control group of their own below a made-up root: how the cost grows. Its
// files are on a disk, where they are cheaper than those of /proc. cpu-ms is
// what it costs this process, whatever else the machine does meanwhile.
func BenchmarkKernelClass(b *testing.B) {
	allowDescriptors(b, 100_000)
	for _, n := range []int{10, 50, 200, 1000, 2000} {
		b.Run(fmt.Sprintf("made-up/vms=%d", n), func(b *testing.B) {
			h := newHost(b)
			h.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
			for i := range n {
				h.wholeMachine(i)
			}
			s := newScanner(Options{Root: h.root, Now: newClock().Now})
			defer s.close()
			benchmarkScan(b, s, n)
		})
	}
	for _, n := range []int{10, 50, 200} {
		b.Run(fmt.Sprintf("real/vms=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			for i := range n {
				pretendQEMU(b, dir, fmt.Sprintf("vm%d", i), nil, "CPU 0/KVM", "CPU 1/KVM", "IO iothread1", "worker")
			}
			s := realScanner(b)
			s.switches = false
			benchmarkScan(b, s, n)
		})
		b.Run(fmt.Sprintf("real with context switches/vms=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			for i := range n {
				pretendQEMU(b, dir, fmt.Sprintf("vm%d", i), nil, "CPU 0/KVM", "CPU 1/KVM", "IO iothread1", "worker")
			}
			benchmarkScan(b, realScanner(b), n)
		})
	}
}

// allowDescriptors raises the limit on descriptors, which root may.
func allowDescriptors(b *testing.B, most uint64) {
	b.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		b.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: max(most, before.Max)}); err != nil {
		b.Logf("descriptors are limited to %d: %v", before.Cur, err)
		return
	}
	b.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
}

func benchmarkScan(b *testing.B, s *scanner, n int) {
	b.Helper()
	start := time.Now()
	r, err := s.read(b.Context())
	if err != nil || len(r.vms) < n {
		b.Fatalf("%d machines, %v", len(r.vms), err)
	}
	b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "first-ms")
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if _, err := s.read(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	spent := float64((cpuTime(b) - before).Microseconds()) / float64(b.N)
	b.ReportMetric(spent/1000, "cpu-ms")
	b.ReportMetric(spent/float64(n), "cpu-us/vm")
	b.ReportMetric(float64(s.open)/float64(n), "fds/vm")
}

// wholeMachine makes machine number i as libvirt would start it.
func (h *fakeHost) wholeMachine(i int) {
	pid := 1000 + 10*i
	proc := fmt.Sprintf("/proc/%d", pid)
	h.process(pid, uint64(i), fmt.Sprintf("qemu-kvm\x00-name\x00guest=vm%d\x00", i), 500, thread{"CPU 0/KVM", 100}, thread{"CPU 1/KVM", 100}, thread{"IO iothread1", 10}, thread{"worker", 9})
	h.tasks(pid, 1000, 7, pid, pid+1, pid+2, pid+3)
	h.write(proc+"/io", "rchar: 100\nwchar: 200\nsyscr: 3\nsyscw: 4\nread_bytes: 500\nwrite_bytes: 600\ncancelled_write_bytes: 0\n")
	group := fmt.Sprintf("/machine.slice/machine-qemu\\x2d%d\\x2dvm.scope", i)
	h.write(proc+"/cgroup", "0::"+group+"/libvirt/emulator\n")
	for tid := pid; tid < pid+4; tid++ {
		h.write(fmt.Sprintf("%s/task/%d/cgroup", proc, tid), "0::"+group+"/libvirt\n")
	}
	for name, content := range map[string]string{
		"/cpu.max": "150000 100000\n", "/cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
		"/memory.current": "5000\n", "/memory.max": "9000\n", "/libvirt/memory.current": "4000\n", "/libvirt/memory.max": "max\n",
		"/memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
		"/cpu.pressure":  "some avg10=1.50 avg60=0.00 avg300=0.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n",
	} {
		h.write(cgroupRoot+group+name, content)
	}
	h.link(proc+"/ns/net", "net:[1]")
	h.hold(strconv.Itoa(pid), "3", "/dev/net/tun", fmt.Sprintf("iff:\tvnet%d\n", i))
	h.write(proc+"/net/dev", devHeading+fmt.Sprintf("  vnet%d: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", i))
}
