package qemu

import (
	"cmp"
	"slices"
)

// identityKey is what makes a machine's series its own.
type identityKey struct{ namespace, name, uuid string }

func (vm *VM) key() identityKey { return identityKey{vm.Namespace, vm.Name, vm.UUID} }

// merge makes one entry per machine of what the classes told: daemons in
// order of trust, each with its light and monitor reading (nil when there is
// none to serve), and the processes. It returns how many entries it dropped
// because another machine has the same identity.
func merge(daemons [][2]*reading, processes *reading) ([]VM, int) {
	var vms []VM
	for _, classes := range daemons {
		vms = append(vms, mergeDaemon(classes[0], classes[1])...)
	}
	kept, duplicates := unique(vms)
	if processes != nil {
		kept = addProcesses(kept, processes.vms)
	}
	slices.SortStableFunc(kept, func(a, b VM) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
	kept, more := unique(kept)
	return kept, duplicates + more
}

// mergeDaemon puts the two classes of one daemon together. The light class
// says which machines there are, if it says anything.
func mergeDaemon(light, monitor *reading) []VM {
	switch {
	case light == nil && monitor == nil:
		return nil
	case light == nil:
		return slices.Clone(monitor.vms)
	case monitor == nil:
		return slices.Clone(light.vms)
	}
	vms := slices.Clone(light.vms)
	place := make(map[string]int, len(vms))
	for i := range vms {
		place[vms[i].UUID] = i
	}
	for _, from := range monitor.vms {
		i, found := place[from.UUID]
		if !found {
			continue
		}
		to := &vms[i]
		to.CPU, to.VCPUs, to.Current, to.Maximum = from.CPU, from.VCPUs, from.Current, from.Maximum
		to.Memory, to.Blocks = from.Memory, from.Blocks
	}
	return vms
}

// addProcesses gives each machine its process: the one with its UUID, or
// with its name when the process has no UUID. What is left is a machine of
// which no daemon knows.
func addProcesses(vms, processes []VM) []VM {
	byUUID := make(map[string]int, len(vms))
	byName := make(map[string]int, len(vms))
	for i := range vms {
		byUUID[vms[i].UUID] = i
		if vms[i].State != StateShutoff {
			byName[vms[i].Name] = i
		}
	}
	for _, process := range processes {
		i, found := byUUID[process.UUID]
		if process.UUID == "" {
			i, found = byName[process.Name]
		}
		if found && vms[i].Process == nil {
			vms[i].join(&process)
		} else {
			vms = append(vms, process)
		}
	}
	return vms
}

// unique keeps the first machine of each identity.
func unique(vms []VM) ([]VM, int) {
	seen := make(map[identityKey]bool, len(vms))
	kept := slices.DeleteFunc(slices.Clone(vms), func(vm VM) bool {
		key := vm.key()
		again := seen[key]
		seen[key] = true
		return again
	})
	return kept, len(vms) - len(kept)
}
