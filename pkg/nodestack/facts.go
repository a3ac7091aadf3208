package nodestack

import "github.com/virtnode/nodeagent/pkg/kvmcheck"

// Facts is what was read about the stack, before any judgement.
type Facts struct {
	// NotRecorded says that the host is a recording made before anybody
	// looked at the stack.
	NotRecorded bool `json:"notRecorded,omitempty"`

	Daemons  kvmcheck.Reading[[]Daemon] `json:"daemons"`
	Kubelet  KubeletFacts               `json:"kubelet"`
	Runtimes []Runtime                  `json:"runtimes"` // in the order in which they were asked
	CNI      CNIFacts                   `json:"cni"`
	Storage  StorageFacts               `json:"storage"`
	Domains  kvmcheck.Reading[[]Domain] `json:"domains"` // of the host's own libvirt
	Clock    kvmcheck.Reading[Clock]    `json:"clock"`
}

// Daemon is a running process that a check asks about.
type Daemon struct {
	Name  string            `json:"name"`            // /proc/PID/comm: at most 15 bytes
	Flags map[string]string `json:"flags,omitempty"` // of a kubelet: those that say where things are
}

// Domain is a running VM of the host's own libvirt.
type Domain struct {
	Name  string `json:"name"`
	Agent string `json:"agent,omitempty"` // state of its guest-agent channel; empty: it has none
}

// KubeletFacts is where the kubelet keeps things, and what it offers.
type KubeletFacts struct {
	Running      kvmcheck.Reading[bool]           `json:"running"`
	RootDir      string                           `json:"rootDir"`
	Endpoint     string                           `json:"endpoint,omitempty"` // the CRI socket that it was told to use
	Leftover     kvmcheck.Reading[bool]           `json:"leftover"`           // the root directory is there
	Config       kvmcheck.Reading[KubeletConfig]  `json:"config"`
	Mount        kvmcheck.Reading[Mount]          `json:"mount"`        // of the root directory
	Registration kvmcheck.Reading[bool]           `json:"registration"` // device-plugins/kubelet.sock is there
	PodResources kvmcheck.Reading[bool]           `json:"podResources"` // pod-resources/kubelet.sock is there
	Devices      kvmcheck.Reading[map[string]int] `json:"devices"`      // healthy devices by resource
}

// KubeletConfig is the part of a KubeletConfiguration that a check asks about.
type KubeletConfig struct {
	CgroupDriver             string `json:"cgroupDriver,omitempty"`
	ContainerRuntimeEndpoint string `json:"containerRuntimeEndpoint,omitempty"`
}

// Mount is the mount that a path lies on (proc_pid_mountinfo(5)).
type Mount struct {
	Point  string `json:"point"`
	Type   string `json:"type"`   // "ext4"
	Shared bool   `json:"shared"` // mounts below it propagate both ways
}

// RuntimeState is how the socket of a container runtime answered; the zero
// value is that nobody can tell.
type RuntimeState string

// The states of a container runtime's socket.
const (
	RuntimeUnknown  RuntimeState = ""
	RuntimeAbsent   RuntimeState = "absent"
	RuntimeRefused  RuntimeState = "refused"  // the socket is there, and nobody listens
	RuntimeNoCRI    RuntimeState = "no-cri"   // somebody answers, but not runtime.v1
	RuntimeAnswered RuntimeState = "answered" // RuntimeService.Version of runtime.v1
)

// Runtime is what a container runtime said over its CRI socket.
type Runtime struct {
	Socket  string       `json:"socket"`
	State   RuntimeState `json:"state"`
	Err     string       `json:"error,omitempty"`
	Name    string       `json:"name,omitempty"`
	Version string       `json:"version,omitempty"`

	Status       kvmcheck.Reading[RuntimeStatus] `json:"status"`
	CgroupDriver kvmcheck.Reading[CgroupDriver]  `json:"cgroupDriver"`
	ImageStore   kvmcheck.Reading[string]        `json:"imageStore"` // directory of the image file system
}

// RuntimeStatus is the answer to RuntimeService.Status.
type RuntimeStatus struct {
	Conditions []Condition     `json:"conditions"`
	Settings   RuntimeSettings `json:"settings"`
}

// Condition is one of the runtime's own: RuntimeReady, NetworkReady.
type Condition struct {
	Type    string `json:"type"`
	Status  bool   `json:"status"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// RuntimeSettings is what containerd tells of its configuration; CRI-O tells nothing.
type RuntimeSettings struct {
	Snapshotter   string   `json:"snapshotter,omitempty"`
	SystemdCgroup *bool    `json:"systemdCgroup,omitempty"` // of the default runtime
	CNIConfDir    string   `json:"cniConfDir,omitempty"`
	CNIBinDirs    []string `json:"cniBinDirs,omitempty"`
}

// CgroupDriver is who makes the containers' cgroups.
type CgroupDriver struct {
	Name string `json:"name"` // "systemd" or "cgroupfs"
	Told bool   `json:"told"` // over the CRI, so that a kubelet follows it
}

// CNIFacts is the network that pods get when they do not ask for another.
type CNIFacts struct {
	ConfDir  string                               `json:"confDir"`
	BinDirs  []string                             `json:"binDirs"`
	Certain  bool                                 `json:"certain"` // the runtime named the directories; otherwise they are customary
	Files    kvmcheck.Reading[[]string]           `json:"files"`
	Network  kvmcheck.Reading[Network]            `json:"network"`  // of the first file
	Binaries kvmcheck.Reading[[]string]           `json:"binaries"` // names of the plugins that are installed
	Programs map[string]kvmcheck.Reading[Program] `json:"programs"` // those that a check asks about
}

// Network is a CNI network configuration.
type Network struct {
	File           string   `json:"file"`
	Name           string   `json:"name,omitempty"`
	Plugins        []Plugin `json:"plugins"`                  // the chain, in order
	Delegates      []Plugin `json:"delegates,omitempty"`      // what Multus calls
	ClusterNetwork string   `json:"clusterNetwork,omitempty"` // what Multus takes for the default network
}

// Plugin is one step of a CNI network configuration.
type Plugin struct {
	Type string `json:"type"` // name of the program
	IPAM string `json:"ipam,omitempty"`
	MTU  int    `json:"mtu,omitempty"` // bytes; 0: the plugin's own choice
}

// Program is an executable, as far as it tells without being started.
type Program struct {
	Executable bool   `json:"executable"`
	Module     string `json:"module,omitempty"` // Go build information
	Version    string `json:"version,omitempty"`
}

// ModuleState is where a kernel module is.
type ModuleState string

// The states of a kernel module.
const (
	ModuleLoaded    ModuleState = "loaded" // or built in
	ModuleAvailable ModuleState = "available"
	ModuleMissing   ModuleState = "missing"
)

// StorageFacts is what drivers of persistent volumes need of the host.
type StorageFacts struct {
	Modules   map[string]kvmcheck.Reading[ModuleState] `json:"modules"`
	Initiator kvmcheck.Reading[bool]                   `json:"initiator"` // /etc/iscsi/initiatorname.iscsi is there
	ISCSIUnit kvmcheck.Reading[bool]                   `json:"iscsiUnit"` // systemd starts iscsid on demand
	Multipath kvmcheck.Reading[Multipath]              `json:"multipath"`
	MountNFS  kvmcheck.Reading[bool]                   `json:"mountNFS"` // mount.nfs is installed
	Kubelet   Space                                    `json:"kubelet"`  // scratch space: emptyDir, containerDisks, CDI
	Images    Space                                    `json:"images"`   // container images
}

// Multipath is /etc/multipath.conf.
type Multipath struct {
	Exists    bool `json:"exists"`
	Blacklist bool `json:"blacklist"` // it keeps multipathd from some devices
}

// Space is a directory, the mount it lies on and the room there.
type Space struct {
	Path   string                   `json:"path"`
	Mount  kvmcheck.Reading[Mount]  `json:"mount"`
	Volume kvmcheck.Reading[Volume] `json:"volume"`
}

// Volume is the room on a file system (statfs(2)).
type Volume struct {
	Path       string `json:"path"` // all links followed
	Bytes      uint64 `json:"bytes"`
	FreeBytes  uint64 `json:"freeBytes"` // for unprivileged users
	Inodes     uint64 `json:"inodes"`    // 0: the file system has no fixed number
	FreeInodes uint64 `json:"freeInodes"`
	ReadOnly   bool   `json:"readOnly"`
}

// Clock is what the kernel knows about the clock's discipline (adjtimex(2)).
type Clock struct {
	Synchronised bool  `json:"synchronised"` // STA_UNSYNC is not set
	MaxErrorUsec int64 `json:"maxErrorUsec"`
	EstErrorUsec int64 `json:"estErrorUsec"`
}
