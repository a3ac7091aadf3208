package libvirt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/qemu"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// until collects until a machine is as it should be.
func until(t *testing.T, c *qemu.Collector, what, uuid string, met func(qemu.VM) bool) {
	t.Helper()
	eventually(t, what, func() error {
		s := c.Collect(t.Context())
		defer s.Release()
		if vm := vmOf(s, uuid); !met(vm) {
			return fmt.Errorf("%s/%s is %s, agent %v: %+v; control %+v", vm.Namespace, vm.Name, vm.State, vm.Agent, vm.Definition, health(s, qemu.Control))
		}
		return nil
	})
}

// agentXML is a channel for a guest agent, which nobody in the guest opens.
const agentXML = `<channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>`

// novaXML is what OpenStack notes of an instance.
const novaXML = `<instance><name>web "1"</name><flavor name="m1.tiny"/><owner><project uuid="p">admin</project></owner></instance>`

// TestIdentityFollowsEvents: what libvirt announces is known without a scrape
// that asks for it, and what it does not change stays.
func TestIdentityFollowsEvents(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host, libvirt.Domain{Name: "instance-1", NICs: []libvirt.NIC{{}}, Disks: []libvirt.Disk{{}, {Format: "raw"}}, IOThreads: 1, CDROM: true})
	uuid := uuids(t, host, "instance-1")["instance-1"]
	virsh := func(args ...string) {
		t.Helper()
		_, err := host.Virsh(t.Context(), args...)
		must(t, err)
	}
	c := collector(t, host, qemu.Options{})
	until(t, c, "the machine's devices", uuid, func(vm qemu.VM) bool {
		d := vm.Definition
		return vm.Kind == qemu.KindLibvirt && vm.Name == "instance-1" && d != nil && strings.HasPrefix(d.Machine, "pc-i440fx-") && d.IOThreads == 1 &&
			len(d.Disks) == 3 && d.Disks[0].Target == "vda" && d.Disks[0].IOThread == 1 && d.Disks[2].Kind == "cdrom" &&
			len(d.Interfaces) == 1 && d.Interfaces[0].Target == vm.Interfaces[0].Name && strings.HasPrefix(d.Interfaces[0].MAC, "52:54:00:") && !vm.Agent.Set
	})

	virsh("metadata", "instance-1", "--uri", "http://openstack.org/xmlns/libvirt/nova/1.1", "--key", "nova", "--set", novaXML, "--live")
	until(t, c, "the name that OpenStack gives it", uuid, func(vm qemu.VM) bool {
		return vm.Kind == qemu.KindOpenStack && vm.Namespace == "admin" && vm.Name == `web "1"` && vm.Domain == "instance-1" && vm.Definition.Flavor == "m1.tiny" && vm.Process != nil
	})

	disk := filepath.Join(host.Dir(), "more.raw")
	must(t, os.WriteFile(disk, make([]byte, 1<<20), 0o666))
	virsh("attach-disk", "instance-1", disk, "vdx", "--live")
	until(t, c, "the attached disk", uuid, func(vm qemu.VM) bool {
		return slices.ContainsFunc(vm.Definition.Disks, func(d qemu.DiskDevice) bool { return d.Target == "vdx" && d.Source == disk })
	})

	channel := filepath.Join(host.Dir(), "agent.xml")
	must(t, os.WriteFile(channel, []byte(agentXML), 0o644))
	virsh("attach-device", "instance-1", channel, "--config")
	virsh("destroy", "instance-1")
	until(t, c, "the machine that is off", uuid, func(vm qemu.VM) bool { return vm.State == qemu.StateShutoff && vm.Process == nil && !vm.Agent.Set })
	virsh("start", "instance-1")
	until(t, c, "the machine that has started again", uuid, func(vm qemu.VM) bool {
		return vm.State == qemu.StateRunning && vm.Agent == qemu.Some(0) && vm.Kind == qemu.KindLibvirt && len(vm.Definition.Disks) == 3
	})

	must(t, host.KillDaemon(t.Context()))
	must(t, host.StartDaemon(t.Context()))
	virsh("metadata", "instance-1", "--uri", "http://openstack.org/xmlns/libvirt/nova/1.1", "--key", "nova", "--set", novaXML, "--live")
	until(t, c, "what a new daemon says", uuid, func(vm qemu.VM) bool { return vm.Kind == qemu.KindOpenStack })

	virsh("destroy", "instance-1")
	virsh("undefine", "instance-1")
	until(t, c, "the machine that is gone", uuid, func(vm qemu.VM) bool { return vm.UUID == "" })
}

// TestIdentityOfOthersWhileOneHangs: the XML of a machine whose job somebody
// holds does not come for half a minute.
func TestIdentityOfOthersWhileOneHangs(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	names := []string{"a", "b", "hung", "z"}
	for _, name := range names {
		start(t, host, libvirt.Domain{Name: name})
	}
	id := uuids(t, host, names...)
	must(t, host.Hang("hung"))
	t.Cleanup(func() { _ = host.Resume("hung") })
	c := collector(t, host, qemu.Options{})
	for _, name := range []string{"a", "b", "z"} {
		until(t, c, "the devices of "+name, id[name], func(vm qemu.VM) bool { return vm.Definition != nil && len(vm.Definition.Disks) == 1 })
	}
}
