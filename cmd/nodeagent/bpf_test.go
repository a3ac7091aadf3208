package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// needBPF is for tests that want programs in the kernel.
func needBPF(t *testing.T) {
	t.Helper()
	var missing error
	if os.Geteuid() != 0 {
		missing = errors.New("BPF programs need root")
	} else if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		missing = errors.New("the kernel has no BTF")
	}
	hosttest.Need(t, hosttest.BPF, missing)
}

// sample is the value of the sample on a page that begins so, and has this in
// its labels.
func sample(page, name, label string) (value float64, found bool) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name+"{"); ok && strings.Contains(rest, label) {
			_, number, _ := strings.Cut(rest, "} ")
			value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			return value, err == nil
		}
	}
	return 0, false
}

// loadedBy lists the BPF programs that a process holds.
func loadedBy(t *testing.T, pid int) (programs []ebpf.ProgramID) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		_, rest, found := strings.Cut(string(text), "prog_id:")
		var id ebpf.ProgramID
		if _, err := fmt.Sscan(rest, &id); found && err == nil {
			programs = append(programs, id)
		}
	}
	return programs
}

func inKernel(t *testing.T, id ebpf.ProgramID) bool {
	t.Helper()
	program, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}

func TestRunTakesItsProgramsAlong(t *testing.T) {
	needBPF(t)
	for _, signal := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		file := write(t, "nodeagent.yaml", "web: {listenAddress: '127.0.0.1:0'}\n")
		d := startDaemon(t, "--config", file)
		states := func(want ...string) func() bool {
			return func() bool {
				_, page := get(t, d.url+"/metrics")
				for _, line := range want {
					if !strings.Contains(page, line+"\n") {
						return false
					}
				}
				return true
			}
		}
		are := func(up int, reason string) func() bool {
			var want []string
			for _, program := range []string{"run_queue_delay", "vm_threads"} {
				want = append(want, fmt.Sprintf("virtnode_bpf_program_up{program=%q} %d", program, up), fmt.Sprintf("virtnode_bpf_program_state{program=%q,reason=%q} 1", program, reason))
			}
			return states(want...)
		}
		eventually(t, "the programs run", are(1, "Loaded"))
		rewrite(t, file, "web: {listenAddress: '127.0.0.1:0'}\ntelemetry: {bpf: false}\n")
		eventually(t, "the programs are taken out", are(0, "Disabled"))
		eventually(t, "the agent holds no program", func() bool { return len(loadedBy(t, d.cmd.Process.Pid)) == 0 })
		rewrite(t, file, "web: {listenAddress: '127.0.0.1:0'}\n")
		eventually(t, "the programs run again", are(1, "Loaded"))

		ids := loadedBy(t, d.cmd.Process.Pid)
		held := func(id ebpf.ProgramID) bool { return inKernel(t, id) }
		if len(ids) < 2 || !slices.ContainsFunc(ids, held) {
			t.Fatalf("the agent holds the programs %v: the search itself is broken", ids)
		}
		if err := d.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = d.cmd.Wait()
		eventually(t, "the kernel has dropped them", func() bool { return !slices.ContainsFunc(ids, held) })
	}
}

// TestRunWithoutPermissionGoesOn is for agents with fewer capabilities.
func TestRunWithoutPermissionGoesOn(t *testing.T) {
	needBPF(t)
	cmd := command("run", "--web.listen-address", "127.0.0.1:0")
	asNobody(t, cmd)
	file := filepath.Join(filepath.Dir(cmd.Path), "nodeagent.yaml")
	if err := os.WriteFile(file, []byte("network: {stateDirectory: /var/lib/no-such-agent}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "--config", file)
	d := follow(t, cmd)
	eventually(t, "ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == 200 })
	_, page := get(t, d.url+"/metrics")
	for _, program := range []string{"run_queue_delay", "vm_threads"} {
		if !strings.Contains(page, fmt.Sprintf("virtnode_bpf_program_state{program=%q,reason=\"PermissionDenied\"} 1", program)) {
			t.Errorf("the page does not say that %s is not permitted", program)
		}
	}
}

// TestRunMeasuresRunQueueDelay compares the page with what the kernel counted
// for the virtual CPUs of two VMs that never halt and share a CPU.
func TestRunMeasuresRunQueueDelay(t *testing.T) {
	needBPF(t)
	host := libvirt.New(t, libvirt.Options{})
	names := []string{"busy1", "busy2"}
	pids := make(map[string]int)
	for _, name := range names {
		if err := host.StartDomain(t.Context(), libvirt.Domain{Name: name, Workload: libvirt.Busy}); err != nil {
			t.Fatal(err)
		}
		pid, err := host.QEMUPID(name)
		if err != nil {
			t.Fatal(err)
		}
		pids[name] = pid
		for _, tid := range vcpuThreads(t, pid) {
			if err := unix.SchedSetaffinity(tid, &unix.CPUSet{1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := startDaemon(t, "--web.listen-address", "127.0.0.1:0", "--libvirt-uri", host.URI())
	const family = "virtnode_vm_vcpu_run_queue_delay_seconds"
	read := func(name, part string) float64 {
		_, page := get(t, d.url+"/metrics")
		value, _ := sample(page, family+part, `name="`+name+`"`)
		return value
	}
	// round lets both run until each has waited so much, in seconds, and stops them.
	round := func(delay float64) (page, kernel map[string]float64) {
		for _, name := range names {
			if err := host.Resume(name); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range names {
			from := read(name, "_sum")
			eventually(t, "waits", func() bool { return read(name, "_sum") > from+delay })
		}
		page, kernel = make(map[string]float64), make(map[string]float64)
		for _, name := range names {
			if err := host.Hang(name); err != nil {
				t.Fatal(err)
			}
			for _, tid := range vcpuThreads(t, pids[name]) {
				eventually(t, "the thread stands", func() bool { return threadState(t, pids[name], tid) == 'T' })
			}
		}
		for _, name := range names {
			last := -1.0
			eventually(t, "the last wait", func() bool {
				before := last
				last = read(name, "_sum")
				return last == before
			})
			page[name] = last
			for _, tid := range vcpuThreads(t, pids[name]) {
				kernel[name] += runDelay(t, pids[name], tid)
			}
		}
		return page, kernel
	}
	pageBefore, kernelBefore := round(0.05)
	pageAfter, kernelAfter := round(1)
	for _, name := range names {
		page, kernel := pageAfter[name]-pageBefore[name], kernelAfter[name]-kernelBefore[name]
		if page < kernel*0.99 || page > kernel*1.01 || kernel < 1 {
			t.Errorf("%s: the page says %g s, the kernel %g s", name, page, kernel)
		}
		t.Logf("%s: the page says %g s in %g waits in all, the kernel %g s", name, page, read(name, "_count"), kernel)
	}
}

func vcpuThreads(t *testing.T, pid int) (tids []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		comm, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(comm), "CPU ") {
			continue
		}
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		tids = append(tids, tid)
	}
	if len(tids) == 0 {
		t.Fatalf("process %d has no virtual CPU", pid)
	}
	return tids
}

func threadFile(t *testing.T, pid, tid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/%s", pid, tid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func threadState(t *testing.T, pid, tid int) byte {
	t.Helper()
	_, rest, _ := strings.Cut(threadFile(t, pid, tid, "stat"), ") ")
	return rest[0]
}

// runDelay is what schedstat says, in seconds.
func runDelay(t *testing.T, pid, tid int) float64 {
	t.Helper()
	var ran, delay uint64
	if _, err := fmt.Sscan(threadFile(t, pid, tid, "schedstat"), &ran, &delay); err != nil {
		t.Fatal(err)
	}
	return float64(delay) / 1e9
}
