package nodestack

import (
	"cmp"
	"errors"
	"path"
	"slices"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

var (
	errNoMount   = errors.New("it lists no mount for this path")
	errNoModules = errors.New("it does not exist, as in a container without the host's /lib/modules")
	errRemote    = errors.New("not asked for its room: a file system over the network can hang")
)

// storageModules are the modules that drivers of persistent volumes use, as
// /sys/module and modules.dep name them (modules.dep may write - for _).
var storageModules = []string{"rbd", "nbd", "iscsi_tcp", "nfs", "nfsv4", "dm_thin_pool", "dm_snapshot", "dm_crypt"}

// remoteTypes are file systems on which a system call may hang without end.
var remoteTypes = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.ceph", "fuse.juicefs", "lustre", "gpfs", "beegfs"}

func collectStorage(host Host, kernel string, facts Facts, mounts kvmcheck.Reading[[]Mount]) StorageFacts {
	root := host.Root
	return StorageFacts{
		Modules:   collectModules(root, kernel),
		Initiator: collectExists(root, "/etc/iscsi/initiatorname.iscsi"),
		ISCSIUnit: collectEither(root, "/etc/systemd/system/sockets.target.wants/iscsid.socket", "/etc/systemd/system/multi-user.target.wants/iscsid.service"),
		Multipath: collectMultipath(root),
		MountNFS:  collectEither(root, "/sbin/mount.nfs", "/usr/sbin/mount.nfs"),
		Kubelet:   collectSpace(host, mounts, facts.Kubelet.RootDir),
		Images:    collectImageSpace(host, mounts, facts.runtime()),
	}
}

// collectModules looks for modules in /sys/module, and in the lists of what
// can be loaded and of what is built in (depmod(8)).
func collectModules(root *hostfs.Root, kernel string) map[string]kvmcheck.Reading[ModuleState] {
	dir := path.Join("/lib/modules", kernel)
	installed := collectModuleList(root, path.Join(dir, "modules.dep"))
	builtin := collectModuleList(root, path.Join(dir, "modules.builtin"))
	states := make(map[string]kvmcheck.Reading[ModuleState])
	for _, module := range storageModules {
		source := path.Join("/sys/module", module)
		loaded, err := root.Exists(source)
		switch {
		case err != nil:
			states[module] = kvmcheck.NotKnown[ModuleState](source, err)
		case loaded:
			states[module] = kvmcheck.Known(source, ModuleLoaded)
		case slices.Contains(builtin.Value, module):
			states[module] = kvmcheck.Known(builtin.Source, ModuleLoaded)
		case slices.Contains(installed.Value, module):
			states[module] = kvmcheck.Known(installed.Source, ModuleAvailable)
		case !installed.Known:
			states[module] = kvmcheck.Reading[ModuleState]{Source: installed.Source, Err: installed.Err}
		case !builtin.Known:
			states[module] = kvmcheck.Reading[ModuleState]{Source: builtin.Source, Err: builtin.Err}
		default:
			states[module] = kvmcheck.Known(installed.Source, ModuleMissing)
		}
	}
	return states
}

// collectModuleList reads which of the storage modules a list of depmod has.
func collectModuleList(root *hostfs.Root, file string) kvmcheck.Reading[[]string] {
	data, err := root.ReadFile(file)
	if hostfs.Absent(err) {
		err = errNoModules
	}
	if err != nil {
		return kvmcheck.NotKnown[[]string](file, err)
	}
	return kvmcheck.Known(file, parseModuleList(data, storageModules))
}

func collectMultipath(root *hostfs.Root) kvmcheck.Reading[Multipath] {
	const file = "/etc/multipath.conf"
	data, err := root.ReadFile(file)
	if hostfs.Absent(err) {
		return kvmcheck.Known(file, Multipath{})
	}
	if err != nil {
		return kvmcheck.NotKnown[Multipath](file, err)
	}
	return kvmcheck.Known(file, Multipath{Exists: true, Blacklist: parseBlacklist(data)})
}

// collectEither reports whether one of two paths is there.
func collectEither(root *hostfs.Root, first, second string) kvmcheck.Reading[bool] {
	there := collectExists(root, first)
	if there.Known && there.Value {
		return there
	}
	other := collectExists(root, second)
	if other.Known && !other.Value {
		return there // absent, or unknown
	}
	return other
}

// collectImageSpace asks for the room where the runtime has its images, which
// only the runtime knows.
func collectImageSpace(host Host, mounts kvmcheck.Reading[[]Mount], runtime Runtime) Space {
	store := runtime.ImageStore
	if !store.Known {
		return Space{Volume: kvmcheck.Reading[Volume]{Source: runtime.Socket, Err: cmp.Or(store.Err, runtime.silence())}}
	}
	return collectSpace(host, mounts, store.Value)
}

// collectSpace asks for the room at a directory, unless its file system is
// behind a network.
func collectSpace(host Host, mounts kvmcheck.Reading[[]Mount], dir string) Space {
	space := Space{Path: dir, Mount: mountOf(mounts, followLink(host.Root, dir))}
	if space.Mount.Known && slices.Contains(remoteTypes, space.Mount.Value.Type) {
		space.Volume = kvmcheck.NotKnown[Volume](dir, errRemote)
		return space
	}
	space.Volume = host.Live.Volume(dir)
	if space.Volume.Known {
		space.Mount = mountOf(mounts, space.Volume.Value.Path)
	}
	return space
}
