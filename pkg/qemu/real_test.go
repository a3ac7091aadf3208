package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// pretendEnv makes the test binary a process whose threads are named as QEMU's.
const pretendEnv = "NODEAGENT_TEST_PRETEND"

func TestMain(m *testing.M) {
	switch os.Getenv(pretendEnv) {
	case "":
		os.Exit(m.Run())
	case "1":
		pretend(os.Stdin, os.Stdout)
	default:
		readBoxedIn()
	}
}

// pretend obeys until its input ends: "start NAME" makes a thread, "burn NAME
// MS" has it use the CPU, "end NAME" ends it, and "have MIB" makes so much
// memory resident instead of what was before. Each is answered with "ok".
func pretend(in io.Reader, out io.Writer) {
	work := make(map[string]chan time.Duration)
	done := make(chan struct{}, 1)
	var memory []byte
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		verb, name, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "start":
			orders := make(chan time.Duration)
			work[name] = orders
			go burner(name, orders, done)
		case "burn":
			at := strings.LastIndexByte(name, ' ')
			ms, _ := strconv.Atoi(name[at+1:])
			work[name[:at]] <- time.Duration(ms) * time.Millisecond
		case "end":
			close(work[name])
		case "have":
			mib, _ := strconv.Atoi(name)
			memory = have(memory, mib<<20)
			done <- struct{}{}
		}
		<-done
		_, _ = fmt.Fprintln(out, "ok") // nobody listens any more
	}
}

// have gives memory back and takes new, of which it writes to each page.
func have(before []byte, bytes int) []byte {
	if before != nil {
		if err := unix.Munmap(before); err != nil {
			panic(err)
		}
	}
	if bytes == 0 {
		return nil
	}
	now, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	for i := 0; i < bytes; i += os.Getpagesize() {
		now[i] = 1
	}
	return now
}

// burner is a thread that uses as much CPU time as it is told, and ends with
// its goroutine.
func burner(name string, orders chan time.Duration, done chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread keeps its name, which is the process's.
		go burner(name, orders, done)
		select {}
	}
	text := append([]byte(name), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&text[0])), 0, 0, 0); err != nil {
		panic(err)
	}
	done <- struct{}{}
	for order := range orders {
		for end := threadTime() + order; threadTime() < end; {
			for i := range 1000 {
				_ = i
			}
		}
		done <- struct{}{}
	}
	// The thread ends after this: who asked waits for it in /proc.
	done <- struct{}{}
}

func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

// pretender is a process that pretends to be a QEMU.
type pretender struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// pretendQEMU starts one. Its program has QEMU's name, and so has its comm.
func pretendQEMU(t testing.TB, dir, name string, change func(*exec.Cmd), threads ...string) *pretender {
	t.Helper()
	program := filepath.Join(dir, "qemu-system-x86_64")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, program); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-name", "guest="+name+",debug-threads=on")
	cmd.Env = append(os.Environ(), pretendEnv+"=1", "GOMAXPROCS=2", "GOGC=off")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if change != nil {
		change(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &pretender{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(p.end)
	for _, thread := range threads {
		p.order("start " + thread)
	}
	return p
}

func (p *pretender) order(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
	if answer, err := p.out.ReadString('\n'); err != nil || answer != "ok\n" {
		p.t.Fatalf("%s: answer %q, %v", line, answer, err)
	}
}

func (p *pretender) end() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed
}

func (p *pretender) pid() int { return p.cmd.Process.Pid }

// file reads a file of the process's /proc.
func (p *pretender) file(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(procPath(p.pid(), name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// thread finds a thread by its name.
func (p *pretender) thread(name string) (int, bool) {
	p.t.Helper()
	entries, err := os.ReadDir(procPath(p.pid(), "task"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, entry := range entries {
		comm, err := os.ReadFile(procPath(p.pid(), "task/"+entry.Name()+"/comm"))
		if err == nil && strings.TrimSuffix(string(comm), "\n") == name {
			tid, err := strconv.Atoi(entry.Name())
			return tid, err == nil
		}
	}
	return 0, false
}

// realScanner reads this machine.
func realScanner(t testing.TB) *scanner {
	t.Helper()
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	s := newScanner(Options{Root: root, Now: time.Now, Groups: map[string]bool{threadDetail: true}})
	t.Cleanup(s.close)
	return s
}

// readOne reads one process's machine; other processes are none of our business.
func readOne(t testing.TB, s *scanner, pid int) *VM {
	t.Helper()
	r, err := s.read(t.Context(), slab{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.vms {
		if r.vms[i].Process.PID == pid {
			return &r.vms[i]
		}
	}
	return nil
}

// between checks a number against the kernel's own before and after.
func between(t *testing.T, what string, before, ours, after Num) {
	t.Helper()
	if !before.Set || !after.Set || !ours.Set || ours.V < before.V || ours.V > after.V {
		t.Errorf("%s: have %+v, the kernel says %+v and then %+v", what, ours, before, after)
	}
}

func TestEveryNumberIsTheKernels(t *testing.T) {
	t.Run("proc", func(t *testing.T) { everyNumberIsTheKernels(t, realScanner(t)) })
	t.Run("programs", func(t *testing.T) {
		s := realScanner(t)
		s.programs = loadPrograms(t)
		everyNumberIsTheKernels(t, s)
	})
}

func everyNumberIsTheKernels(t *testing.T, s *scanner) {
	p := pretendQEMU(t, t.TempDir(), "web", nil, "CPU 0/KVM", "CPU 1/KVM", "IO iothread1", "worker")
	readOne(t, s, p.pid()) // programs tell of what was there before
	// What programs tell is finer than what /proc does, by less than a tick. And
	// the kernel splits time anew each time that somebody reads it in /proc.
	near := func(n Num) Num { return n }
	if s.programs != nil {
		near = func(n Num) Num { return Some(n.V + uint64(tick) - 1) }
	}
	for round := range 3 {
		p.order("burn CPU 0/KVM 60")
		p.order("burn IO iothread1 30")
		p.order("burn worker 20")
		// truth reads all with the slow tools of the standard library.
		type truth struct {
			total   stat
			about   status
			io      ProcessIO
			threads map[string]Usage
		}
		read := func() (now truth) {
			now.total, _ = parseStat([]byte(p.file("stat")))
			now.about, _ = parseStatus([]byte(p.file("status")))
			now.io, _ = parseIO([]byte(p.file("io")))
			now.threads = make(map[string]Usage)
			for _, name := range []string{"CPU 0/KVM", "CPU 1/KVM", "IO iothread1", "qemu-system-x86"} {
				tid, found := p.thread(name)
				if !found {
					t.Fatalf("no thread %s", name)
				}
				dir := "task/" + strconv.Itoa(tid)
				times, _ := parseStat([]byte(p.file(dir + "/stat")))
				switches, _ := parseStatus([]byte(p.file(dir + "/status")))
				fields := strings.Fields(p.file(dir + "/schedstat"))
				delay, err := strconv.ParseUint(fields[1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				now.threads[name] = Usage{CPU: Some(times.user + times.system), System: Some(times.system), Delay: Some(delay), Voluntary: switches.voluntary, Involuntary: switches.involuntary}
			}
			return now
		}
		// Programs are not believed while the Go runtime begins or ends a thread.
		var before, after truth
		var vm *VM
		eventually(t, "told by whom it is to be", func() bool {
			before = read()
			vm = readOne(t, s, p.pid())
			after = read()
			return s.processes[p.pid()].qemu.heard == (s.programs != nil)
		})
		if vm == nil || vm.Name != "web" || len(vm.VCPUs) != 2 || len(vm.Process.IOThreads) != 1 {
			t.Fatalf("round %d: %+v", round, vm)
		}
		for name, ours := range map[string]Usage{
			"CPU 0/KVM": vm.Process.VCPUs[0].Usage, "CPU 1/KVM": vm.Process.VCPUs[1].Usage,
			"IO iothread1": vm.Process.IOThreads[0].Usage, "qemu-system-x86": vm.Process.Threads[RoleEmulator],
		} {
			first, then := before.threads[name], after.threads[name]
			between(t, name+" CPU", first.CPU, ours.CPU, near(near(then.CPU)))
			between(t, name+" system", first.System, ours.System, near(near(then.System)))
			between(t, name+" user", first.User(), ours.User(), near(near(then.User())))
			between(t, name+" voluntary", first.Voluntary, ours.Voluntary, then.Voluntary)
			between(t, name+" involuntary", first.Involuntary, ours.Involuntary, then.Involuntary)
			if first.Delay.V > 0 { // a kernel that counts
				between(t, name+" delay", first.Delay, ours.Delay, then.Delay)
			}
		}
		var all uint64
		for _, used := range vm.Process.Threads {
			all += used.CPU.V
		}
		between(t, "all threads", Some(before.total.user+before.total.system), Some(all), near(near(Some(after.total.user+after.total.system))))
		between(t, "user", Some(before.total.user), vm.CPU.User, near(near(Some(after.total.user))))
		between(t, "system", Some(before.total.system), vm.CPU.System, near(near(Some(after.total.system))))
		between(t, "minor faults", Some(before.total.minor), vm.Process.MinorFaults, Some(after.total.minor))
		between(t, "major faults", Some(before.total.major), vm.Process.MajorFaults, Some(after.total.major))
		between(t, "read calls", before.io.ReadCalls, vm.Process.IO.ReadCalls, after.io.ReadCalls)
		between(t, "write chars", before.io.WriteChars, vm.Process.IO.WriteChars, after.io.WriteChars)
		if before.about.resident == after.about.resident && before.about.anonymous == after.about.anonymous {
			between(t, "resident", before.about.resident, vm.Process.Resident, after.about.resident)
			between(t, "anonymous", before.about.anonymous, vm.Process.Memory.Anonymous, after.about.anonymous)
		}
	}
	if used := readOne(t, s, p.pid()).Process; used.VCPUs[0].CPU.V < 160e6 || used.Threads[RoleOther].CPU.V < 40e6 {
		t.Errorf("three times 60 and 20 ms were burnt: %+v", used.Threads)
	}
}

func TestThreadsThatComeAndGo(t *testing.T) {
	t.Run("proc", func(t *testing.T) { threadsThatComeAndGo(t, realScanner(t)) })
	t.Run("programs", func(t *testing.T) {
		s := realScanner(t)
		s.programs = loadPrograms(t)
		threadsThatComeAndGo(t, s)
	})
}

func threadsThatComeAndGo(t *testing.T, s *scanner) {
	p := pretendQEMU(t, t.TempDir(), "web", nil, "CPU 0/KVM", "CPU 1/KVM")
	readOne(t, s, p.pid()) // programs tell of what was there before
	p.order("burn CPU 1/KVM 100")
	first := readOne(t, s, p.pid())
	if len(first.VCPUs) != 2 || first.VCPUs[1].Time.V < 90*1e6 {
		t.Fatalf("%+v", first.VCPUs)
	}
	tid, _ := p.thread("CPU 1/KVM")
	e := s.processes[p.pid()].qemu
	at, found := e.place(tid)
	if !found {
		t.Fatalf("thread %d is not followed", tid)
	}
	ending := e.threads[at]
	if s.programs == nil && (!ending.stat.Open() || !ending.sched.Open()) {
		t.Error("its files are not kept open")
	}
	p.order("end CPU 1/KVM")
	eventually(t, "the thread ends", func() bool { _, found := p.thread("CPU 1/KVM"); return !found })
	second := readOne(t, s, p.pid())
	if len(second.VCPUs) != 1 || second.Process.Threads[RoleVCPU].CPU.V < first.Process.Threads[RoleVCPU].CPU.V {
		t.Errorf("from %+v to %+v", first.Process.Threads, second.Process.Threads)
	}
	if ending.stat.Open() || ending.sched.Open() || ending.switches.Open() {
		t.Error("files of the thread that has ended are open")
	}
	p.order("start CPU 1/KVM")
	// It is seen at once, unless some other thread ended and left the number
	// of threads as it was; then, when the machine is examined again.
	s.now = func() time.Time { return time.Now().Add(2 * lasting) }
	third := readOne(t, s, p.pid())
	if len(third.VCPUs) != 2 || third.VCPUs[1].Time.V < first.VCPUs[1].Time.V {
		t.Errorf("plugged in again: from %+v to %+v", first.VCPUs, third.VCPUs)
	}
	p.end()
	if vm := readOne(t, s, p.pid()); vm != nil {
		t.Errorf("after its end: %+v", vm)
	}
	if _, known := s.processes[p.pid()]; known {
		t.Error("the process is remembered")
	}
}

// TestAStoppedProcessIsReadAllTheSame is what a hung QEMU looks like.
func TestAStoppedProcessIsReadAllTheSame(t *testing.T) {
	p := pretendQEMU(t, t.TempDir(), "web", nil, "CPU 0/KVM")
	p.order("burn CPU 0/KVM 50")
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process stops", func() bool { return strings.Contains(p.file("stat"), ") T ") })
	vm := readOne(t, realScanner(t), p.pid())
	if vm == nil || vm.Name != "web" || vm.VCPUs[0].Time.V < 40*1e6 || !vm.Process.Resident.Set || !vm.Process.IO.ReadCalls.Set {
		t.Errorf("%+v", vm)
	}
}
