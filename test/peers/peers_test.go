package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

// find looks for a program also where the PATH of an ordinary user does not.
func find(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s (test/install.sh libvirt installs it)", name)
}

// needPeers returns the paths of the peers' programs.
func needPeers(t *testing.T) map[string]string {
	t.Helper()
	programs := make(map[string]string)
	for _, name := range []string{"virt-host-validate", "kvm-ok", "rdmsr"} {
		path, err := find(name)
		hosttest.Need(t, hosttest.Libvirt, err)
		programs[name] = path
	}
	return programs
}

// output runs a program whose exit status only repeats what it says.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out)
}

func parseReport(t *testing.T, text string) kvmcheck.Report {
	t.Helper()
	var report kvmcheck.Report
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("check -o json: %v\n%s", err, text)
	}
	return report
}

// beside prints both, and fails the test where ours is less.
func beside(t *testing.T, answers []answer, report kvmcheck.Report) {
	t.Helper()
	if len(answers) < 12 {
		t.Fatalf("only %d answers of peers were understood: %v", len(answers), answers)
	}
	table, less := compare(answers, report.Findings)
	t.Logf("\n%s", table)
	for _, line := range less {
		t.Error(line)
	}
}

func TestBesidePeersOnThisMachine(t *testing.T) {
	programs := needPeers(t)
	answers := append(parseValidate(output(t, programs["virt-host-validate"], "qemu")), parseKVMOK(output(t, programs["kvm-ok"]))...)
	beside(t, answers, parseReport(t, output(t, hosttest.BuildAgent(t), "check", "-o", "json")))
}

// shape is a state of the node VM.
type shape struct{ name, make string }

// looksIntel lets the peers look for what Intel's CPUs have: TCG has no VMX,
// and the IOMMU that goes with the VM's NIC is Intel's.
const looksIntel = `sed 's/\bsvm\b/vmx/' /proc/cpuinfo > /tmp/cpuinfo; mount --bind /tmp/cpuinfo /proc/cpuinfo; `

func TestBesidePeersInTheNodeVM(t *testing.T) {
	programs := needPeers(t)
	machine := vm.Start(t, vm.SRIOV())
	install(t, machine, programs)
	for _, shape := range []shape{
		{"all is well", "modprobe tun; modprobe vhost_net"},
		{"no network devices", "modprobe -r vhost_net; rm -f /dev/vhost-net /dev/net/tun"},
		{"nodes without drivers", "modprobe -r tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200; mknod /dev/vhost-net c 10 238; modprobe -r kvm_amd; rm -f /dev/kvm; mknod /dev/kvm c 10 232"},
		{"no /dev/kvm", "rm -f /dev/kvm"},
		{"an Intel machine with its IOMMU on", looksIntel},
	} {
		t.Run(shape.name, func(t *testing.T) { besideIn(t, machine, shape) })
	}
}

func TestBesidePeersWithTheIOMMUOff(t *testing.T) {
	programs := needPeers(t)
	profile := vm.SRIOV()
	profile.Append = append(profile.Append, "intel_iommu=off", "cgroup_disable=memory")
	machine := vm.Start(t, profile)
	install(t, machine, programs)
	besideIn(t, machine, shape{"an Intel machine with its IOMMU off", looksIntel})
}

// besideIn asks the peers and us in the VM.
func besideIn(t *testing.T, machine *vm.Machine, shape shape) {
	t.Helper()
	machine.Sh(t, shape.make)
	var said [3]string
	for i, script := range []string{"peers/virt-host-validate qemu", "peers/kvm-ok", "./nodeagent check -o json"} {
		result, err := machine.Exec(t.Context(), "PATH=/share/peers:$PATH; "+script)
		if err != nil {
			t.Fatal(err)
		}
		said[i] = result.Stdout
		if result.Stdout == "" {
			t.Fatalf("%s said nothing: %s", script, result.Stderr)
		}
	}
	answers := append(parseValidate(said[0]), parseKVMOK(said[1])...)
	beside(t, answers, parseReport(t, said[2]))
}

var library = regexp.MustCompile(`(/\S+) \(0x[0-9a-f]+\)`)

// install puts our agent and the peers into the machine's share: programs
// with their libraries and their dynamic linker, behind a script that joins them.
func install(t *testing.T, machine *vm.Machine, programs map[string]string) {
	t.Helper()
	if err := hosttest.Build(filepath.Join(machine.Share, "nodeagent"), "./cmd/nodeagent"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(machine.Share, "peers")
	if err := os.MkdirAll(filepath.Join(dir, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range programs {
		libraries := library.FindAllStringSubmatch(output(t, "ldd", path), -1)
		if len(libraries) == 0 { // a script
			put(path, name)
			continue
		}
		linker := ""
		for _, match := range libraries {
			base := filepath.Base(match[1])
			put(match[1], filepath.Join("lib", base))
			if strings.HasPrefix(base, "ld-linux") {
				linker = base
			}
		}
		put(path, filepath.Join("lib", name))
		script := fmt.Sprintf("#!/bin/sh\nexec /share/peers/lib/%s --library-path /share/peers/lib /share/peers/lib/%s \"$@\"\n", linker, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
