package kvmcheck

import (
	"context"
	"path"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const modulesDir = "/sys/module"

// collectKVM reads /sys/module/kvm* and proves KVM.
func collectKVM(ctx context.Context, host Host) KVMFacts {
	facts := KVMFacts{
		Modules: collectModules(host.Root),
		Nested:  make(map[string]Reading[bool]),
		Proof:   host.Devices.ProveKVM(ctx),
	}
	for _, module := range facts.Modules.Value {
		source := path.Join(modulesDir, module, "parameters/nested")
		nested, err := host.Root.ReadBool(source)
		if !hostfs.Absent(err) {
			facts.Nested[module] = reading(source, nested, err)
		}
	}
	return facts
}

// collectModules lists KVM's modules, loaded or built in.
func collectModules(root *hostfs.Root) Reading[[]string] {
	names, err := root.ReadDir(modulesDir)
	if err != nil {
		return unknown[[]string](modulesDir, err)
	}
	modules := []string{}
	for _, name := range names {
		if name == "kvm" || strings.HasPrefix(name, "kvm_") {
			modules = append(modules, name)
		}
	}
	return known(modulesDir+"/kvm*", modules)
}
