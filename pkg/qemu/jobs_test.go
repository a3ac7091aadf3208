package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func statusXML(job string) string {
	return "<!--\nWARNING\n-->\n\n<domstatus state='running' reason='booted' pid='36'>\n  <monitor path='/m' type='unix'/>\n" + job +
		"\n  <devices/>\n  <domain type='qemu' id='1'>\n    <metadata><job async='save'/></metadata>\n  </domain>\n</domstatus>\n"
}

// age sets when a file was changed to a time long past, each time another.
func (h *fakeHost) age(name string, days int) {
	h.t.Helper()
	at := time.Unix(1_600_000_000, 0).AddDate(0, 0, days)
	if err := os.Chtimes(filepath.Join(h.dir, name), at, at); err != nil {
		h.t.Fatal(err)
	}
}

func TestParseStatusFile(t *testing.T) {
	for text, want := range map[string]statusFile{
		statusXML("  <job type='none' async='none'/>"):                                          {pid: 36},
		statusXML("  <job type='query' async='migration out' phase='perform3' flags='0x0'>"):    {pid: 36, job: "migration out"},
		statusXML("  <job type='none' async='save' flags='0x0' asyncStarted='1795514480805'/>"): {pid: 36, job: "save"},
		statusXML("  <job type='none' async='migration in' phase='prepare'/>"):                  {pid: 36},
		statusXML("  <job type='none' async='save"):                                             {pid: 36},
		"<domstatus state='running' pid='x'><domain ":                                           {},
		"<domstatus state='running' pid='-7'><domain ":                                          {},
		"<domstatus state='running'><domain pid='8' ":                                           {},
		"<domstatus state='running' pid='8'>":                                                   {},
		"<domain >":                                                                             {},
		"":                                                                                      {},
	} {
		if got := parseStatusFile([]byte(text)); got != want {
			t.Errorf("%+v in %s, want %+v", got, text, want)
		}
	}
}

func FuzzParseStatusFile(f *testing.F) {
	f.Add([]byte(statusXML("  <job type='none' async='save' flags='0x0'/>")))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := parseStatusFile(data)
		if file.job != "" && len(data) < len("<job async=''<domain ")+len(file.job) || file.pid < 0 {
			t.Errorf("%+v in %q", file, data)
		}
	})
}

// TestTheProcessThatLibvirtStartedIsTheMachine: anybody may start one that claims
// to be it.
func TestTheProcessThatLibvirtStartedIsTheMachine(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	d.domains = []fakeDomain{domainNamed("web", 1)}
	_, uuid := uuidOf(1)
	h.process(20, 1, "qemu-kvm\x00-name\x00web\x00-uuid\x00"+uuid+"\x00", 500) // the older one
	h.process(36, 9, "qemu-kvm\x00-name\x00guest=web\x00-uuid\x00"+uuid+"\x00", 30)
	h.process(40, 9, "qemu-kvm\x00-name\x00impostor\x00-uuid\x00"+uuid+"\x00", 500)
	h.write("/run/libvirt/qemu/web.xml", statusXML(""))
	s := run(t, patient(h, now)).Collect(t.Context())
	var have []string
	for _, vm := range s.VMs {
		have = append(have, fmt.Sprintf("%s %s %d", vm.Name, vm.Source, vm.Process.PID))
	}
	if diff := cmp.Diff([]string{"impostor proc 40", "web " + system + " 36"}, have); diff != "" || s.Duplicates != 1 {
		t.Errorf("%d left out; %s", s.Duplicates, diff)
	}
}

func TestStatusFilesOfOthersAreNotRead(t *testing.T) {
	for _, theirs := range []target{sessionTarget(1000), {name: "pod:1", dir: "/pods", pod: "1", owner: -1}} {
		if dir := newNotes(nil, theirs).dir; dir != "" {
			t.Errorf("%s: %s is read", theirs.name, dir)
		}
	}
	for dir, ours := range map[string]target{"/run/libvirt/qemu": {dir: "/run/libvirt", owner: -1}, "/x/qemu": {socket: "/x/sock", owner: -1}} {
		if got := newNotes(nil, ours).dir; got != dir {
			t.Errorf("%s instead of %s", got, dir)
		}
	}
}

func TestAJobIsToldWhileItLasts(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 3)
	d.domains[1].job = []fakeParam{
		{"operation", int32(5)},
		{"time_elapsed", uint64(1500)},
		{"downtime", uint64(20)},
		{"setup_time", uint64(3)},
		{"data_total", uint64(9)},
		{"memory_total", uint64(100)},
		{"memory_processed", uint64(60)},
		{"memory_remaining", uint64(40)},
		{"memory_bps", uint64(7)},
		{"disk_total", uint64(8)},
		{"memory_dirty_rate", uint64(2)},
		{"memory_page_size", uint64(4096)},
		{"memory_iteration", uint64(4)},
		{"memory_postcopy_requests", uint64(0)},
		{"auto_converge_throttle", int32(30)},
		{"compression_cache", uint64(1)},
		{"frobnicated", uint64(1)},
	}
	const dir = "/run/libvirt/qemu"
	for _, dom := range d.domains {
		h.write(dir+"/"+dom.name+".xml", statusXML("  <job type='none' async='none'/>"))
		h.age(dir+"/"+dom.name+".xml", 0)
	}
	h.age(dir, 0)
	c := run(t, patient(h, now))
	job := func() Job {
		t.Helper()
		s := c.Collect(t.Context())
		for _, vm := range s.VMs {
			if vm.Name != "vm-01" && vm.Job != (Job{}) || !complete(vm, now.Now()) {
				t.Errorf("%+v", vm)
			}
		}
		return s.VMs[1].Job
	}
	if got := job(); got != (Job{}) {
		t.Errorf("before it begins: %+v", got)
	}
	h.write(dir+"/vm-01.xml", statusXML("  <job type='none' async='migration out' phase='perform3'/>"))
	h.age(dir+"/vm-01.xml", 1)
	if got := job(); got != (Job{}) || d.times("job of vm-01") > 0 {
		t.Errorf("files were read although the directory has not changed: %+v", got)
	}
	h.age(dir, 1)
	want := Job{
		Kind: "migration out", Elapsed: Some(1_500_000_000), Downtime: Some(20_000_000), Setup: Some(3_000_000),
		Memory: Progress{Total: Some(100), Processed: Some(60), Remaining: Some(40), Rate: Some(7)}, Disk: Progress{Total: Some(8)},
		MemoryDirtied: Some(8192), Iteration: Some(4), PostcopyRequests: Some(0), Throttle: Some(30),
	}
	for range 2 {
		if diff := cmp.Diff(want, job()); diff != "" {
			t.Error(diff)
		}
	}
	if n := d.times("job of vm-00"); n > 0 {
		t.Errorf("a machine without a job was asked about it %d times", n)
	}

	d.set(func(d *fakeDaemon) { d.held["vm-01"] = true })
	if vm := c.Collect(t.Context()).VMs[1]; vm.Job != (Job{Kind: "migration out"}) || vm.Monitor.Reason != Busy || d.times("job of vm-01") != 2 {
		t.Errorf("while its lock is held: %+v", vm)
	}
	d.set(func(d *fakeDaemon) { delete(d.held, "vm-01"); d.domains[1].job = nil })
	if got := job(); got != (Job{}) {
		t.Errorf("it has ended, and its file does not say so yet: %+v", got)
	}
	h.write(dir+"/vm-01.xml", statusXML("  <job type='none' async='none'/>"))
	h.age(dir+"/vm-01.xml", 2)
	h.age(dir, 2)
	if got := job(); got != (Job{}) {
		t.Errorf("after its end: %+v", got)
	}
}

// TestEventsTellOfMigrations where there are no status files that could be
// trusted, as in a pod.
func TestEventsTellOfMigrations(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 2)
	d.set(func(d *fakeDaemon) { d.domains[0].starts, d.domains[1].starts = 1, 1 }) // as events have it
	c := run(t, patient(h, now))
	job := func() string {
		t.Helper()
		s := c.Collect(t.Context())
		defer s.Release()
		if s.VMs[0].Job != (Job{}) {
			t.Errorf("the other's: %+v", s.VMs[0].Job)
		}
		return fmt.Sprint(s.VMs[1].Job.Kind, " ", s.VMs[1].Job.Memory.Remaining.V)
	}
	eventually(t, "events are heard", func() bool {
		s := c.Collect(t.Context())
		return len(s.VMs) == 2 && complete(s.VMs[1], now.Now()) && stateOf(s, system, Control).Up()
	})
	if got := job(); got != " 0" || d.times("job of vm-01") > 0 {
		t.Errorf("before it begins: %q", got)
	}
	moves := func(remaining uint64) {
		d.set(func(d *fakeDaemon) { d.domains[1].job = []fakeParam{{"memory_remaining", remaining}} })
		d.emit(procMigrationPass, d.domains[1].ref(), 1)
	}
	moves(40)
	eventually(t, "it is told", func() bool { return job() == "migration out 40" })
	moves(30)
	if got := job(); got != "migration out 30" {
		t.Errorf("in its next pass: %q", got)
	}
	d.set(func(d *fakeDaemon) { d.domains[1].job = []fakeParam{} }) // as libvirt says that there is none
	if got := job(); got != " 0" {
		t.Errorf("after its end: %q", got)
	}
	d.set(func(d *fakeDaemon) {
		d.domains[1].job = []fakeParam{{"operation", int32(2)}, {"memory_remaining", uint64(10)}}
	})
	d.emit(procMigrationPass, d.domains[1].ref(), 1)
	eventually(t, "a machine that is saved is not said to move", func() bool { return job() == "save 10" })
	d.set(func(d *fakeDaemon) { d.domains[1].job = []fakeParam{} })
	if got := job(); got != " 0" {
		t.Errorf("after it was saved: %q", got)
	}
	asked := d.times("job of vm-01")
	for range 3 {
		now.advance(time.Minute)
		if got := job(); got != " 0" || d.times("job of vm-01") != asked {
			t.Errorf("it is asked for a job that has ended: %q", got)
		}
	}
	moves(20)
	eventually(t, "another one", func() bool { return job() == "migration out 20" })
	d.set(func(d *fakeDaemon) { d.domains[1].job = nil }) // refused
	if got := job(); got != " 0" {
		t.Errorf("after its end: %q", got)
	}
}
