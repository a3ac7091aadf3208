package sriov

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	procDir = "/proc"
	// kthreaddComm is the name of the first kernel thread, which only the
	// host's own /proc shows: in a container others' descriptors are not seen.
	kthreaddComm = "/proc/2/comm"
	// cniAllocations is where sriov-cni writes which VF a pod has.
	cniAllocations = "/var/lib/cni/sriov/pci"
	// vfioDevice is what a descriptor of a device that VFIO gave away is named.
	// It does not tell which device.
	vfioDevice = "vfio-device]"
)

// Pods knows the devices that the kubelet has given away.
type Pods interface {
	// Devices returns, by PCI address, the pods that have a device, as
	// "namespace/name". It is empty on a host without kubelet.
	Devices(ctx context.Context) (map[string][]string, error)
	// Source names where that is known from.
	Source() string
}

// evidence is what has been found out about users of the whole host, read when
// a function asks for it first. What could not be read is in unsure: it counts
// as use of every function it may be about.
type evidence struct {
	root     *hostfs.Root
	pods     Pods
	describe func(pid int) string // nil: by its number
	links    Snapshot

	common      bool                // has been read:
	given       map[string][]string // pods by address
	allocations map[string]User     // by address
	unsure      []User

	vfio       bool              // has been read:
	holders    map[string][]User // by path below /dev/vfio
	unsureVFIO []User
}

func unreadable(source string, err error) User {
	return User{Source: source, Detail: fmt.Sprintf("nobody can tell whether it is in use: %v", err)}
}

// readPods asks the kubelet.
func (e *evidence) readPods(ctx context.Context) {
	if e.pods == nil {
		return
	}
	var err error
	if e.given, err = e.pods.Devices(ctx); err != nil {
		e.unsure = append(e.unsure, unreadable(e.pods.Source(), err))
	}
}

// readAllocations lists what sriov-cni has given to pods:
// /var/lib/cni/sriov/pci/ADDRESS holds the pod's network namespace.
func (e *evidence) readAllocations() {
	root := e.root
	addresses, err := root.ReadDir(cniAllocations)
	if hostfs.Absent(err) {
		return
	}
	if err != nil {
		e.unsure = append(e.unsure, unreadable(cniAllocations, err))
		return
	}
	e.allocations = make(map[string]User, len(addresses))
	for _, address := range addresses {
		file := path.Join(cniAllocations, address)
		namespace, err := root.ReadString(file)
		if err != nil || namespace == "" {
			namespace = "a pod's network namespace"
		}
		e.allocations[address] = User{Source: file, Detail: "sriov-cni has given it to " + namespace}
	}
}

// readHolders lists who holds a VFIO group or device open, from the links
// /proc/PID/fd/N to /dev/vfio/GROUP and /dev/vfio/devices/vfioN.
func (e *evidence) readHolders() {
	root := e.root
	e.holders = make(map[string][]User)
	if name, err := root.ReadString(kthreaddComm); err != nil || name != "kthreadd" {
		if err == nil {
			err = errors.New("no kernel thread: this is not the host's /proc; run with hostPID")
		}
		e.unsureVFIO = append(e.unsureVFIO, unreadable(kthreaddComm, err))
		return
	}
	pids, err := root.ReadDir(procDir)
	if err != nil {
		e.unsureVFIO = append(e.unsureVFIO, unreadable(procDir, err))
		return
	}
	for _, pid := range pids {
		if _, err := strconv.ParseUint(pid, 10, 32); err == nil {
			e.readDescriptors(pid)
		}
	}
}

// readDescriptors looks through the open files of one process.
func (e *evidence) readDescriptors(pid string) {
	root := e.root
	dir := path.Join(procDir, pid, "fd")
	numbers, err := root.ReadDir(dir)
	if ended(err) {
		return
	}
	if err != nil {
		e.unsureVFIO = append(e.unsureVFIO, unreadable(dir, err))
		return
	}
	found, nameless := false, ""
	for _, number := range numbers {
		link := path.Join(dir, number)
		target, err := root.ReadLink(link)
		if ended(err) {
			continue
		}
		if err != nil {
			e.unsureVFIO = append(e.unsureVFIO, unreadable(link, err))
			continue
		}
		if strings.HasSuffix(target, vfioDevice) {
			nameless = link
		}
		device, isVFIO := strings.CutPrefix(target, "/dev/vfio/")
		if !isVFIO || device == "vfio" { // the container: no device
			continue
		}
		found = true
		e.holders[device] = append(e.holders[device], User{Source: link, Detail: fmt.Sprintf("%s holds %s", e.process(pid), target)})
	}
	if nameless != "" && !found {
		e.unsureVFIO = append(e.unsureVFIO, User{Source: nameless, Detail: e.process(pid) + " holds a VFIO device, which may be this one"})
	}
}

// ended reports that a process, or a descriptor, went away meanwhile.
func ended(err error) bool { return hostfs.Absent(err) || errors.Is(err, unix.ESRCH) }

func (e *evidence) process(pid string) string {
	if number, err := strconv.Atoi(pid); err == nil && e.describe != nil {
		return e.describe(number)
	}
	return "process " + pid
}

// users returns who uses a function, the kernel's netdevs aside.
func (e *evidence) users(ctx context.Context, address, driver string, group *int, vfioNames []string) []User {
	if !e.common {
		e.common = true
		e.readPods(ctx)
		e.readAllocations()
	}
	users := slices.Clone(e.unsure)
	for _, pod := range e.given[address] {
		users = append(users, User{Source: e.pods.Source(), Detail: "pod " + pod + " has it"})
	}
	if user, found := e.allocations[address]; found {
		users = append(users, user)
	}
	if !isVFIO(driver, vfioNames) {
		return users
	}
	if !e.vfio {
		e.vfio = true
		e.readHolders()
	}
	if group != nil {
		users = append(users, e.holders[strconv.Itoa(*group)]...)
		users = append(users, e.holders[fmt.Sprintf("noiommu-%d", *group)]...)
	}
	for _, name := range vfioNames {
		users = append(users, e.holders["devices/"+name]...)
	}
	return append(users, e.unsureVFIO...)
}

// netdevUsers says who on this host uses the interfaces of a function, and what
// the MTU of the first is.
func (e *evidence) netdevUsers(netdevs []string) (users []User, mtu int) {
	for _, netdev := range netdevs {
		link, found := e.links.Named(netdev)
		if !found {
			users = append(users, unreadable(netdev, errors.New("it has gone, or has another name, since it was listed")))
		}
		for _, use := range link.Users {
			users = append(users, User{Source: netdev, Detail: use})
		}
		if mtu == 0 {
			mtu = link.MTU
		}
	}
	return users, mtu
}

// isVFIO reports whether a driver gives its devices to user space through
// VFIO, as vfio-pci and the vendors' variants of it do.
func isVFIO(driver string, vfioNames []string) bool {
	return len(vfioNames) > 0 || strings.HasPrefix(driver, "vfio") || strings.HasSuffix(driver, "vfio_pci") || strings.HasSuffix(driver, "vfio-pci")
}
