package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// process is what is told of one process.
type process struct {
	group   Group
	threads map[int]Thread
}

// told reads all threads of the tracked processes.
func told(t testing.TB, p *Programs) map[int]process {
	t.Helper()
	found := make(map[int]process)
	all, err := p.Threads(func(thread *Thread) {
		of := found[thread.PID]
		if of.threads == nil {
			of.threads = make(map[int]Thread)
		}
		if thread.Group != nil {
			of.group = *thread.Group
		}
		kept := *thread
		kept.Group = nil
		of.threads[thread.TID] = kept
		found[thread.PID] = of
	})
	if err != nil || !all {
		t.Fatalf("all threads were told: %v, %v", all, err)
	}
	return found
}

// numbers are all numbers in a file of /proc after its name in parentheses, if
// it has one, or by the word before.
func numbers(t testing.TB, name string) (list []uint64, named map[string]uint64) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text = text[bytes.LastIndexByte(text, ')')+1:]
	named = make(map[string]uint64)
	word := ""
	for field := range strings.FieldsSeq(string(text)) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			word = strings.TrimSuffix(field, ":")
		} else if _, again := named[word]; !again {
			named[word] = n
		}
		list = append(list, n)
	}
	return list, named
}

// fromProc reads with the files of /proc what the kernel tells itself. What
// only the program tells is taken from it.
func fromProc(t testing.TB, pid int, program process) process {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tids, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := process{group: program.group, threads: make(map[int]Thread)}
	now.group.Threads, now.group.Torn = uint64(len(tids)), false
	var sum Account
	for _, entry := range tids {
		tid, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		of := filepath.Join(dir, entry.Name())
		stat, _ := numbers(t, of+"/stat")
		sched, _ := numbers(t, of+"/schedstat")
		_, status := numbers(t, of+"/status")
		_, io := numbers(t, of+"/io")
		thread := Thread{
			PID: pid, TID: tid, Start: stat[19], Delay: sched[1], Waits: sched[2],
			Voluntary: status["voluntary_ctxt_switches"], Involuntary: status["nonvoluntary_ctxt_switches"],
			Groups: program.threads[tid].Groups, Used: accountOf(io),
		}
		comm, err := os.ReadFile(of + "/comm")
		if err != nil {
			t.Fatal(err)
		}
		copy(thread.Name[:], bytes.TrimSuffix(comm, []byte("\n")))
		used := program.threads[tid].Used
		thread.Used.Runtime, thread.Used.MinorFaults, thread.Used.MajorFaults = sched[0], stat[7], stat[9]
		thread.Used.User, thread.Used.System, thread.Used.ToldUser, thread.Used.ToldSystem = used.User, used.System, used.ToldUser, used.ToldSystem
		now.threads[tid] = thread
		sum.MinorFaults += stat[7]
		sum.MajorFaults += stat[9]
		for i, n := range thread.Used.io() {
			*sum.io()[i] += *n
		}
	}
	stat, _ := numbers(t, fmt.Sprintf("/proc/%d/stat", pid))
	_, io := numbers(t, fmt.Sprintf("/proc/%d/io", pid))
	now.group.Ended.MinorFaults, now.group.Ended.MajorFaults = stat[7]-sum.MinorFaults, stat[9]-sum.MajorFaults
	all := accountOf(io)
	for i, n := range now.group.Ended.io() {
		*n = *all.io()[i] - *sum.io()[i]
	}
	return now
}

func (a *Account) io() [7]*uint64 {
	return [7]*uint64{&a.ReadChars, &a.WriteChars, &a.ReadCalls, &a.WriteCalls, &a.ReadBytes, &a.WriteBytes, &a.CancelledWrites}
}

func accountOf(io map[string]uint64) Account {
	return Account{
		ReadChars: io["rchar"], WriteChars: io["wchar"], ReadCalls: io["syscr"], WriteCalls: io["syscw"],
		ReadBytes: io["read_bytes"], WriteBytes: io["write_bytes"], CancelledWrites: io["cancelled_write_bytes"],
	}
}

// same waits until the program and /proc say the same of a process at rest.
func same(t testing.TB, p *Programs, pid int) process {
	t.Helper()
	var program, proc process
	var diff string
	t.Cleanup(func() {
		if diff != "" {
			t.Log("the last difference (-proc +program):\n" + diff)
		}
	})
	eventually(t, "the program says what /proc says", func() bool {
		program = told(t, p)[pid]
		for tid, thread := range program.threads {
			thread.Start /= 10_000_000 // ticks, as /proc has it
			clear(thread.Name[bytes.IndexByte(thread.Name[:], 0):])
			program.threads[tid] = thread
		}
		proc = fromProc(t, pid, program)
		diff = cmp.Diff(proc, program, cmp.AllowUnexported(process{}))
		return diff == ""
	})
	return program
}

// runtimeOf is the CPU time of a process in nanoseconds, ended threads too.
func runtimeOf(p process) (sum uint64) {
	for _, thread := range p.threads {
		sum += thread.Used.Runtime
	}
	return sum + p.group.Ended.Runtime
}

func TestThreadsAreWhatProcTells(t *testing.T) {
	p := loadAll(t, 4)
	vm, other := startChild(t, "vm", nil), startChild(t, "vm", nil)
	vm.line(t)
	other.line(t)
	track(t, p, vm.process())
	pid := vm.Process.Pid
	if found := told(t, p); len(found) != 1 || len(found[pid].threads) < len(vmThreads()) {
		t.Fatalf("have %d processes, the VM with %d threads", len(found), len(found[pid].threads))
	}
	idle := same(t, p, pid)
	vm.tell(t, "run")
	eventually(t, "CPU time", func() bool { return runtimeOf(told(t, p)[pid]) > runtimeOf(idle)+300e6 })
	vm.tell(t, "park")
	busy := same(t, p, pid)

	vm.tell(t, "end")
	eventually(t, "the thread's end", func() bool { return told(t, p)[pid].group.Ended.Runtime >= 20e6 })
	ended := same(t, p, pid)
	// The others stay. The Go runtime may have begun one more meanwhile.
	for tid, thread := range busy.threads {
		name := string(bytes.TrimRight(thread.Name[:], "\x00"))
		if _, stays := ended.threads[tid]; stays == (name == vmThreads()[3]) {
			t.Errorf("thread %d, %s, is told: %v", tid, name, stays)
		}
	}
	if before, now := runtimeOf(busy), runtimeOf(ended); now < before || now > before+100e6 {
		t.Errorf("%d ns with a thread, and %d when it had ended", before, now)
	}
	// The kernel knows of resident pages but for some of each CPU.
	_, status := numbers(t, fmt.Sprintf("/proc/%d/status", pid))
	for i, field := range []string{"RssFile", "RssAnon", "VmSwap", "RssShmem"} {
		have, want := ended.group.Pages[i]*int64(os.Getpagesize()), int64(status[field])<<10
		if have < want-8<<20 || have > want+8<<20 {
			t.Errorf("%s: have %d bytes, want %d", field, have, want)
		}
	}

	if err := vm.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := vm.Process.Signal(unix.Signal(0)); err == nil { // not waited for: a zombie
		eventually(t, "the zombie is told to be torn", func() bool { z := told(t, p)[pid]; return len(z.threads) == 1 && z.group.Torn })
	}
	_ = vm.Wait()
	if found := told(t, p); len(found) != 0 {
		t.Errorf("after its end: %+v", found)
	}
	track(t, p)
	if found := told(t, p); len(found) != 0 {
		t.Errorf("nothing is tracked: %+v", found)
	}
}

// TestWhatAProcessHasHasANumber: open files and control groups are told from
// others, also in the place of one that was closed.
func TestWhatAProcessHasHasANumber(t *testing.T) {
	p := loadAll(t, 4)
	vm := startChild(t, "vm", nil)
	vm.line(t)
	track(t, p, vm.process())
	pid := vm.Process.Pid
	number := func(command string) uint64 {
		t.Helper()
		if command != "" {
			vm.tell(t, command)
			if answer := vm.line(t); answer != "<nil>" {
				t.Fatalf("%s: %s", command, answer)
			}
		}
		now := told(t, p)[pid].group.Files
		if again := told(t, p)[pid].group.Files; again != now {
			t.Errorf("after %q: numbers %x and %x", command, now, again)
		}
		return now
	}
	first := number("")
	seen := map[uint64]string{0: "none", first: "at first"}
	for _, command := range []string{"dup 1 60", "dup 0 60", "dup 0 61", "close 60", "dup 1 200", "dup 1 255"} {
		now := number(command)
		if before, known := seen[now]; known {
			t.Errorf("after %q: the number of %q", command, before)
		}
		seen[now] = command
	}
	if n := number("dup 1 256"); n != 0 {
		t.Errorf("with a descriptor of number 256: have %x", n)
	}

	group := "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(group); err != nil {
		group = "/sys/fs/cgroup"
	}
	group = filepath.Join(group, fmt.Sprintf("nodeagent-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("control groups cannot be made here: %v", err)
	}
	before := told(t, p)[pid].threads
	err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
	after := told(t, p)[pid].threads
	t.Cleanup(func() {
		_ = vm.Process.Kill()
		_ = vm.Wait()
		eventually(t, "the group goes", func() bool { return os.Remove(group) == nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	for tid, thread := range after {
		if thread.Groups == before[tid].Groups || thread.Groups != after[pid].Groups {
			t.Errorf("thread %d: from %x to %x, the main one to %x", tid, before[tid].Groups, thread.Groups, after[pid].Groups)
		}
	}
}

// TestManyThreads are more than the kernel tells in one system call, of
// processes that end meanwhile.
func TestManyThreads(t *testing.T) {
	p := loadAll(t, 64)
	var vms []*child
	var processes []Process
	for range 40 {
		vm := startChild(t, "vm", nil)
		vm.line(t)
		vms, processes = append(vms, vm), append(processes, vm.process())
	}
	track(t, p, processes...)
	go func() {
		for _, vm := range vms[20:] {
			_ = vm.Process.Kill()
		}
	}()
	others := 0 // readings of a thousand with another number of threads
	for range 50 {
		found := told(t, p)
		for _, vm := range vms[:20] {
			of := found[vm.Process.Pid]
			n := len(of.threads)
			if uint64(n) != of.group.Threads { // its Go runtime begins or ends one
				others++
			}
			if n < len(vmThreads()) || others > 20 {
				t.Fatalf("process %d has %d threads, of %d was told", vm.Process.Pid, of.group.Threads, n)
			}
		}
	}
}

// walkOf is a walk over bytes.
func walkOf(file io.Reader) *walk {
	return newWalk(func() (io.ReadCloser, error) { return io.NopCloser(file), nil })
}

func threadsOf(w *walk) (threads []Thread, err error) {
	err = w.read(func(t *Thread) {
		kept := *t
		if t.Group != nil {
			group := *t.Group
			kept.Group = &group
		}
		threads = append(threads, kept)
	})
	return threads, err
}

// record makes a record in which each number is its place.
func record(pid, tid uint32) []byte {
	data := make([]byte, threadSize+groupSize)
	for i := range data {
		data[i] = byte(i) * byte(1-min(i%8, 1))
	}
	copy(data, []byte{byte(pid), 0, 0, 0, byte(tid), 0, 0, 0})
	if pid != tid {
		data = data[:threadSize]
	}
	return data
}

func TestRecords(t *testing.T) {
	data := append(append(record(7, 7), record(7, 8)...), record(9, 9)...)
	for name, file := range map[string]io.Reader{"at once": bytes.NewReader(data), "in halves": iotest.HalfReader(bytes.NewReader(data)), "in bytes": iotest.OneByteReader(bytes.NewReader(data))} {
		got, err := threadsOf(walkOf(file))
		if err != nil || len(got) != 3 {
			t.Fatalf("%s: %d threads, %v", name, len(got), err)
		}
		used := Account{80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160, 168, 176, 184}
		ended := Account{8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112}
		want := Thread{
			PID: 7, TID: 7, Start: 8, Delay: 16, Waits: 24, Voluntary: 32, Involuntary: 40, Behind: true, Groups: 56, Name: [16]byte{0: 64, 8: 72}, Used: used,
			Group: &Group{Now: 192, Threads: 200, Torn: true, Pages: [4]int64{216, 224, 232, 240}, HugePages: 248, Ended: ended},
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got[1].PID != 7 || got[1].TID != 8 || got[1].Group != nil || got[2].PID != 9 || got[2].Group == nil {
			t.Errorf("%s: %+v", name, got[1:])
		}
	}
	if got, err := threadsOf(walkOf(bytes.NewReader(data[:len(data)-1]))); !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 2 {
		t.Errorf("a record that is cut: %d threads, %v", len(got), err)
	}
	broken := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(unix.ENOMEM))
	if _, err := threadsOf(walkOf(broken)); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("a walk that breaks off: %v", err)
	}
}

// FuzzRecords reads bytes in pieces of any size: what comes out is the same.
func FuzzRecords(f *testing.F) {
	f.Add(append(record(7, 7), record(7, 8)...), 100)
	f.Add(record(1, 2), 1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		if size < 1 {
			return
		}
		want, wantErr := threadsOf(walkOf(bytes.NewReader(data)))
		got, gotErr := threadsOf(walkOf(&pieces{data: data, size: size}))
		if diff := cmp.Diff(want, got); diff != "" || !errors.Is(gotErr, wantErr) {
			t.Errorf("in pieces of %d: %v, not %v; %s", size, gotErr, wantErr, diff)
		}
		read := 0
		for _, thread := range want {
			read += threadSize
			if thread.Group != nil {
				read += groupSize
			}
		}
		if rest := len(data) - read; (rest == 0) != (wantErr == nil) || rest >= threadSize+groupSize {
			t.Errorf("%d bytes left of %d, %v", rest, len(data), wantErr)
		}
	})
}

// pieces gives few bytes at a time, and asks to try again now and then.
type pieces struct {
	data  []byte
	size  int
	again bool
}

func (p *pieces) Read(buf []byte) (int, error) {
	if p.again = !p.again; p.again {
		return 0, unix.EAGAIN
	}
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(buf, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}
