package bpf

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// changed is an object as the kernel does not take it.
func changed(name string, change func(*ebpf.ProgramSpec)) object {
	return changedFrom(loadRunQueueDelay, name, change)
}

func changedFrom(load func() (*ebpf.CollectionSpec, error), name string, change func(*ebpf.ProgramSpec)) object {
	return object{name, func() (*ebpf.CollectionSpec, error) {
		spec, err := load()
		if err != nil {
			return nil, err
		}
		if histograms := spec.Maps[RunQueueDelay]; histograms != nil {
			spec.Maps[name] = histograms
		}
		for _, p := range spec.Programs {
			change(p)
		}
		return spec, nil
	}}
}

func TestReasons(t *testing.T) {
	hosttest.Need(t, hosttest.BPF, missing())
	p := load(2, []object{
		changed("no hook", func(p *ebpf.ProgramSpec) { p.AttachTo = "sched_nothing" }),
		changed("unknown helper", func(p *ebpf.ProgramSpec) {
			p.Instructions = asm.Instructions{asm.BuiltinFunc(9999).Call(), asm.Return()}
		}),
		changed("endless", func(p *ebpf.ProgramSpec) {
			p.Instructions = asm.Instructions{asm.Ja.Label("self").WithSymbol("self")}
		}),
		{"broken", func() (*ebpf.CollectionSpec, error) { return nil, errors.New("broken") }},
		changedFrom(loadVmThreads, "no iterator", func(p *ebpf.ProgramSpec) { p.AttachTo = "nothing" }),
		{RunQueueDelay, loadRunQueueDelay},
	})
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := map[string]Reason{
		"no hook": HookMissing, "no iterator": HookMissing, "unknown helper": Unsupported, "endless": Unsupported, "broken": LoadFailed, RunQueueDelay: Loaded,
	}
	if len(p.States()) != len(want) {
		t.Errorf("%d states, want %d", len(p.States()), len(want))
	}
	for _, state := range p.States() {
		if state.Reason != want[state.Program] {
			t.Errorf("%s: %s (%v), want %s", state.Program, state.Reason, state.Err, want[state.Program])
		}
		if (state.Err == nil) != (state.Reason == Loaded) || (state.Reason.Remedy() == "") != (state.Reason == Loaded) {
			t.Errorf("%s: %s with the error %v and the remedy %q", state.Program, state.Reason, state.Err, state.Reason.Remedy())
		}
	}
	vm := startChild(t, "vm", nil)
	vm.line(t)
	track(t, p, vm.process())
	vm.tell(t, "run")
	busy(t, p, vm.Process.Pid) // goes on beside the others
	if all, err := p.Threads(func(*Thread) { t.Error("a program that does not run tells of threads") }); all || err != nil {
		t.Errorf("have all threads: %v, %v", all, err)
	}
	if err := p.Read("broken", func(int, *Histogram) { t.Error("a program that does not run measures") }); err != nil {
		t.Error(err)
	}
}

// TestReasonsOfTheMachine takes from a process what the kernel wants of it.
func TestReasonsOfTheMachine(t *testing.T) {
	hosttest.Need(t, hosttest.BPF, missing())
	for _, test := range []struct {
		mode string
		attr *syscall.SysProcAttr
		want Reason
	}{
		{"load without capabilities", nil, PermissionDenied},
		{"load without BTF", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, BTFMissing},
	} {
		c := startChild(t, test.mode, test.attr)
		for _, object := range objects() {
			if state := c.line(t); !strings.HasPrefix(state, object.name+" "+string(test.want)+" load BPF program ") {
				t.Errorf("%s: the state is %q, want %s of %s", test.mode, state, test.want, object.name)
			}
		}
	}
}

// TestTellsAnywhere is for agents that are not privileged, and for those that
// know processes by other numbers than the initial namespace.
func TestTellsAnywhere(t *testing.T) {
	hosttest.Need(t, hosttest.BPF, missing())
	for _, test := range []struct {
		mode string
		attr *syscall.SysProcAttr
	}{
		{"tell with two capabilities", nil},
		{"tell", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}},
	} {
		c := startChild(t, test.mode, test.attr)
		for _, object := range objects() {
			if state, want := c.line(t), object.name+" Loaded <nil>"; state != want {
				t.Errorf("%s: the state is %q, want %q", test.mode, state, want)
			}
		}
		pid, threads := c.line(t), c.line(t)
		if !strings.HasPrefix(threads, pid+"/"+pid+" "+pid+"/") || !strings.HasSuffix(threads, " true <nil>") {
			t.Errorf("%s: process %s was told of the threads %s", test.mode, pid, threads)
		}
	}
}

// TestKilledAgentLeavesNothing kills a process whose programs run, with no
// chance to take them back.
func TestKilledAgentLeavesNothing(t *testing.T) {
	hosttest.Need(t, hosttest.BPF, missing())
	agent := startChild(t, "load", nil)
	var ids []ebpf.ProgramID
	for _, want := range []string{"sched_switch", "vm_threads"} {
		id, err := strconv.ParseUint(agent.line(t), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, ebpf.ProgramID(id))
		if name := loadedPrograms(t)[ids[len(ids)-1]]; name != want {
			t.Fatalf("program %d is called %q, not %q: the search itself is broken", id, name, want)
		}
	}
	if err := agent.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if how := agent.ProcessState.Sys().(syscall.WaitStatus); how.Signal() != unix.SIGKILL {
		t.Fatalf("the process ended by itself: %v", agent.ProcessState)
	}
	eventually(t, "the programs' end", func() bool {
		left := loadedPrograms(t)
		return !slices.ContainsFunc(ids, func(id ebpf.ProgramID) bool { _, found := left[id]; return found })
	})
}

// loadedPrograms lists all programs in the kernel.
func loadedPrograms(t *testing.T) map[ebpf.ProgramID]string {
	t.Helper()
	names := make(map[ebpf.ProgramID]string)
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		names[id] = info.Name
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
