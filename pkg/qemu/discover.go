package qemu

import (
	"os"
	"path"
	"slices"
	"strconv"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// target is one libvirt daemon: a socket that somebody named, or all the
// sockets of one directory.
type target struct {
	name   string // label of the source
	driver string // URI the daemon is asked for
	socket string // host path; empty means those in dir
	dir    string // host path
	owner  int    // user that must serve the socket, -1 for any
	pod    string // UID of the virt-launcher pod whose daemon it is; empty: the host's
}

// What a daemon is asked for.
const (
	driverSystem  = "qemu:///system"
	driverSession = "qemu:///session"
)

// maxPodReply bounds what a pod's daemon may answer: it knows one machine.
const maxPodReply = 512 << 10

// limit bounds what the daemon may answer, in bytes.
func (t target) limit() uint32 {
	if t.pod != "" {
		return maxPodReply
	}
	return maxReply
}

// maxUserDomains bounds what a user's daemon may tell of: series are everybody's.
const maxUserDomains = 256

// domains is how many domains the daemon may have.
func (t target) domains() int {
	switch {
	case t.pod != "":
		return 1
	case t.owner >= 0:
		return maxUserDomains
	}
	return maxDomains
}

// sockets returns the paths to try, the preferred one first.
func (t target) sockets(root *hostfs.Root) []string {
	if t.socket != "" {
		return []string{t.socket}
	}
	var found []string
	for _, name := range socketNames {
		socket := path.Join(t.dir, name)
		if there, err := root.Exists(socket); err == nil && there {
			found = append(found, socket)
		}
	}
	return found
}

// socketNames are the sockets in one directory, in order of preference: the modular daemon before the monolithic one (whose socket may
// be a proxy to the first), and each read-only where it offers that.
var socketNames = [...]string{"virtqemud-sock-ro", "virtqemud-sock", "libvirt-sock-ro", "libvirt-sock"}

// discover returns the daemons that have a socket now: the system's, and one
// for each user's session.
func discover(root *hostfs.Root) []target {
	candidates := []target{systemTarget(root)}
	// Without the directory, no user has a session, or none that we may see.
	users, _ := root.ReadDir("/run/user")
	for _, name := range users {
		if uid, err := strconv.Atoi(name); err == nil {
			candidates = append(candidates, sessionTarget(uid))
		}
	}
	return slices.DeleteFunc(candidates, func(t target) bool { return len(t.sockets(root)) == 0 })
}

// systemTarget returns the daemon of the machine.
func systemTarget(root *hostfs.Root) target {
	t := target{name: driverSystem, driver: driverSystem, dir: "/run/libvirt", owner: -1}
	if found, err := root.Exists(t.dir); err != nil || !found {
		t.dir = "/var/run/libvirt"
	}
	return t
}

// sessionTarget returns the daemon of one user's session. Its directory is
// the user's to write, so whoever serves the socket must be that user.
func sessionTarget(uid int) target {
	user := strconv.Itoa(uid)
	return target{
		name:   driverSession + "?uid=" + user,
		driver: driverSession,
		dir:    path.Join("/run/user", user, "libvirt"),
		owner:  uid,
	}
}

// explicit returns the daemon that a user named.
func explicit(root *hostfs.Root, text string, u uri) target {
	named := target{socket: u.socket, owner: -1}
	switch {
	case u.socket != "":
	case u.mode == "session":
		named = sessionTarget(os.Getuid())
	default:
		named = systemTarget(root)
	}
	named.name, named.driver = text, u.driver()
	return named
}
