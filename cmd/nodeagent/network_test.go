package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/test/hosttest"
)

const onePolicy = `apiVersion: virtnode.io/v1alpha1
kind: HostNetwork
metadata: {name: storage}
spec:
  interfaces:
  - name: storage
    match: {name: nic0}
    mtu: 9000
    hostShim: {name: shim0, addresses: [10.7.0.2/32], routes: [10.7.0.0/24]}
`

const onePlan = `  1  add altname storage to nic0
  2  set MTU of nic0 from 1500 to 9000
  3  set nic0 up
  4  create macvlan shim0 on nic0, MTU 9000, address 10.7.0.2/32, route 10.7.0.0/24
plan a36d003a8dd7
`

// inSpace runs the agent in a network namespace, where it sees no process but
// its own: those of the machine may be out of its reach.
func inSpace(t *testing.T, space *hosttest.Space, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	space.Inside(func() {
		cmd := command(args...)
		cmd.Args = append([]string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--", cmd.Path}, args...)
		cmd.Path = lookPath(t, "unshare")
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // its status is looked at
		stdout, stderr, status = out.String(), errs.String(), cmd.ProcessState.ExitCode()
	})
	return stdout, stderr, status
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNetworkCommands walks a host through plan, apply, net and restore.
func TestNetworkCommands(t *testing.T) {
	space := hosttest.NewSpace(t)
	space.IP("link add nic0 type veth peer name nic0p")
	space.IP("link set nic0p up")
	space.IP("link set nic0 up")
	space.IP("link set nic0 down")
	before := space.Dump()
	file, state := write(t, "storage.yaml", onePolicy), filepath.Join(t.TempDir(), "state")
	with := func(args ...string) []string { return append(args, "--state-dir", state) }
	expect := func(want string, status int, args ...string) string {
		t.Helper()
		stdout, stderr, got := inSpace(t, space, with(args...)...)
		if !strings.HasPrefix(stdout, want) || got != status {
			t.Fatalf("%v: exit status %d\n%s%s\nwant %d\n%s", args, got, stdout, stderr, status, want)
		}
		return stderr
	}
	expect(onePlan, 2, "plan", "-f", file)
	expect(onePlan, 2, "apply", "-f", file, "--dry-run")
	stderr := expect("", 1, "apply", "-f", file, "--plan", "000000000000")
	if !strings.Contains(stderr, "guard plan: plan 000000000000: the host or the policy has changed since: what is to be done now is plan a36d003a8dd7") {
		t.Errorf("another plan: %s", stderr)
	}
	if after := space.Dump(); after != before {
		t.Fatalf("before\n%s\nafter\n%s", before, after)
	}
	stderr = expect(onePlan+"applied: 4 steps (transaction ", 0, "apply", "-f", file, "--plan", "a36d003a8dd7")
	auditLines(t, stderr)
	expect("converged: nothing to change\n", 0, "plan", "-f", file)
	expect("converged: nothing to change\nconverged: nothing to change\n", 0, "apply", "-f", file)
	stdout, stderr, status := inSpace(t, space, with("net", "-f", file, "-o", "json")...)
	var inventory struct {
		Links []struct {
			Name string
			MTU  int
		}
		Ours  []struct{ Kind string }
		Drift struct{ Steps []any }
	}
	if err := json.Unmarshal([]byte(stdout), &inventory); err != nil || status != 0 || len(inventory.Links) != 4 || len(inventory.Ours) != 4 || len(inventory.Drift.Steps) != 0 {
		t.Errorf("net: %v, exit status %d\n%s%s", err, status, stdout, stderr)
	}
	space.IP("link set nic0 mtu 8000")
	expect("  1  set MTU of nic0 from 8000 to 9000\n  2  set MTU of shim0 from 8000 to 9000\n", 2, "plan", "-f", file)
	space.IP("link set nic0 mtu 9000")
	expect("applied: 4 steps (transaction ", 0, "restore")
	if after := space.Dump(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	expect("converged: nothing to change\n", 0, "restore")
}

// auditLines looks at the one line per write.
func auditLines(t *testing.T, stderr string) {
	t.Helper()
	var steps []string
	for line := range strings.Lines(stderr) {
		var entry struct{ Msg, Who, Policies, Plan, Transaction, Step, Before, After string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		if entry.Msg != "network write" || !strings.HasPrefix(entry.Who, "nodeagent apply, by ") || entry.Policies != "storage" ||
			entry.Plan != "a36d003a8dd7" || entry.Transaction == "" || entry.Before == "" || entry.After == "" {
			t.Errorf("got %s", line)
		}
		steps = append(steps, entry.Step)
	}
	want := []string{
		"add altname storage to nic0", "set MTU of nic0 from 1500 to 9000", "set nic0 up",
		"create macvlan shim0 on nic0, MTU 9000, address 10.7.0.2/32, route 10.7.0.0/24",
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Error(diff)
	}
}

func TestBadPolicyFilesAreSaidInOneLine(t *testing.T) {
	typo := write(t, "typo.yaml", strings.Replace(onePolicy, "mtu", "mut", 1))
	same := write(t, "same.yaml", onePolicy)
	again := write(t, "again.yaml", onePolicy)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a typo":          {[]string{"-f", typo}, typo + ": line 8: spec.interfaces[0].mut: unknown field; did you mean mtu?"},
		"no file":         {[]string{"-f", "/nonexistent"}, "read policies: open /nonexistent: no such file or directory"},
		"no flag":         {nil, `required flag(s) "file" not set`},
		"one name twice":  {[]string{"-f", same, "-f", again}, again + ": policy storage is in " + same + " already"},
		"a wrong format":  {[]string{"-f", same, "-o", "yaml"}, `--output "yaml": want text or json`},
		"a wrong command": {[]string{"now"}, `unknown command "now" for "nodeagent plan"`},
	} {
		_, stderr, status := runAgent(t, append([]string{"plan"}, test.args...)...)
		if status != 1 || stderr != "nodeagent: "+test.want+"\n" {
			t.Errorf("%s: exit status %d, got %q, want %q", name, status, stderr, test.want)
		}
	}
}
