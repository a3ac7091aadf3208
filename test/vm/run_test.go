package vm_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

// guestAgent is `nodeagent run` in a guest.
type guestAgent struct{ machine *vm.Machine }

func (a guestAgent) get(t *testing.T, path string) string {
	t.Helper()
	return a.machine.Sh(t, "wget -q -O - http://127.0.0.1:9477"+path)
}

// until asks for the metrics until they hold every line.
func (a guestAgent) until(t *testing.T, within time.Duration, lines ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		page := a.get(t, "/metrics")
		missing := ""
		for _, line := range lines {
			if !strings.Contains(page, "\n"+line+"\n") {
				missing = line
			}
		}
		if missing == "" {
			return page
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s\n%s", within, missing, readinessLines(page))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// readinessLines leaves out what is not about readiness.
func readinessLines(page string) string {
	var out strings.Builder
	for line := range strings.Lines(page) {
		for _, prefix := range []string{"virtnode_ready", "virtnode_readiness", "virtnode_check"} {
			if strings.HasPrefix(line, prefix) {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

func (a guestAgent) finding(t *testing.T, key string) kvmcheck.Finding {
	t.Helper()
	var report kvmcheck.Report
	if err := json.Unmarshal([]byte(a.get(t, "/report")), &report); err != nil {
		t.Fatal(err)
	}
	for _, finding := range report.Findings {
		if finding.Key() == key {
			return finding
		}
	}
	t.Fatalf("no finding %s", key)
	return kvmcheck.Finding{}
}

// startRun runs the agent in the guest with an interval that never comes.
func startRun(t *testing.T, machine *vm.Machine) guestAgent {
	t.Helper()
	if err := hosttest.Build(filepath.Join(machine.Share, "nodeagent"), "./cmd/nodeagent"); err != nil {
		t.Fatal(err)
	}
	machine.Sh(t, `ip link set lo up
		printf 'web: {listenAddress: "127.0.0.1:9477"}\nreadiness: {interval: 24h}\n' > agent.yaml`)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var log strings.Builder
	go func() {
		defer close(ended)
		_, _ = machine.Run(ctx, vm.Command{Argv: []string{"./nodeagent", "run", "--config", "agent.yaml"}, Stderr: &log}) // until it is killed
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		t.Logf("the agent's log:\n%s", log.String())
	})
	agent := guestAgent{machine}
	machine.Sh(t, "for i in $(seq 300); do wget -q -O /dev/null http://127.0.0.1:9477/readyz && exit 0; sleep 0.1; done; exit 1")
	return agent
}

// TestRunFollowsTheHost changes a guest under a running agent. Only events can
// tell it so soon: its interval is a day.
func TestRunFollowsTheHost(t *testing.T) {
	machine := vm.Start(t, vm.KVM())
	machine.Sh(t, "modprobe tun; modprobe vhost_net; echo 8 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
	t.Run("KVM is unloaded and loaded", func(t *testing.T) { followModule(t, machine, startRun(t, machine)) })
	t.Run("VMs come and go", func(t *testing.T) { ignoreVMs(t, machine, startRun(t, machine)) })
}

// soon is for a guest that has no KVM of its own.
const soon = 30 * time.Second

func followModule(t *testing.T, machine *vm.Machine, agent guestAgent) {
	t.Helper()
	const (
		ready     = `virtnode_check_status{area="kvm",check="device",level="required",status="Ready"} 1`
		notLoaded = `virtnode_check_status{area="kvm",check="module",level="required",status="NotReady",reason="ModuleNotLoaded"} 1`
		missing   = `virtnode_check_status{area="kvm",check="device",level="required",status="NotReady",reason="DeviceMissing"} 1`
		durable   = `virtnode_check_ready{area="kvm",check="device",level="required"} `
		turned    = `virtnode_check_transitions_total{area="kvm",check="device"} `
	)
	agent.until(t, soon, "virtnode_ready 1", "virtnode_readiness_events 1", ready, durable+"1", turned+"0")

	unload(t, machine)
	agent.until(t, soon, notLoaded, missing, "virtnode_ready 1", durable+"1", turned+"0")
	if finding := agent.finding(t, "kvm/module"); finding.Reason != kvmcheck.ModuleNotLoaded {
		t.Errorf("the report says %+v", finding)
	}
	machine.Sh(t, "modprobe kvm_amd")
	agent.until(t, soon, ready, "virtnode_ready 1", durable+"1", turned+"0")

	unload(t, machine)
	agent.until(t, soon, missing, durable+"1")
	agent.until(t, 3*time.Minute, missing, "virtnode_ready 0", durable+"0", turned+"1")
	machine.Sh(t, "modprobe kvm_amd")
	page := agent.until(t, soon, ready, "virtnode_ready 1", durable+"1", turned+"2")
	if !strings.Contains(page, `virtnode_readiness_probes_total{trigger="interval"} 0`) {
		t.Errorf("the interval has passed:\n%s", readinessLines(page))
	}
	t.Log(readinessLines(page))
}

// unload takes KVM away, once nobody uses it: loading it has the agent prove it,
// perhaps more than once.
func unload(t *testing.T, machine *vm.Machine) {
	t.Helper()
	machine.Sh(t, "for i in $(seq 100); do modprobe -r kvm_amd && exit 0; sleep 0.1; done; exit 1")
}

// ignoreVMs holds that the agent does not answer its own events: KVM announces
// every VM, that of the proof included.
func ignoreVMs(t *testing.T, machine *vm.Machine, agent guestAgent) {
	t.Helper()
	const (
		pages = `virtnode_check_status{area="memory",check="hugepages-2Mi",level="optional",status=`
		one   = `virtnode_readiness_probes_total{trigger="uevent"} 1`
	)
	agent.until(t, soon, "virtnode_ready 1", pages+`"Ready"} 1`)
	machine.Sh(t, "for i in 1 2 3 4 5; do ./nodeagent check > /dev/null; done; modprobe dummy")
	agent.until(t, soon, one)
	machine.Sh(t, "echo 0 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
	agent.until(t, soon, pages+`"NotReady",reason="NoHugepages"} 1`, `virtnode_readiness_probes_total{trigger="hugepages"} 1`, one)
}

// TestRunFindsTheVFsOfAVM lets a process that is called as QEMU hold a VF as
// QEMU does.
func TestRunFindsTheVFsOfAVM(t *testing.T) {
	machine := vm.Start(t, vm.SRIOV())
	if err := hosttest.Build(filepath.Join(machine.Share, "qemu-system-x86_64"), "./test/vm/handover"); err != nil {
		t.Fatal(err)
	}
	machine.Sh(t, "/usr/sbin/ip link set eth0 up; echo 7 > /sys/class/net/eth0/device/sriov_numvfs")
	address := strings.TrimSpace(machine.Sh(t, "basename $(readlink /sys/class/net/eth0/device/virtfn3)"))
	machine.Sh(t, bindVFIO(address)+`
		./qemu-system-x86_64 $(basename $(readlink /sys/bus/pci/devices/`+address+`/iommu_group)) -name guest=web > held 2>&1 &
		for i in $(seq 300); do grep -q 'handed over' held && exit 0; sleep 0.1; done; cat held; exit 1`)
	// Another VF has traffic, so that a driver that counts would have to tell.
	machine.Sh(t, `vf=$(ls /sys/class/net/eth0/device/virtfn0/net)
		/usr/sbin/ip addr add 10.9.9.1/24 dev $vf
		/usr/sbin/ip link set $vf up
		for i in $(seq 60); do
			ping -c 1 -W 1 10.9.9.2 > /dev/null || true
			test $(cat /sys/class/net/$vf/statistics/tx_packets) -gt 0 && exit 0
		done; exit 1`)
	agent := startRun(t, machine)
	page := agent.until(t, soon, `virtnode_vm_vf_info{namespace="",name="web",uuid="",address="`+address+`",pf="eth0",vf="3"} 1`)
	// The driver of this card counts nothing, which is not zero.
	if strings.Contains(page, "virtnode_vm_vf_receive") || strings.Contains(page, "virtnode_vm_vf_transmit") {
		t.Errorf("igb is said to count:\n%s", page)
	}
}
