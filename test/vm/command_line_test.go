package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommandLine(t *testing.T) {
	p := Profile{
		Name: "small", Memory: "512M", CPUs: 1, CPU: "max",
		QEMU:   []string{"-device", "igb"},
		Append: []string{"intel_iommu=off"},
	}
	got := commandLine(p, files{kernel: "/c/vmlinux", initrd: "/c/initrd.img", share: "/tmp/a,b", console: "/tmp/console"})
	want := `
-name nodeagent-small
-nodefaults
-no-user-config
-display none
-no-reboot
-machine q35
-accel tcg,thread=multi
-cpu max
-smp 1
-m 512M
-kernel /c/vmlinux
-initrd /c/initrd.img
-append console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable lpj=4000000 mitigations=off nokaslr cryptomgr.notests audit=0 apparmor=0 intel_iommu=off
-chardev file,id=console,path=/tmp/console
-serial chardev:console
-device virtio-serial-pci
-chardev socket,id=agent,fd=3
-device virtserialport,chardev=agent,name=agent
-virtfs local,mount_tag=share,security_model=none,multidevs=remap,path=/tmp/a,,b
-device igb
`
	var lines strings.Builder
	for _, arg := range got {
		if strings.HasPrefix(arg, "-") {
			lines.WriteString("\n" + arg)
		} else {
			lines.WriteString(" " + arg)
		}
	}
	if diff := cmp.Diff(want, lines.String()+"\n"); diff != "" {
		t.Error(diff)
	}
}

func TestProfilesAreCopies(t *testing.T) {
	changed := SRIOV()
	changed.QEMU[0], changed.Append[0], changed.Modules[0] = "", "", ""
	if diff := cmp.Diff(SRIOV(), Profiles()[1]); diff != "" {
		t.Error(diff)
	}
}

// A profile's modules are in the image, or modprobe would not find them.
func TestProfilesUseTheImagesModules(t *testing.T) {
	underscored := func(module string) string { return strings.ReplaceAll(module, "-", "_") }
	var inImage []string
	for _, module := range imageModules() {
		inImage = append(inImage, underscored(module))
	}
	for _, p := range Profiles() {
		for _, module := range p.Modules {
			if !slices.Contains(inImage, underscored(module)) {
				t.Errorf("%s: no module %s", p.Name, module)
			}
		}
	}
}
