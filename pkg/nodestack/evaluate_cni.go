package nodestack

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

func evaluateCNI(facts Facts) []finding {
	return []finding{
		evaluateNetwork(facts.CNI),
		evaluatePlugins(facts.CNI),
		evaluateVMPlugins(facts.CNI),
		evaluateMultus(facts.CNI),
	}
}

// absent is what is not where one looked: definite when the runtime looks
// there too, undecided when that is only customary.
func (c CNIFacts) absent(check string, reason kvmcheck.Reason, message, remedy string) finding {
	if c.Certain {
		return kvmcheck.Lacking("cni", check, reason, message, remedy)
	}
	return kvmcheck.Undecided("cni", check, message+"; whether the container runtime looks there is not known")
}

func evaluateNetwork(cni CNIFacts) finding {
	const check = "network"
	network := cni.Network
	switch {
	case !network.Known:
		return kvmcheck.Undecided("cni", check, network.Err)
	case network.Value.File == "":
		return cni.absent(check, NoDefaultNetwork, cni.ConfDir+" has no .conf or .conflist: pods get no network",
			"install the cluster's network (Cilium, Calico, Flannel, …), or look at its pods on this node")
	default:
		return kvmcheck.Found("cni", check, describe(network.Value))
	}
}

// describe is a network in a line: "cbr0: bridge + portmap, MTU 1450 (FILE)".
func describe(network Network) string {
	var types []string
	mtu := ""
	for _, plugin := range network.Plugins {
		types = append(types, plugin.Type)
		if plugin.MTU > 0 && mtu == "" {
			mtu = fmt.Sprintf(", MTU %d", plugin.MTU)
		}
	}
	if len(network.Delegates) > 0 {
		types[len(types)-1] += " for " + network.Delegates[0].Type
	}
	if network.ClusterNetwork != "" {
		types[len(types)-1] += " for " + network.ClusterNetwork
	}
	return fmt.Sprintf("%s: %s%s (%s)", network.Name, strings.Join(types, " + "), mtu, network.File)
}

func evaluatePlugins(cni CNIFacts) finding {
	const check = "plugins"
	switch {
	case !cni.Network.Known:
		return kvmcheck.Undecided("cni", check, cni.Network.Err)
	case !cni.Binaries.Known:
		return kvmcheck.Undecided("cni", check, cni.Binaries.Err)
	}
	names := cni.Network.Value.programs()
	if len(names) == 0 {
		return kvmcheck.Undecided("cni", check, cni.ConfDir+" has no network, so that nobody can tell which programs it needs")
	}
	dirs := strings.Join(cni.BinDirs, ", ")
	var missing, plain []string
	for _, name := range names {
		program, installed := cni.Programs[name]
		switch {
		case !installed:
			missing = append(missing, name)
		case !program.Known:
			return kvmcheck.Undecided("cni", check, program.Err)
		case !program.Value.Executable:
			plain = append(plain, program.Source)
		}
	}
	switch {
	case len(missing) > 0:
		return cni.absent(check, CNIPluginMissing,
			fmt.Sprintf("%s calls %s, which %s does not have", cni.Network.Value.File, strings.Join(missing, ", "), dirs),
			"install the network's plugins in "+dirs+" (package containernetworking-plugins, or the network's DaemonSet)")
	case len(plain) > 0:
		return kvmcheck.Lacking("cni", check, CNIPluginNotExecutable, strings.Join(plain, ", ")+" cannot be executed",
			"chmod 755 "+strings.Join(plain, " "))
	default:
		return kvmcheck.Found("cni", check, cni.list(names))
	}
}

// list names plugins with the versions that are known.
func (c CNIFacts) list(names []string) string {
	var texts []string
	for _, name := range names {
		if version := c.Programs[name].Value.Version; version != "" {
			name += " " + version
		}
		texts = append(texts, name)
	}
	return strings.Join(texts, ", ")
}

func evaluateVMPlugins(cni CNIFacts) finding {
	const check = "vm-plugins"
	if !cni.Binaries.Known {
		return kvmcheck.Undecided("cni", check, cni.Binaries.Err)
	}
	var usable []string
	for _, name := range slices.Concat(vmPlugins, []string{"whereabouts"}) {
		program, installed := cni.Programs[name]
		if !installed {
			continue
		}
		if !program.Known {
			return kvmcheck.Undecided("cni", check, program.Err)
		}
		if program.Value.Executable {
			usable = append(usable, name)
		}
	}
	if len(usable) == 0 {
		return cni.absent(check, NoVMNetworkPlugin,
			fmt.Sprintf("%s has none of %s", strings.Join(cni.BinDirs, ", "), strings.Join(vmPlugins, ", ")),
			"only for VMs on further networks: install containernetworking-plugins, the macvtap or the SR-IOV plugin")
	}
	return kvmcheck.Found("cni", check, cni.list(usable))
}

// evaluateMultus asks whether the default network is Multus, and of which
// kind: the thin plugin does it all, the thick one asks its daemon.
func evaluateMultus(cni CNIFacts) finding {
	const check = "multus"
	switch {
	case !cni.Network.Known:
		return kvmcheck.Undecided("cni", check, cni.Network.Err)
	case !cni.Binaries.Known:
		return kvmcheck.Undecided("cni", check, cni.Binaries.Err)
	}
	network := cni.Network.Value
	for _, plugin := range network.Plugins {
		switch plugin.Type {
		case "multus":
			return kvmcheck.Found("cni", check, "thin plugin in "+network.File)
		case "multus-shim":
			return kvmcheck.Found("cni", check, "thick plugin in "+network.File)
		}
	}
	for _, name := range multusPlugins {
		if program, installed := cni.Programs[name]; installed && network.File != "" {
			return cni.absent(check, MultusNotDefault,
				fmt.Sprintf("%s is installed, but the first network in %s is %s", program.Source, cni.ConfDir, path.Base(network.File)),
				"its configuration must sort first (00-multus.conf): look at the Multus pod on this node, and for another network's file that sorts before it")
		}
	}
	return cni.absent(check, NoMultus, strings.Join(cni.BinDirs, ", ")+" has no multus, and the default network is not Multus",
		"only for VMs on more than one network: install Multus")
}
