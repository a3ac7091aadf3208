package qemu

import "testing"

func TestProcessesAreDescribedAsPeopleKnowThem(t *testing.T) {
	h := newHost(t)
	group := "0::/kubepods.slice/kubepods-pod0c7f1b9e_5f0e_4c57_8a6e_1d2f3a4b5c6d.slice/cri-containerd-x.scope\n"
	h.write("/proc/10/comm", "qemu-system-x86\n")
	h.write("/proc/10/cmdline", "/usr/bin/qemu-system-x86_64\x00-name\x00guest=vms_web,debug-threads=on\x00")
	h.write("/proc/10/cgroup", group)
	h.write("/proc/11/comm", "dpdk-app\n")
	h.write("/proc/11/cgroup", group)
	h.write("/proc/12/comm", "qemu-kvm\n")
	h.write("/proc/12/cmdline", "qemu-kvm\x00-name\x00db\x00")
	h.write("/proc/12/cgroup", "0::/machine.slice/machine-qemu.scope\n")
	h.write("/proc/13/cgroup", "0::/kubepods/pod11111111-5f0e-4c57-8a6e-1d2f3a4b5c6d/x\n")
	h.write("/var/log/pods/vms_virt-launcher-web-abc_0c7f1b9e-5f0e-4c57-8a6e-1d2f3a4b5c6d/x", "")
	for pid, want := range map[int]string{
		10: "VM vms_web, process 10 (qemu-system-x86), of pod vms/virt-launcher-web-abc",
		11: "process 11 (dpdk-app), of pod vms/virt-launcher-web-abc",
		12: "VM db, process 12 (qemu-kvm)",
		13: "process 13, of pod 11111111-5f0e-4c57-8a6e-1d2f3a4b5c6d",
		14: "process 14",
	} {
		if got := Describe(h.root, pid); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
