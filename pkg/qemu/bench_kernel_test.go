package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkKernelClass shows what the class costs, and how that grows: on made-up machines, whose
// files are on a disk and cheaper than those of /proc, and on real processes.
func BenchmarkKernelClass(b *testing.B) {
	made := func(name string, n int, machine func(*fakeHost, int)) {
		b.Run(fmt.Sprintf("%s/vms=%d", name, n), func(b *testing.B) {
			h := newHost(b)
			h.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
			for i := range n {
				machine(h, i)
			}
			s := newScanner(Options{Root: h.root, Now: newClock().Now})
			defer s.close()
			s.limit = min(2*s.limit-1000, s.limit*3/2) // as many as 2000 small ones take
			benchmarkScan(b, s, n)
			b.ReportMetric(float64(readsAlone(b, h.dir).Nanoseconds())/float64(n)/1000, "reads-us/vm")
		})
	}
	for _, n := range []int{10, 50, 200, 1000, 2000} {
		made("small", n, (*fakeHost).smallMachine)
	}
	for _, n := range []int{10, 50, 200} {
		made("whole", n, (*fakeHost).wholeMachine)
	}
	for _, n := range []int{10, 50, 200} {
		b.Run(fmt.Sprintf("real/vms=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			for i := range n {
				pretendQEMU(b, dir, fmt.Sprintf("vm%d", i), nil, "CPU 0/KVM", "CPU 1/KVM", "IO iothread1", "worker")
			}
			for _, variant := range []struct {
				name   string
				change func(*testing.B, *scanner)
			}{
				{"programs", func(b *testing.B, s *scanner) { s.switches, s.programs = false, loadPrograms(b) }},
				{"proc", func(_ *testing.B, s *scanner) { s.switches = false }},
				{"proc-context-switches", func(*testing.B, *scanner) {}},
				{"proc-without-kept-files", func(_ *testing.B, s *scanner) { s.switches, s.limit = false, 0 }},
			} {
				b.Run(variant.name, func(b *testing.B) {
					s := realScanner(b)
					variant.change(b, s)
					benchmarkScan(b, s, n)
				})
			}
		})
	}
}

// benchmarkScan also reports the fastest of all scrapes, in which least else
// was going on. Other machines that are read too count as well.
func benchmarkScan(b *testing.B, s *scanner, atLeast int) {
	b.Helper()
	read := func() int {
		r, err := s.read(b.Context(), slab{})
		if err != nil {
			b.Fatal(err)
		}
		return len(r.vms)
	}
	n := 0
	for tries := 0; n < atLeast; tries++ { // files that were late are read next time
		if n = read(); tries == 100 {
			b.Fatalf("%d machines of %d", n, atLeast)
		}
	}
	b.ReportAllocs()
	fastest, before := time.Hour, cpuTime(b)
	for b.Loop() {
		start := time.Now()
		n = read()
		fastest = min(fastest, time.Since(start))
	}
	used := float64((cpuTime(b) - before).Microseconds()) / float64(b.N)
	b.ReportMetric(used/1000, "cpu-ms")
	b.ReportMetric(float64(fastest.Microseconds())/1000, "fastest-ms")
	b.ReportMetric(float64(fastest.Microseconds())/float64(n), "fastest-us/vm")
	b.ReportMetric(float64(n), "vms")
	b.ReportMetric(float64(s.open)/float64(n), "fds/vm")
}

// readsAlone is how long it takes only to read the files below root that this
// process keeps open, in turn and for a second: the kernel's part.
func readsAlone(b *testing.B, root string) time.Duration {
	b.Helper()
	const ours = "/proc/self/fd/"
	entries, err := os.ReadDir(ours)
	if err != nil {
		b.Fatal(err)
	}
	var files []int
	for _, e := range entries {
		if to, err := os.Readlink(ours + e.Name()); err == nil && strings.HasPrefix(to, root+"/") {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				b.Fatal(err)
			}
			files = append(files, fd)
		}
	}
	buffer := make([]byte, 4096)
	start, rounds := time.Now(), 0
	for ; rounds == 0 || time.Since(start) < time.Second; rounds++ {
		for _, fd := range files {
			if _, err := unix.Pread(fd, buffer, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	return time.Since(start) / time.Duration(rounds)
}

// smallMachine makes machine number i with one virtual CPU and nothing else.
func (h *fakeHost) smallMachine(i int) {
	pid := 1000 + 10*i
	h.process(pid, uint64(i), fmt.Sprintf("qemu-kvm\x00-name\x00guest=vm%d\x00", i), 500, thread{"CPU 0/KVM", 100})
	h.tasks(pid, 1000, 7, pid, pid+1)
	h.write(fmt.Sprintf("/proc/%d/io", pid), "rchar: 100\nwchar: 200\nsyscr: 3\nsyscw: 4\nread_bytes: 500\nwrite_bytes: 600\ncancelled_write_bytes: 0\n")
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
