package nodestack

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

const (
	kubeletDir = "/var/lib/kubelet"
	// mountinfo lists the mounts as the first process sees them, and so the
	// container runtime.
	mountinfo = "/proc/1/mountinfo"
)

// kubeletNames are the processes that are a kubelet, or hold one (k3s, MicroK8s).
var kubeletNames = []string{"kubelet", "kubelite", "k3s-server", "k3s-agent"}

// collectKubelet finds the kubelet by its process and looks into its root
// directory.
func collectKubelet(root *hostfs.Root, daemons kvmcheck.Reading[[]Daemon], mounts kvmcheck.Reading[[]Mount]) KubeletFacts {
	flags := map[string]string{}
	if i := slices.IndexFunc(daemons.Value, func(d Daemon) bool { return slices.Contains(kubeletNames, d.Name) }); i >= 0 {
		flags = daemons.Value[i].Flags
	}
	dir := cmp.Or(flags["root-dir"], kubeletDir)
	facts := KubeletFacts{
		Running:      daemon(daemons, kubeletNames...),
		RootDir:      dir,
		Leftover:     collectExists(root, dir),
		Config:       collectKubeletConfig(root, cmp.Or(flags["config"], path.Join(dir, "config.yaml"))),
		Mount:        mountOf(mounts, followLink(root, dir)),
		Registration: collectExists(root, path.Join(dir, "device-plugins/kubelet.sock")),
		PodResources: collectExists(root, path.Join(dir, "pod-resources/kubelet.sock")),
		Devices:      collectDevices(root, path.Join(dir, "device-plugins/kubelet_internal_checkpoint")),
	}
	if driver := flags["cgroup-driver"]; driver != "" && facts.Config.Known {
		facts.Config.Value.CgroupDriver = driver
	}
	facts.Endpoint = socketPath(cmp.Or(flags["container-runtime-endpoint"], facts.Config.Value.ContainerRuntimeEndpoint))
	return facts
}

// socketPath turns an endpoint, "unix:///run/x.sock" or a bare path, into the
// path of a socket; empty when it is none.
func socketPath(endpoint string) string {
	socket := strings.TrimPrefix(endpoint, "unix://")
	if !path.IsAbs(socket) {
		return ""
	}
	return path.Clean(socket)
}

// collectKubeletConfig reads a KubeletConfiguration. A kubelet may do without.
func collectKubeletConfig(root *hostfs.Root, file string) kvmcheck.Reading[KubeletConfig] {
	data, err := root.ReadFile(file)
	if hostfs.Absent(err) {
		return kvmcheck.Known(file, KubeletConfig{})
	}
	if err != nil {
		return kvmcheck.NotKnown[KubeletConfig](file, err)
	}
	config, err := parseKubeletConfig(data)
	return kvmcheck.ReadingOf(file, config, err)
}

// collectDevices reads the kubelet's checkpoint of device plugins, which it
// writes whenever a plugin reports a change.
func collectDevices(root *hostfs.Root, file string) kvmcheck.Reading[map[string]int] {
	data, err := root.ReadFile(file)
	if hostfs.Absent(err) {
		return kvmcheck.Known(file, map[string]int{}) // no plugin ever registered
	}
	if err != nil {
		return kvmcheck.NotKnown[map[string]int](file, err)
	}
	devices, err := parseCheckpoint(data)
	return kvmcheck.ReadingOf(file, devices, err)
}

func collectMounts(root *hostfs.Root) kvmcheck.Reading[[]Mount] {
	data, err := root.ReadFile(mountinfo)
	if err != nil {
		return kvmcheck.NotKnown[[]Mount](mountinfo, err)
	}
	mounts, err := parseMountinfo(data)
	return kvmcheck.ReadingOf(mountinfo, mounts, err)
}

// mountOf finds the mount that a path lies on: the last of those with the
// longest mount point.
func mountOf(mounts kvmcheck.Reading[[]Mount], name string) kvmcheck.Reading[Mount] {
	if !mounts.Known {
		return kvmcheck.Reading[Mount]{Source: mounts.Source, Err: mounts.Err}
	}
	best := Mount{}
	for _, mount := range mounts.Value {
		inside := mount.Point == "/" || name == mount.Point || strings.HasPrefix(name, mount.Point+"/")
		if inside && len(mount.Point) >= len(best.Point) {
			best = mount
		}
	}
	if best.Point == "" {
		return kvmcheck.NotKnown[Mount](mounts.Source, errNoMount)
	}
	return kvmcheck.Known(mounts.Source, best)
}

// followLink returns where a directory is that may be a link to elsewhere.
func followLink(root *hostfs.Root, dir string) string {
	target, err := root.ReadLink(dir)
	switch {
	case err != nil:
		return dir
	case path.IsAbs(target):
		return path.Clean(target)
	default:
		return path.Join(path.Dir(dir), target)
	}
}

func collectExists(root *hostfs.Root, name string) kvmcheck.Reading[bool] {
	there, err := root.Exists(name)
	return kvmcheck.ReadingOf(name, there, err)
}
