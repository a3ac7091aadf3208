package nodestack

import (
	"fmt"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

func evaluateStorage(facts Facts) []finding {
	storage := facts.Storage
	return []finding{
		evaluateModules(storage, "ceph", "Ceph RBD volumes cannot be attached", "rbd"),
		evaluateISCSI(storage, daemon(facts.Daemons, "iscsid")),
		evaluateMultipath(storage, daemon(facts.Daemons, "multipathd")),
		evaluateNFS(storage),
		evaluateModules(storage, "device-mapper", "thin, encrypted or snapshotted volumes cannot be made", "dm_thin_pool", "dm_snapshot", "dm_crypt"),
		evaluateSpace("space-kubelet", storage.Kubelet, 10),
		evaluateSpace("space-images", storage.Images, 15),
	}
}

// evaluateModules wants modules that are loaded, built in, or can be loaded
// when they are needed.
func evaluateModules(storage StorageFacts, check, consequence string, names ...string) finding {
	const area = "storage"
	var missing, there []string
	for _, name := range names {
		module := storage.Modules[name]
		switch {
		case !module.Known:
			return kvmcheck.Undecided(area, check, module.Err)
		case module.Value == ModuleMissing:
			missing = append(missing, name)
		default:
			there = append(there, name+" "+string(module.Value))
		}
	}
	if len(missing) > 0 {
		return kvmcheck.Lacking(area, check, StorageModuleMissing,
			fmt.Sprintf("%s has no %s: %s", storage.Modules[missing[0]].Source, strings.Join(missing, ", "), consequence),
			"install the distribution's full kernel (Debian: linux-image-amd64, not -cloud-; Ubuntu: linux-modules-extra-$(uname -r); RHEL: kernel-modules-extra)")
	}
	return kvmcheck.Found(area, check, strings.Join(there, ", "))
}

func evaluateISCSI(storage StorageFacts, iscsid kvmcheck.Reading[bool]) finding {
	const area, check = "storage", "iscsi"
	module := evaluateModules(storage, check, "iSCSI volumes cannot be attached", "iscsi_tcp")
	initiator, unit := storage.Initiator, storage.ISCSIUnit
	switch {
	case module.Status != kvmcheck.Ready:
		return module
	case !initiator.Known:
		return kvmcheck.Undecided(area, check, initiator.Err)
	case !initiator.Value:
		return kvmcheck.Lacking(area, check, StorageToolMissing, initiator.Source+" does not exist: this host is no iSCSI initiator",
			"only for iSCSI volumes: install open-iscsi (Debian, Ubuntu) or iscsi-initiator-utils (RHEL)")
	case iscsid.Known && iscsid.Value:
		return kvmcheck.Found(area, check, "iscsid runs; "+module.Message)
	case unit.Known && unit.Value:
		return kvmcheck.Found(area, check, unit.Source+" starts iscsid; "+module.Message)
	case !iscsid.Known:
		return kvmcheck.Undecided(area, check, iscsid.Err)
	case !unit.Known:
		return kvmcheck.Undecided(area, check, unit.Err)
	default:
		return kvmcheck.Lacking(area, check, ISCSIDaemonNotRunning, "no process iscsid, and no unit that starts it", "systemctl enable --now iscsid")
	}
}

func evaluateMultipath(storage StorageFacts, multipathd kvmcheck.Reading[bool]) finding {
	const area, check = "storage", "multipath"
	conf := storage.Multipath
	switch {
	case multipathd.Known && !multipathd.Value:
		return kvmcheck.Found(area, check, "multipathd does not run")
	case conf.Known && conf.Value.Blacklist:
		return kvmcheck.Found(area, check, conf.Source+" has a blacklist")
	case !multipathd.Known:
		return kvmcheck.Undecided(area, check, multipathd.Err)
	case !conf.Known:
		return kvmcheck.Undecided(area, check, conf.Err)
	default:
		return kvmcheck.Lacking(area, check, MultipathTakesVolumes,
			conf.Source+" has no blacklist: multipathd may take a Longhorn volume before it is mounted",
			`only for Longhorn: blacklist { devnode "^sd[a-z0-9]+" } in `+conf.Source+", except for disks with several paths; systemctl restart multipathd")
	}
}

func evaluateNFS(storage StorageFacts) finding {
	const area, check = "storage", "nfs"
	module := evaluateModules(storage, check, "NFS volumes cannot be mounted", "nfs", "nfsv4")
	mount := storage.MountNFS
	switch {
	case module.Status != kvmcheck.Ready:
		return module
	case !mount.Known:
		return kvmcheck.Undecided(area, check, mount.Err)
	case !mount.Value:
		return kvmcheck.Lacking(area, check, StorageToolMissing, mount.Source+" does not exist",
			"only for NFS volumes: install nfs-common (Debian, Ubuntu) or nfs-utils (RHEL)")
	default:
		return kvmcheck.Found(area, check, mount.Source+"; "+module.Message)
	}
}

// fileSystems says of common file systems what matters to disk images.
func fileSystems() map[string]string {
	return map[string]string{
		"ext4": "sparse files, no reflinks", "ext3": "sparse files, no reflinks", "xfs": "sparse files and reflinks",
		"btrfs": "sparse files and reflinks", "zfs": "sparse files", "f2fs": "sparse files", "bcachefs": "sparse files and reflinks",
	}
}

// evaluateSpace judges the room against the kubelet's default thresholds of
// eviction: percent free of bytes, and 5 % free of inodes.
func evaluateSpace(check string, space Space, percent uint64) finding {
	const area = "storage"
	mount, volume := space.Mount, space.Volume
	if mount.Known && (slices.Contains(remoteTypes, mount.Value.Type) || slices.Contains([]string{"tmpfs", "ramfs", "overlay", "vfat", "squashfs"}, mount.Value.Type)) {
		return kvmcheck.Lacking(area, check, FileSystemUnsuitable,
			fmt.Sprintf("%s: %s lies on %s, which is %s: no place for images and disks", mount.Source, space.Path, mount.Value.Point, mount.Value.Type),
			"put "+space.Path+" on a local disk with ext4 or xfs")
	}
	switch {
	case !volume.Known:
		return kvmcheck.Undecided(area, check, volume.Err)
	case !mount.Known:
		return kvmcheck.Undecided(area, check, mount.Err)
	case volume.Value.Bytes == 0:
		return kvmcheck.Undecided(area, check, space.Path+": statfs: it has no size")
	}
	room := volume.Value
	// Rounded down, so that a report does not change with every written file.
	free := float64(room.FreeBytes) / float64(room.Bytes) * 100
	about := fmt.Sprintf("%s on %s (%s, %s): %s", space.Path, mount.Value.Type, orElse(fileSystems()[mount.Value.Type], "features not known"), sizeOf(room.Bytes), freeOf(free))
	switch {
	case room.ReadOnly:
		return kvmcheck.Lacking(area, check, FileSystemUnsuitable, fmt.Sprintf("%s lies on %s, which is mounted read-only", space.Path, mount.Value.Point),
			"mount -o remount,rw "+mount.Value.Point+"; dmesg says whether the disk has failed")
	case free < float64(percent):
		return kvmcheck.Lacking(area, check, SpaceLow, fmt.Sprintf("%s, less than the %d %% below which a kubelet evicts pods", about, percent),
			"remove unused images (crictl rmi --prune) and logs, or enlarge the file system")
	case room.Inodes > 0 && room.FreeInodes*20 < room.Inodes:
		return kvmcheck.Lacking(area, check, InodesLow, fmt.Sprintf("%s: less than 5 %% of the inodes are free, below which a kubelet evicts pods", space.Path),
			"remove unused images (crictl rmi --prune) and small files, or make the file system anew with more inodes")
	default:
		return kvmcheck.Found(area, check, about)
	}
}

func freeOf(percent float64) string {
	if percent < 20 {
		return fmt.Sprintf("%d %% free", int(percent))
	}
	return fmt.Sprintf("over %d %% free", int(percent)/10*10)
}

func sizeOf(bytes uint64) string { return fmt.Sprintf("%d GiB", bytes>>30) }

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
