package bpf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// childEnv says what the test binary does instead of testing.
const childEnv = "NODEAGENT_TEST_BPF_CHILD"

func TestMain(m *testing.M) {
	var err error
	switch mode := os.Getenv(childEnv); mode {
	case "":
		os.Exit(m.Run())
	case "vm":
		err = pretendToBeVM()
	case "load":
		err = loadAndStay()
	case "load without capabilities":
		err = loadWithoutCapabilities()
	case "tell":
		err = tell()
	case "tell with two capabilities":
		if err = keepCapabilities(unix.CAP_BPF, unix.CAP_PERFMON); err == nil {
			err = tell()
		}
	case "load without BTF":
		err = loadWithoutBTF()
	default:
		err = fmt.Errorf("unknown mode %q", mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is this test binary in another process, with its streams.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(t testing.TB, mode string, attr *syscall.SysProcAttr) *child {
	t.Helper()
	c := &child{Cmd: exec.CommandContext(t.Context(), os.Args[0])}
	c.Env = append(os.Environ(), childEnv+"="+mode)
	c.Stderr = os.Stderr
	c.SysProcAttr = attr
	var err error
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

func (c *child) line(t testing.TB) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read from the child: %v", err)
	}
	return strings.TrimSpace(line)
}

func (c *child) tell(t testing.TB, command string) {
	t.Helper()
	if _, err := io.WriteString(c.in, command+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c *child) process() Process { return Process{PID: c.Process.Pid, Start: time.Unix(1, 0)} }

// vmThreads are the threads of a VM that is none.
func vmThreads() []string { return []string{"CPU 0/KVM", "CPU 1/KVM", "IO iothread1", "worker"} }

// pretendToBeVM has a QEMU's threads, all on one CPU. They spin after the line
// "run" and sleep after the line "park"; the last one ends with "end", which
// comes after "park", and the process with its input. It answers "dup 1 60" and
// "close 60" when it has done that.
func pretendToBeVM() error {
	debug.SetGCPercent(-1)
	names := vmThreads()
	runtime.GOMAXPROCS(len(names) + 2)
	var running, ending atomic.Bool
	wake, named := make([]*os.File, len(names)), make(chan error, len(names))
	for i, name := range names {
		sleep, w, err := os.Pipe()
		if err != nil {
			return err
		}
		wake[i] = w
		var pretend func()
		pretend = func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() { // the main thread never ends
				go pretend()
				select {}
			}
			named <- settle(name)
			for {
				_, _ = unix.Read(int(sleep.Fd()), make([]byte, 1))
				for running.Load() {
				}
				if i == len(names)-1 && ending.Load() {
					return // and the thread with it
				}
			}
		}
		go pretend()
	}
	for range names {
		if err := <-named; err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var from, to int
		if n, _ := fmt.Sscanf(lines.Text(), "dup %d %d", &from, &to); n == 2 {
			fmt.Println(unix.Dup3(from, to, unix.O_CLOEXEC))
			continue
		}
		if n, _ := fmt.Sscanf(lines.Text(), "close %d", &to); n == 1 {
			fmt.Println(unix.Close(to))
			continue
		}
		running.Store(lines.Text() == "run")
		waking := wake
		switch lines.Text() {
		case "park":
			waking = nil
		case "end":
			ending.Store(true)
			waking = wake[len(wake)-1:]
		}
		for _, w := range waking {
			if _, err := w.Write([]byte{0}); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle names the thread and ties it to the first CPU that it may use.
func settle(name string) error {
	text, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(text)), 0, 0, 0); err != nil {
		return err
	}
	return pinThread(0)
}

// pinThread ties a thread, or the caller's when it is 0, to the first CPU.
func pinThread(tid int) error {
	var may, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return err
	}
	for cpu := 0; first.Count() == 0; cpu++ {
		if may.IsSet(cpu) {
			first.Set(cpu)
		}
	}
	return unix.SchedSetaffinity(tid, &first)
}

// loadAndStay prints the programs' states, and the numbers under which the
// kernel knows them, and waits to be killed.
func loadAndStay() error {
	p := Load(1)
	for _, state := range p.States() {
		for _, loaded := range p.running[state.Program].collection.Programs {
			info, err := loaded.Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			fmt.Println(id)
		}
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func loadWithoutCapabilities() error {
	if err := keepCapabilities(); err != nil {
		return err
	}
	return printStates()
}

// tell prints the programs' states, its own number, and the numbers that it is
// told of its threads.
func tell() error {
	p := Load(1)
	for _, state := range p.States() {
		fmt.Printf("%s %s %v\n", state.Program, state.Reason, state.Err)
	}
	if err := p.Track([]Process{{PID: os.Getpid()}}); err != nil {
		return err
	}
	fmt.Println(os.Getpid())
	all, err := p.Threads(func(t *Thread) { fmt.Print(t.PID, "/", t.TID, " ") })
	fmt.Println(all, err)
	return p.Close()
}

// keepCapabilities ties the caller to a thread that has no others.
func keepCapabilities(keep ...int) error {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var only [2]unix.CapUserData
	for _, capability := range keep {
		only[capability/32].Effective |= 1 << (capability % 32)
		only[capability/32].Permitted |= 1 << (capability % 32)
	}
	return unix.Capset(&header, &only[0])
}

// loadWithoutBTF is started in a mount namespace of its own.
func loadWithoutBTF() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/sys/kernel/btf", "/boot", "/usr/lib/debug"} {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil && dir == "/sys/kernel/btf" {
			return err
		}
	}
	return printStates()
}

func printStates() error {
	p := Load(1)
	for _, state := range p.States() {
		fmt.Printf("%s %s %v\n", state.Program, state.Reason, state.Err)
	}
	return p.Close()
}

// account is what the kernel says of a thread's waits.
type account struct{ Waits, Delay uint64 }

// schedstats reads /proc/PID/task/TID/schedstat of the threads whose name
// begins like a virtual CPU's.
func schedstats(t testing.TB, pid int) map[uint32]account {
	t.Helper()
	accounts := make(map[uint32]account)
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tids, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		comm, err := os.ReadFile(filepath.Join(dir, tid.Name(), "comm"))
		if err != nil || !strings.HasPrefix(string(comm), "CPU ") && !strings.HasPrefix(string(comm), "ALL ") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, tid.Name(), "schedstat"))
		if err != nil {
			t.Fatal(err)
		}
		var ran uint64
		var now account
		if _, err := fmt.Sscan(string(text), &ran, &now.Delay, &now.Waits); err != nil {
			t.Fatalf("schedstat %q: %v", text, err)
		}
		number, err := strconv.ParseUint(tid.Name(), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		accounts[uint32(number)] = now
	}
	return accounts
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	if err := hosttest.Poll(t.Context(), what, func() (bool, error) { return done(), nil }); err != nil {
		t.Fatal(err)
	}
}
