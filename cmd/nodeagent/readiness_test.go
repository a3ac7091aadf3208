package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
	"github.com/virtnode/nodeagent/test/hosttest"
)

var update = flag.Bool("update", false, "write docs/checks.md")

func TestReferencesAreUpToDate(t *testing.T) {
	for name, text := range map[string]string{"checks.md": catalogue().Reference(), "labels.md": node.Reference()} {
		t.Run(name, func(t *testing.T) { upToDate(t, name, text) })
	}
}

func upToDate(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join(hosttest.Root(), "docs", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is out of date; run go test ./cmd/nodeagent -run TestReference -update (-file +now):\n%s", file, diff)
	}
}

// TestBuiltInProfilesNameWhatThereIs holds that no pattern is a typing mistake.
func TestBuiltInProfilesNameWhatThereIs(t *testing.T) {
	for _, profile := range kvmcheck.Profiles() {
		for pattern := range profile.Levels {
			if !slices.ContainsFunc(known().Checks, func(check string) bool {
				ok, err := path.Match(pattern, check)
				return ok && err == nil
			}) {
				t.Errorf("profile %s: %s is no check", profile.Name, pattern)
			}
		}
		if profile.Purpose() == (kvmcheck.Profile{Name: "own"}).Purpose() {
			t.Errorf("profile %s has no purpose", profile.Name)
		}
	}
}

// ownReadiness has a profile and rules of which one holds on the machine
// vm-kvm, one does not, and one asks what that machine does not know.
const ownReadiness = `readiness:
  profile: pages
  profiles:
    pages:
      base: kubevirt
      required: [memory/hugepages-2Mi, rule/*]
      optional: [rule/nic]
      skipped: [sriov/*, devices/tun]
  rules:
  - name: pages
    expression: facts.memory.hugepages.value.exists(p, p.sizeKiB == 2048 && p.free.value == 64)
    reason: TooFewPages
    message: not all pages are free
    remedy: move VMs away
    level: required
  - name: nic
    expression: 'facts.sriov.pfs.value.exists(pf, pf.totalVFs > 0)'
    reason: NoNIC
    message: no NIC has VFs
    remedy: plug one in
    level: required
  - name: odd
    expression: facts.sriov.pfs.value[0].numVFs > 1
    reason: FewVFs
    message: the first NIC has no VFs
    remedy: echo 2 > sriov_numvfs
    level: recommended
`

func TestOwnProfilesAndRules(t *testing.T) {
	file := write(t, "own.yaml", ownReadiness)
	findings := func(args ...string) (kvmcheck.Report, map[string]string) {
		stdout, stderr, _ := runAgent(t, append([]string{"check", "--root", host("vm-kvm"), "--config", file, "-o", "json"}, args...)...)
		var report kvmcheck.Report
		if err := json.Unmarshal([]byte(stdout), &report); err != nil {
			t.Fatalf("%v\n%s", err, stderr)
		}
		said := make(map[string]string)
		for _, f := range report.Findings {
			said[f.Key()] = strings.TrimSpace(fmt.Sprint(f.Status, " ", f.Level, " ", f.Reason))
		}
		return report, said
	}
	report, got := findings()
	for key, want := range map[string]string{
		"memory/hugepages-2Mi": "Ready required", "sriov/capability": "", "devices/tun": "", "kvm/device": "Ready required",
		"rule/pages": "Ready required", "rule/nic": "NotReady optional NoNIC", "rule/odd": "Unknown required RuleFailed",
	} {
		if got[key] != want {
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
	if report.Profile != "pages" || report.Verdict != kvmcheck.Unknown {
		t.Errorf("profile %s says %s", report.Profile, report.Verdict)
	}
	if report, got = findings("--profile", "libvirt"); report.Profile != "libvirt" || report.Verdict != kvmcheck.NotReady || got["rule/nic"] != "NotReady required NoNIC" {
		t.Errorf("profile %s says %s, %v", report.Profile, report.Verdict, got)
	}

	stdout, stderr, status := runAgent(t, "check", "--config", file, "--explain", "NoNIC")
	if status != 0 || !strings.Contains(stdout, "plug one in") || !strings.Contains(stdout, "pf.totalVFs > 0") {
		t.Errorf("%s%s", stdout, stderr)
	}
	bad := write(t, "bad.yaml", strings.Replace(ownReadiness, "facts.sriov.pfs", "facts.sriow.pfs", 1))
	_, stderr, status = runAgent(t, "check", "--config", bad)
	if want := "nodeagent: " + bad + ": line 17: readiness.rules[1].expression: line 1, column 6: undefined field 'sriow'; there are cgroup, "; status != 2 || !strings.HasPrefix(stderr, want) {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

// TestRunReportsByTheConfiguredProfile changes the profile of a running agent.
func TestRunReportsByTheConfiguredProfile(t *testing.T) {
	file := write(t, "own.yaml", ownReadiness+"web: {listenAddress: '127.0.0.1:0'}\n")
	d := startDaemon(t, "--config", file)
	var report kvmcheck.Report
	reports := func(profile string) func() bool {
		return func() bool {
			status, body := get(t, d.url+"/report")
			if status != http.StatusOK {
				return false
			}
			report = kvmcheck.Report{}
			if err := json.Unmarshal([]byte(body), &report); err != nil {
				t.Fatal(err)
			}
			return report.Profile == profile
		}
	}
	has := func(key string) bool {
		return slices.ContainsFunc(report.Findings, func(f kvmcheck.Finding) bool { return f.Key() == key })
	}
	eventually(t, "the report", reports("pages"))
	if !has("rule/nic") || has("sriov/capability") {
		t.Errorf("the report lacks a rule, or has what is skipped: %+v", report.Findings)
	}
	rewrite(t, file, "readiness: {profile: sriov}\nweb: {listenAddress: '127.0.0.1:0'}\n")
	d.wait(t, "configuration reloaded")
	eventually(t, "the report by the new profile", reports("sriov"))
	if has("rule/nic") || !has("sriov/capability") {
		t.Errorf("the report has rules that are gone, or lacks a check: %+v", report.Findings)
	}
}

func TestExplain(t *testing.T) {
	stdout, _, _ := runAgent(t, "check", "--explain", "IOMMUDisabled")
	for _, want := range []string{"does not use it", "iommu/kernel", "/sys/kernel/iommu_groups", "Intel; RHEL, Fedora: grubby", "update-grub"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	stdout, _, _ = runAgent(t, "check", "--explain", "IOMMUDisabled", "-o", "json")
	var explanation kvmcheck.Explanation
	if err := json.Unmarshal([]byte(stdout), &explanation); err != nil {
		t.Fatal(err)
	}
	if explanation.Reason != kvmcheck.IOMMUDisabled || len(explanation.Checks) == 0 || len(explanation.Fixes) < 2 {
		t.Errorf("got %+v", explanation)
	}
	stdout, _, _ = runAgent(t, "__complete", "check", "--explain", "")
	if !strings.Contains(stdout, "GuestTimeout\t") {
		t.Errorf("reasons do not complete: %s", stdout)
	}
	if stdout, _, _ = runAgent(t, "__complete", "check", "--profile", ""); !strings.HasPrefix(stdout, "kubevirt\nlibvirt\n") {
		t.Errorf("profiles do not complete: %s", stdout)
	}
}

// TestWatchPrintsWhatChanges watches a tree in which a file appears.
func TestWatchPrintsWhatChanges(t *testing.T) {
	root := t.TempDir()
	cmd := command("check", "--watch", "--interval", "100ms", "--root", root)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(stdout)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("ended before %q: %v", want, lines.Err())
	}
	until("UNDECIDED whether this host can run VMs")
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		next := filepath.Join(root, "next")
		err := os.WriteFile(next, []byte(text), 0o600)
		if err == nil {
			err = os.Rename(next, filepath.Join(root, "proc/cpuinfo"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("processor\t: 0\nflags\t\t: fpu vmx\n\n")
	until("Z cpu/virtualization Ready: Intel VT-x (vmx) on all 1 CPUs")
	write("processor\t: 0\nflags\t\t: fpu\n\n")
	until("Z cpu/virtualization NotReady CPUFlagMissing: /proc/cpuinfo: ")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		t.Errorf("a line without a change: %s", lines.Text())
	}
	_ = cmd.Wait() // the status says what the last report did
	if status := cmd.ProcessState.ExitCode(); status != exitNotReady {
		t.Errorf("exit status %d", status)
	}
}

// rounds gives a report per call, and ends the watch after the last.
func rounds(end context.CancelFunc, statuses ...kvmcheck.Status) func(context.Context) nodestack.Report {
	return func(context.Context) nodestack.Report {
		if len(statuses) == 1 {
			end()
		}
		status := statuses[0]
		statuses = statuses[1:]
		return nodestack.Report{Report: kvmcheck.Report{Time: hosttest.Time(), Verdict: status, Findings: []kvmcheck.Finding{
			{Area: "kvm", Check: "device", Status: status, Level: kvmcheck.Required, Message: "a\x1bmessage"},
		}}}
	}
}

func TestWatchRedrawsATerminal(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	var out bytes.Buffer
	w := watcher{out: &out, output: "table", terminal: true, interval: time.Millisecond}
	last, err := w.watch(ctx, rounds(end, kvmcheck.Ready, kvmcheck.Ready, kvmcheck.NotReady))
	if err != nil || last.Verdict != kvmcheck.Ready {
		t.Errorf("%v, last verdict %s: the round in which the watch ends does not count", err, last.Verdict)
	}
	screens := strings.Split(out.String(), "\x1b[H")
	if len(screens) != 3 || !strings.Contains(screens[2], "READY to run VMs") || !strings.Contains(screens[2], "every 1ms; Ctrl-C ends") {
		t.Errorf("%d screens: %q", len(screens), out.String())
	}
}

func TestWatchAppendsWholeReportsAsData(t *testing.T) {
	for output, want := range map[string]int{"json": 2, "yaml": 2} {
		ctx, end := context.WithCancel(t.Context())
		var out bytes.Buffer
		w := watcher{out: &out, output: output, interval: time.Millisecond}
		if _, err := w.watch(ctx, rounds(end, kvmcheck.Ready, kvmcheck.Ready, kvmcheck.NotReady, kvmcheck.NotReady, kvmcheck.NotReady)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "agent"); got != want {
			t.Errorf("%s: %d reports, want %d\n%s", output, got, want, out.String())
		}
	}
}

func TestChangesAreWhatIsNoLongerAsItWas(t *testing.T) {
	finding := func(check string, status kvmcheck.Status) kvmcheck.Finding {
		return kvmcheck.Finding{Area: "memory", Check: check, Status: status}
	}
	before := []kvmcheck.Finding{finding("a", kvmcheck.Ready), finding("b", kvmcheck.Ready), finding("c", kvmcheck.Ready)}
	after := []kvmcheck.Finding{finding("a", kvmcheck.Ready), finding("b", kvmcheck.NotReady), finding("d", kvmcheck.Ready)}
	var keys []string
	for _, changed := range changes(before, after) {
		keys = append(keys, changed.Key()+" "+changed.Status.String())
	}
	if want := []string{"memory/b NotReady", "memory/d Ready", "memory/c Unknown"}; !slices.Equal(keys, want) {
		t.Errorf("got %v, want %v", keys, want)
	}
}

func TestLabelsOfOnesOwnAreRefused(t *testing.T) {
	const good = "facts.cpu.info.value.vendor"
	for name, test := range map[string]struct{ name, expression, want string }{
		"a field that is none":     {"a", "facts.cpu.info.value.cores", "line 4: kubernetes.labels[0].expression: line 1, column 21: undefined field 'cores'"},
		"a misspelt field":         {"a", "facts.cpu.info.value.vendr", "line 4: kubernetes.labels[0].expression: line 1, column 21: undefined field 'vendr'; there are cpus, "},
		"a text and a number":      {"a", "facts.cpu.info.value.cpus + 'x'", "line 4: kubernetes.labels[0].expression: line 1, column 27: found no matching overload for '_+_' applied to '(int, string)'"},
		"a list":                   {"a", "[1]", "line 4: kubernetes.labels[0].expression: it gives list(int): want string or int or bool"},
		"half an expression":       {"a", "facts.cpu.", "line 4: kubernetes.labels[0].expression: line 1, column 11: Syntax error"},
		"nothing":                  {"a", "", "line 4: kubernetes.labels[0].expression: it is empty"},
		"a function that is none":  {"a", "os.getenv('HOME')", "line 4: kubernetes.labels[0].expression: line 1, column 1: undeclared reference to 'os'"},
		"an expression of a novel": {"a", good + " + '" + strings.Repeat("x", 4096) + "'", "line 4: kubernetes.labels[0].expression: "},
		"another prefix":           {"kubevirt.io/schedulable", good, "line 3: kubernetes.labels[0].name: \"kubevirt.io/schedulable\": want small letters, digits and dashes, at most 56"},
		"the prefix itself":        {"virtnode.io/custom.a", good, "line 3: kubernetes.labels[0].name: "},
		"a name of the agent's":    {"network.stor0", good, "line 3: kubernetes.labels[0].name: "},
		"a capital":                {"Size", good, "line 3: kubernetes.labels[0].name: "},
		"a dash at the end":        {"size-", good, "line 3: kubernetes.labels[0].name: "},
		"a long name":              {strings.Repeat("n", 57), good, "line 3: kubernetes.labels[0].name: "},
		"no name":                  {"", good, "line 3: kubernetes.labels[0].name: "},
		"the same name twice":      {"b", good, "line 5: kubernetes.labels[1].name: a second label b"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, "nodeagent.yaml", "kubernetes:\n  labels:\n  - name: '"+test.name+"'\n    expression: \""+test.expression+"\"\n  - {name: b, expression: "+good+"}\n")
			for _, command := range []string{"config", "run"} {
				_, stderr, status := runAgent(t, command, "--config", file)
				if status != 1 || !strings.HasPrefix(stderr, "nodeagent: "+file+": "+test.want) || strings.Count(stderr, "\n") != 1 {
					t.Errorf("%s: exit status %d: %s", command, status, stderr)
				}
			}
		})
	}
	var many strings.Builder
	many.WriteString("kubernetes:\n  labels:\n")
	for i := range 21 {
		fmt.Fprintf(&many, "  - {name: a%d, expression: %s}\n", i, good)
	}
	if _, stderr, status := runAgent(t, "config", "--config", write(t, "nodeagent.yaml", many.String())); status != 1 || !strings.Contains(stderr, "kubernetes.labels: 21 labels: want at most 20") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
}

func TestLabelsSayWhatIsPublished(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := "kubernetes:\n  labels:\n  - name: size\n    expression: 'facts.cpu.info.value.cpus > 64 ? \"large\" : \"small\"'\n  - name: odd\n    expression: facts.time.tscKHz.value\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := runAgent(t, "labels", "--root", host("vm-no-module"), "--config", file)
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	for _, want := range []string{
		"virtnode.io/kvm                            false\n", "virtnode.io/custom.size                    small\n", "virtnode.io/custom.odd                     ?\n",
		"virtnode.io/vfio                           -\n", "condition VirtualizationReady: False, ModuleNotLoaded: kvm/module: /sys/module/kvm does not exist",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("lacks %q:\n%s", want, stdout)
		}
	}
	stdout, _, _ = runAgent(t, "labels", "--root", host("vm-kvm"), "-o", "json")
	var told labelsOutput
	if err := json.Unmarshal([]byte(stdout), &told); err != nil || len(told.Labels) < 20 || told.Condition.Status != "True" {
		t.Errorf("%v: %s", err, stdout)
	}
}
