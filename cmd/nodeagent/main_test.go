package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// asAgent makes the test binary behave as the agent.
const asAgent = "NODEAGENT_TEST_RUN_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		main()
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asAgent+"=1")
	return cmd
}

// runAgent runs the agent to its end.
func runAgent(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func host(name string) string {
	return filepath.Join(hosttest.Root(), "test", "hosts", name+".tar.gz")
}

func TestCheckExitStatus(t *testing.T) {
	empty := t.TempDir()
	for name, test := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"ready":             {[]string{"check", "--root", host("vm-kvm")}, 0, ""},
		"not ready":         {[]string{"check", "--root", host("vm-no-module")}, 1, ""},
		"undecided":         {[]string{"check", "--root", empty}, 2, ""},
		"no such root":      {[]string{"check", "--root", "/nonexistent"}, 2, "nodeagent: open root: stat /nonexistent: no such file or directory\n"},
		"not a recording":   {[]string{"check", "--root", "main_test.go"}, 2, "nodeagent: open recording main_test.go: read tar: archive/tar: invalid tar header\n"},
		"a wrong format":    {[]string{"check", "-o", "xml"}, 2, "nodeagent: --output \"xml\": want table, json or yaml\n"},
		"an unknown flag":   {[]string{"check", "--rot", "/"}, 2, "nodeagent: unknown flag: --rot\n"},
		"a stray argument":  {[]string{"check", "/"}, 2, "nodeagent: unknown command \"/\" for \"nodeagent check\"\n"},
		"a typing mistake":  {[]string{"chekc"}, 1, "nodeagent: unknown command \"chekc\" for \"nodeagent\"\n\nDid you mean this?\n\tcheck\n\n"},
		"a profile":         {[]string{"check", "--root", host("vm-kvm"), "--profile", "libvirt"}, 0, ""},
		"a profile's needs": {[]string{"check", "--root", host("vm-kvm"), "--profile", "sriov"}, 1, ""},
		"no such profile":   {[]string{"check", "--profile", "libvrit"}, 2, "nodeagent: profile \"libvrit\": unknown; did you mean libvirt?\n"},
		"a reason":          {[]string{"check", "--explain", "DeviceBusy"}, 0, ""},
		"no such reason":    {[]string{"check", "--explain", "DeviceBussy"}, 2, "nodeagent: --explain \"DeviceBussy\": unknown reason; did you mean DeviceBusy?\n"},
		"no such file":      {[]string{"check", "--config", "/nonexistent"}, 2, "nodeagent: read configuration: open /nonexistent: no such file or directory\n"},
		"too often":         {[]string{"check", "--watch", "--interval", "1us"}, 2, "nodeagent: --interval 1µs: want at least 100ms\n"},
		"capture, no file":  {[]string{"capture"}, 1, "nodeagent: accepts 1 arg(s), received 0\n"},
		"capture, no place": {[]string{"capture", "/nonexistent/x.tar.gz"}, 1, "nodeagent: write /nonexistent/x.tar.gz: no such file or directory\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, status := runAgent(t, test.args...)
			if status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			if diff := cmp.Diff(test.stderr, stderr); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckFormatsSayTheSame(t *testing.T) {
	asJSON, _, _ := runAgent(t, "check", "--root", host("vm-numa-sriov"), "-o", "json")
	var report kvmcheck.Report
	if err := json.Unmarshal([]byte(asJSON), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Findings) < 10 || report.Verdict != kvmcheck.Ready || !report.Facts.PCI.Devices.Known {
		t.Errorf("got %s", asJSON)
	}
	asYAML, _, _ := runAgent(t, "check", "--root", host("vm-numa-sriov"), "-o", "yaml")
	for _, want := range []string{"verdict: Ready", "check: hugepages-2Mi", "totalVFs: 7"} {
		if !strings.Contains(asYAML, want) {
			t.Errorf("YAML lacks %q", want)
		}
	}
	asTable, _, _ := runAgent(t, "check", "--root", host("vm-numa-sriov"))
	if strings.Contains(asTable, "\x1b") {
		t.Error("colour although the output is no terminal")
	}
}

func TestColourOnATerminalOnly(t *testing.T) {
	for name, test := range map[string]struct {
		env  string
		want bool
	}{"a terminal": {"TERM=xterm", true}, "NO_COLOR is set": {"NO_COLOR=1", false}, "a dumb terminal": {"TERM=dumb", false}} {
		t.Run(name, func(t *testing.T) {
			terminal, line := openTerminal(t)
			cmd := command("check", "--root", host("vm-no-module"))
			cmd.Env = append(cmd.Env, "NO_COLOR=", test.env)
			cmd.Stdout = line
			_ = cmd.Run() // not ready
			// The terminal holds what was written: it is read until the mark.
			if _, err := line.WriteString("END\n"); err != nil {
				t.Fatal(err)
			}
			var shown strings.Builder
			for text := bufio.NewReader(terminal); !strings.HasSuffix(shown.String(), "END\r\n"); {
				part, err := text.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				shown.WriteString(part)
			}
			if got := strings.Contains(shown.String(), "\x1b[31mNOT READY"); got != test.want {
				t.Errorf("coloured: %v\n%q", got, shown.String())
			}
		})
	}
}

// openTerminal makes a pseudo-terminal (man 4 pts), large enough for a report.
func openTerminal(t *testing.T) (terminal, line *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	if err := unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	return terminal, line
}

func TestCaptureThisHostAndReplayIt(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "host.tar.gz")
	if _, stderr, status := runAgent(t, "capture", "--mask", archive); status != 0 {
		t.Fatal(stderr)
	}
	live, _, _ := runAgent(t, "check")
	replayed, stderr, _ := runAgent(t, "check", "--root", archive)
	if diff := cmp.Diff(live, replayed); diff != "" {
		t.Errorf("live and replayed differ:\n%s%s", diff, stderr)
	}
	again, _, status := runAgent(t, "capture", "--root", archive, "-")
	if status != 0 || len(again) == 0 {
		t.Error("a recording cannot be recorded")
	}
}

// TestCheckIsCheap holds the promise of a check that may run every minute.
func TestCheckIsCheap(t *testing.T) {
	// A program that check starts would be found in PATH, and leave its mark.
	trap, mark := t.TempDir(), filepath.Join(t.TempDir(), "started")
	for _, name := range []string{"lspci", "dmidecode", "ethtool", "modprobe", "lsmod", "lsblk", "virsh", "sysctl", "uname", "ip", "numactl", "sh"} {
		script := "#!/bin/sh\necho " + name + " >> " + mark + "\n"
		if err := os.WriteFile(filepath.Join(trap, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin := hosttest.BuildAgent(t)
	least := time.Hour
	for range 10 {
		cmd := exec.Command(bin, "check", "-o", "json")
		cmd.Env = []string{"PATH=" + trap}
		_ = cmd.Run() // the status is about this host
		if cmd.ProcessState == nil {
			t.Fatal("check did not run")
		}
		least = min(least, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	if least > 100*time.Millisecond {
		t.Errorf("check took %v of CPU, want less than 100 ms", least)
	}
	if started, err := os.ReadFile(mark); err == nil {
		t.Errorf("check started %s", started)
	}
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 60<<20 {
		t.Errorf("the binary has %d bytes", info.Size())
	}
	t.Logf("check: %v of CPU; binary: %d bytes", least, info.Size())
}

func TestConfigPrintsWhatRunUses(t *testing.T) {
	defaults, _, status := runAgent(t, "config")
	if status != 0 || !strings.Contains(defaults, "listenAddress: :9477") {
		t.Fatal(defaults)
	}
	file := write(t, "nodeagent.yaml", defaults)
	again, stderr, _ := runAgent(t, "config", "--config", file)
	if diff := cmp.Diff(defaults, again); diff != "" {
		t.Errorf("%s%s", diff, stderr)
	}
	file = write(t, "own.yaml", "web:\n  listenAddress: :1\n")
	flagged, _, _ := runAgent(t, "config", "--config", file, "--web.listen-address", "127.0.0.1:2", "--libvirt-uri", "qemu:///system")
	for _, want := range []string{"listenAddress: 127.0.0.1:2", "- qemu:///system"} {
		if !strings.Contains(flagged, want) {
			t.Errorf("no %q in:\n%s", want, flagged)
		}
	}
}

func TestBadSettingsAreSaidInOneLine(t *testing.T) {
	typo := write(t, "typo.yaml", "web:\n  listenAddress: :0\ntelemetri: {}\n")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a typo":            {[]string{"--config", typo}, "nodeagent: " + typo + ": line 3: telemetri: unknown field; did you mean telemetry?\n"},
		"no file":           {[]string{"--config", "/nonexistent.yaml"}, "nodeagent: read configuration: open /nonexistent.yaml: no such file or directory\n"},
		"the port in use":   {[]string{"--web.listen-address", taken.Addr().String()}, "nodeagent: listen on " + taken.Addr().String() + ": the address is in use, perhaps by another nodeagent; choose one with --web.listen-address\n"},
		"no port":           {[]string{"--web.listen-address", "localhost"}, "nodeagent: flags: web.listenAddress: \"localhost\": want host:port or :port\n"},
		"a remote libvirt":  {[]string{"--libvirt-uri", "qemu+ssh://host/system"}, "nodeagent: flags: telemetry.libvirtURIs[0]: "},
		"an unknown option": {[]string{"--listen", ":1"}, "nodeagent: unknown flag: --listen\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, status := runAgent(t, append([]string{"run"}, test.args...)...)
			if status != 1 || !strings.HasPrefix(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit status %d, got %q, want %q", status, stderr, test.want)
			}
		})
	}
}

func TestPortWithoutPermission(t *testing.T) {
	low, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil || strings.TrimSpace(string(low)) == "0" {
		t.Skip("this machine has no privileged ports")
	}
	cmd := command("run", "--web.listen-address", "127.0.0.1:1")
	if os.Getuid() == 0 {
		asNobody(t, cmd)
	}
	stderr, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Fatalf("want an exit status, have %v", err)
	}
	if want := "nodeagent: listen on 127.0.0.1:1: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE\n"; string(stderr) != want {
		t.Errorf("got %q", stderr)
	}
}

// asNobody runs a command as an ordinary user, from a place that one may enter.
func asNobody(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nodeagent-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary, err := os.ReadFile(cmd.Path)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "agent"), binary, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Dir = filepath.Join(dir, "agent"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// daemonUnderTest is an agent that runs.
type daemonUnderTest struct {
	cmd  *exec.Cmd
	url  string
	logs chan map[string]any // every line it logs
}

// startDaemon starts `nodeagent run` and returns when it has said where it serves.
func startDaemon(t *testing.T, args ...string) *daemonUnderTest {
	t.Helper()
	return follow(t, command(append([]string{"run"}, args...)...))
}

// follow starts an agent and reads its log up to where it serves.
func follow(t *testing.T, cmd *exec.Cmd) *daemonUnderTest {
	t.Helper()
	d := &daemonUnderTest{cmd: cmd, logs: make(chan map[string]any, 1000)}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill(); _ = d.cmd.Wait() })
	go func() {
		defer close(d.logs)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			line := map[string]any{"msg": lines.Text()}
			_ = json.Unmarshal(lines.Bytes(), &line) // what is no JSON stays text
			d.logs <- line
		}
	}()
	d.url = fmt.Sprintf("http://%v", d.wait(t, "nodeagent started")["address"])
	return d
}

// wait reads the log up to a message.
func (d *daemonUnderTest) wait(t *testing.T, msg string) map[string]any {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line, open := <-d.logs:
			if !open {
				t.Fatalf("the agent ended before it logged %q", msg)
			}
			t.Log(line)
			if line["msg"] == msg {
				return line
			}
		case <-timeout:
			t.Fatalf("no log line %q", msg)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// eventually polls until want holds.
func eventually(t *testing.T, what string, want func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !want() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestRunServesAndDrains(t *testing.T) {
	d := startDaemon(t, "--web.listen-address", "127.0.0.1:0")
	eventually(t, "all tasks are ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })
	for path, want := range map[string]string{
		"/healthz": "ok\n",
		"/metrics": `virtnode_task_up{task="readiness"} 1`,
		"/report":  `"findings"`,
		"/":        "<h1>nodeagent</h1>",
	} {
		if status, body := get(t, d.url+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.wait(t, "nodeagent stops")
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// TestRunIsSmall measures the agent as it is shipped, without VMs.
func TestRunIsSmall(t *testing.T) {
	d := follow(t, exec.Command(hosttest.BuildAgent(t), "run", "--web.listen-address", "127.0.0.1:0"))
	eventually(t, "all tasks are ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })
	for range 5 {
		get(t, d.url+"/metrics")
		get(t, d.url+"/report")
	}
	// How much of the program a page of it brings along is the page cache's
	// affair, until that is given back.
	eventually(t, "at most 40 MiB are resident", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		var resident int
		for line := range strings.Lines(string(status)) {
			_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &resident) // most lines are others
		}
		return resident > 0 && resident <= 40<<10
	})
}

func TestReload(t *testing.T) {
	file := write(t, "nodeagent.yaml", "web: {listenAddress: '127.0.0.1:0'}\nlog: {level: info}\n")
	d := startDaemon(t, "--config", file)
	metric := func(url, want string) func() bool {
		return func() bool { _, body := get(t, url+"/metrics"); return strings.Contains(body, want+"\n") }
	}
	hangup := func() {
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })

	rewrite(t, file, "web: {listenAddress: '127.0.0.1:0'}\nlog: {level: loud}\n")
	hangup()
	refused := d.wait(t, "configuration refused; the old one goes on")
	if want := file + `: line 2: log.level: "loud": want one of [debug info warn error]`; refused["error"] != want {
		t.Errorf("got %v, want %s", refused["error"], want)
	}
	eventually(t, "the metric says so", metric(d.url, "virtnode_config_last_reload_successful 0"))
	eventually(t, "still ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })

	// A changed file needs no signal; a new address is served before the old one goes.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	next := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, file, "web: {listenAddress: '"+next+"'}\ntelemetry: {libvirtURIs: ['qemu+unix:///system?socket=/nonexistent']}\n")
	d.wait(t, "configuration reloaded")
	eventually(t, "the new address and source are used", metric("http://"+next, "virtnode_config_last_reload_successful 1"))
	eventually(t, "the new source is read", func() bool {
		_, body := get(t, "http://"+next+"/metrics")
		return strings.Contains(body, `virtnode_source_up{source="qemu+unix:///system?socket=/nonexistent",class="monitor"} 0`)
	})
}

// TestAReloadLeavesNoPageWithoutMachines scrapes while one collector follows
// another.
func TestAReloadLeavesNoPageWithoutMachines(t *testing.T) {
	content := func(budget int) string {
		return fmt.Sprintf("telemetry: {libvirtURIs: ['qemu+unix:///system?socket=/nonexistent'], budget: %dms}\n", budget)
	}
	file := write(t, "nodeagent.yaml", content(2000))
	d := startDaemon(t, "--config", file, "--web.listen-address", "127.0.0.1:0")
	const kernel = `virtnode_source_up{source="proc",class="kernel"} 1`
	eventually(t, "the kernel is read", func() bool { _, body := get(t, d.url+"/metrics"); return strings.Contains(body, kernel+"\n") })
	var done atomic.Bool
	var scrapes sync.WaitGroup
	for range 2 {
		scrapes.Go(func() {
			for n := 0; !done.Load(); n++ {
				if _, body := get(t, d.url+"/metrics"); !strings.Contains(body, kernel+"\n") {
					t.Errorf("scrape %d has no machines", n)
				}
			}
		})
	}
	for budget := range 5 {
		rewrite(t, file, content(2001+budget))
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		d.wait(t, "configuration reloaded")
	}
	done.Store(true)
	scrapes.Wait()
}

// TestWhatACollectorIsMadeOf: it is made anew, and so forgets, for nothing else.
func TestWhatACollectorIsMadeOf(t *testing.T) {
	base := config.Default().Telemetry
	for name, test := range map[string]struct {
		change func(*config.Telemetry)
		same   bool
	}{
		"nothing":         {func(*config.Telemetry) {}, true},
		"limits":          {func(c *config.Telemetry) { c.MaxSeries, c.MaxSeriesPerVM = 7, 3 }, true},
		"a program":       {func(c *config.Telemetry) { c.BPF = !c.BPF }, true},
		"a budget":        {func(c *config.Telemetry) { c.Budget++ }, false},
		"the kubelet":     {func(c *config.Telemetry) { c.Kubelet = "/elsewhere" }, false},
		"a group":         {func(c *config.Telemetry) { c.Groups = map[string]bool{"thread_detail": true} }, false},
		"KVM's counts":    {func(c *config.Telemetry) { c.KVMStats = []string{"exits"} }, false},
		"another libvirt": {func(c *config.Telemetry) { c.LibvirtURIs = []string{"qemu:///session"} }, false},
	} {
		changed := base
		test.change(&changed)
		if same := reflect.DeepEqual(collectorOptions(base), collectorOptions(changed)); same != test.same {
			t.Errorf("%s: the same is %t", name, same)
		}
	}
}

func TestSIGHUPWithoutAFileHarmsNobody(t *testing.T) {
	d := startDaemon(t, "--web.listen-address", "127.0.0.1:0")
	eventually(t, "ready", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.wait(t, "configuration reloaded")
	eventually(t, "ready again", func() bool { status, _ := get(t, d.url+"/readyz"); return status == http.StatusOK })
}

func TestHelpReadsWell(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"check", "--help"}, {"run", "--help"}, {"capture", "--help"}, {"config", "--help"}, {"version"}, {"completion", "bash"}} {
		stdout, stderr, status := runAgent(t, args...)
		if status != 0 || stdout == "" || stderr != "" {
			t.Errorf("%v: exit status %d, %q", args, status, stderr)
		}
		for line := range strings.Lines(stdout) {
			if len(line) > 160 && args[0] != "completion" {
				t.Errorf("%v: a line of %d columns: %s", args, len(line), line)
			}
		}
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	full := filepath.Join(t.TempDir(), name)
	rewrite(t, full, content)
	return full
}

func rewrite(t *testing.T, full, content string) {
	t.Helper()
	if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
