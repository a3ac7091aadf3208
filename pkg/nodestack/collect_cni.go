package nodestack

import (
	"path"
	"slices"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Where CNI files are when the runtime does not say otherwise.
const (
	cniConfDir = "/etc/cni/net.d"
	cniBinDir  = "/opt/cni/bin"
)

// vmPlugins connect VMs to networks; multusPlugins let pods have several.
var (
	vmPlugins     = []string{"bridge", "cnv-bridge", "macvlan", "macvtap", "ipvlan", "sriov", "ovs", "host-device"}
	ipamPlugins   = []string{"whereabouts", "host-local", "static", "dhcp"}
	multusPlugins = []string{"multus", "multus-shim"}
)

// collectCNI reads the configuration of the default network, and looks for the
// programs that it and VMs' networks need.
func collectCNI(host Host, runtimes []Runtime) CNIFacts {
	facts := CNIFacts{ConfDir: cniConfDir, BinDirs: []string{cniBinDir}, Programs: make(map[string]kvmcheck.Reading[Program])}
	runtime := Facts{Runtimes: runtimes}.runtime()
	if !runtime.Status.Known {
		// Elsewhere than where the runtime looks, anything may lie.
		source, why := runtime.Socket, runtime.silence()
		facts.Files = kvmcheck.Reading[[]string]{Source: source, Err: why}
		facts.Network = kvmcheck.Reading[Network]{Source: source, Err: why}
		facts.Binaries = kvmcheck.Reading[[]string]{Source: source, Err: why}
		return facts
	}
	settings := runtime.Status.Value.Settings
	if settings.CNIConfDir != "" && len(settings.CNIBinDirs) > 0 {
		facts.ConfDir, facts.BinDirs, facts.Certain = settings.CNIConfDir, settings.CNIBinDirs, true
	}
	facts.Files = collectCNIFiles(host.Root, facts.ConfDir)
	facts.Network = collectNetwork(host.Root, facts.ConfDir, facts.Files)
	asked := slices.Concat(vmPlugins, ipamPlugins, multusPlugins, facts.Network.Value.programs())
	facts.Binaries = kvmcheck.Known(facts.BinDirs[0], []string{})
	for _, dir := range facts.BinDirs {
		names, err := host.Root.ReadDir(dir)
		if err != nil && !hostfs.Absent(err) {
			facts.Binaries = kvmcheck.NotKnown[[]string](dir, err)
			return facts
		}
		for _, name := range names {
			if _, earlier := facts.Programs[name]; earlier {
				continue // the first directory wins
			}
			facts.Binaries.Value = append(facts.Binaries.Value, name)
			if slices.Contains(asked, name) {
				facts.Programs[name] = host.Live.Program(path.Join(dir, name))
			}
		}
	}
	return facts
}

// collectCNIFiles lists the network configurations, in the order in which
// runtimes look at them.
func collectCNIFiles(root *hostfs.Root, dir string) kvmcheck.Reading[[]string] {
	names, err := root.ReadDir(dir)
	if hostfs.Absent(err) {
		return kvmcheck.Known(dir, []string{})
	}
	if err != nil {
		return kvmcheck.NotKnown[[]string](dir, err)
	}
	files := []string{}
	for _, name := range names {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, path.Ext(name)) {
			files = append(files, name)
		}
	}
	return kvmcheck.Known(dir, files)
}

// collectNetwork reads the first configuration, which is the default network.
func collectNetwork(root *hostfs.Root, dir string, files kvmcheck.Reading[[]string]) kvmcheck.Reading[Network] {
	if !files.Known {
		return kvmcheck.Reading[Network]{Source: files.Source, Err: files.Err}
	}
	if len(files.Value) == 0 {
		return kvmcheck.Known(dir, Network{Plugins: []Plugin{}})
	}
	file := path.Join(dir, files.Value[0])
	data, err := root.ReadFile(file)
	if err != nil {
		return kvmcheck.NotKnown[Network](file, err)
	}
	network, err := parseNetwork(data)
	network.File = file
	return kvmcheck.ReadingOf(file, network, err)
}

// programs lists the programs that a network calls, each once.
func (n Network) programs() []string {
	var names []string
	for _, plugin := range slices.Concat(n.Plugins, n.Delegates) {
		for _, name := range []string{plugin.Type, plugin.IPAM} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
