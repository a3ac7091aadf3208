package vm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/multus"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

const pluginPolicy = `apiVersion: virtnode.io/v1alpha1
kind: HostNetwork
metadata: {name: storage}
spec:
  disruption: Allow
  interfaces:
  - name: storage
    match: {pciAddress: "0000:01:00.0"}
    sriov:
      numVFs: 7
      pools:
      - {name: fast, vfs: "0-2", driver: vfio-pci}
      - {name: tenant, vfs: "4-6"}
  attachments:
  - {name: tenant, namespace: vms, type: sriov, pool: tenant, vlan: 5}
`

// rendered returns what the agent renders, as the objects that it prints.
func rendered(t *testing.T, machine *vm.Machine, what string) []multus.Object {
	t.Helper()
	var list struct{ Items []multus.Object }
	if err := json.Unmarshal([]byte(machine.Sh(t, "./nodeagent render "+what+" -f policy.yaml -o json")), &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func share(t *testing.T, machine *vm.Machine, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(machine.Share, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSRIOVPluginsTakeWhatIsRendered lets the agent make VFs, and gives what it
// renders to the SR-IOV device plugin and to the SR-IOV CNI plugin.
func TestSRIOVPluginsTakeWhatIsRendered(t *testing.T) {
	machine := vm.Start(t, vm.SRIOV())
	hosttest.Need(t, hosttest.VM, hosttest.BuildTools(machine.Share, "test/plugins"))
	if err := hosttest.Build(filepath.Join(machine.Share, "nodeagent"), "./cmd/nodeagent"); err != nil {
		t.Fatal(err)
	}
	share(t, machine, "policy.yaml", pluginPolicy)
	machine.Sh(t, "/usr/sbin/ip link set eth0 up; ./nodeagent apply -f policy.yaml --state-dir /tmp/state")
	t.Run("device plugin", func(t *testing.T) { runDevicePlugin(t, machine) })
	t.Run("CNI plugin", func(t *testing.T) { runCNI(t, machine) })
}

// runDevicePlugin waits until the plugin serves the pools, with their VFs.
func runDevicePlugin(t *testing.T, machine *vm.Machine) {
	share(t, machine, "config.json", rendered(t, machine, "device-plugin")[0].Data["config.json"])
	share(t, machine, "pci.ids", "# no names\n")
	machine.Sh(t, "mkdir -p /usr/share/misc /var/lib/kubelet/plugins_registry /var/lib/kubelet/device-plugins && cp pci.ids /usr/share/misc/pci.ids")
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	var log bytes.Buffer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = machine.Run(ctx, vm.Command{Argv: []string{"./sriovdp", "-logtostderr", "-v=10", "-config-file=config.json"}, Stdout: &log, Stderr: &log}) // until it is killed
	}()
	out := machine.Sh(t, "for i in $(seq 300); do ls /var/lib/kubelet/plugins_registry | grep tenant && exit 0; sleep 0.1; done; ls -la /var/lib/kubelet/*")
	cancel()
	<-ended
	if !strings.Contains(out, "tenant") {
		t.Errorf("no server: %s", out)
	}
	for _, pool := range []string{"fast", "tenant"} {
		if want := "New resource server is created for " + pool + " ResourcePool"; !strings.Contains(log.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	t.Logf("%s", &log)
}

// runCNI calls the plugin as Multus does, with a VF of the pool, and looks at
// what the pod has.
func runCNI(t *testing.T, machine *vm.Machine) {
	definition := rendered(t, machine, "attachments")[0]
	address := strings.TrimSpace(machine.Sh(t, "basename $(readlink /sys/class/net/eth0/device/virtfn4)"))
	config := make(map[string]any)
	if err := json.Unmarshal([]byte(definition.Spec.Config), &config); err != nil {
		t.Fatal(err)
	}
	config["deviceID"] = address // as Multus adds it, from what the device plugin gave
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	share(t, machine, "cni.json", string(text))
	call := func(command string) string {
		return machine.Sh(t, "CNI_COMMAND="+command+` CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=net1 CNI_PATH=/share ./sriov < cni.json`)
	}
	machine.Sh(t, "mkdir -p /run/netns && /usr/sbin/ip netns add pod")
	t.Log(call("ADD"))
	if link := machine.Sh(t, "/usr/sbin/ip -n pod link show net1"); !strings.Contains(link, "net1") {
		t.Errorf("got %s", link)
	}
	if pf := machine.Sh(t, "/usr/sbin/ip link show eth0 | grep 'vf 4 '"); !strings.Contains(pf, "vlan 5") {
		t.Errorf("got %s", pf)
	}
	// The agent sees that the VF is in use, and leaves it alone.
	share(t, machine, "policy.yaml", strings.Replace(pluginPolicy, `vfs: "4-6"`, `vfs: "4-6", vlan: 9`, 1))
	plan := machine.Sh(t, "./nodeagent plan -f policy.yaml --state-dir /tmp/state || true")
	if !strings.Contains(plan, "REFUSED  guard in-use: VF 4 ("+address) {
		t.Errorf("got %s", plan)
	}
	call("DEL")
	if out := machine.Sh(t, "/usr/sbin/ip -n pod link"); strings.Contains(out, "net1") {
		t.Errorf("it is still there: %s", out)
	}
}
