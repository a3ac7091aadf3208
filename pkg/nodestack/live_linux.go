package nodestack

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

const (
	procDir     = "/proc"
	domainsDir  = "/run/libvirt/qemu"
	clockSource = "adjtimex"
	// kthreaddComm is the name of the first kernel thread, which is to be seen
	// only where all of the host's processes are: not in a container's /proc,
	// and not where hidepid hides what belongs to others.
	kthreaddComm = "/proc/2/comm"
)

// watchedNames are the processes that checks ask about, besides kubelets.
// The kernel keeps 15 bytes of a name.
var watchedNames = []string{"iscsid", "multipathd", "chronyd", "ntpd", "systemd-timesyn"}

// hostLive asks the machine whose file system is at a root, for one caller at
// a time.
type hostLive struct {
	root     *hostfs.Root
	statuses map[string]domainStatus // of the last time, by file
}

// domainStatus is a status file of libvirt, and what is in it: few change from
// one check to the next, and parsing them all costs more than the rest of it.
type domainStatus struct {
	sum    [sha256.Size]byte // of the file
	domain Domain
}

func newHostLive(root *hostfs.Root) hostLive {
	return hostLive{root: root, statuses: make(map[string]domainStatus)}
}

func (l hostLive) Running() Running {
	return Running{Daemons: l.daemons(), Domains: l.domains()}
}

// daemons lists the processes that checks ask about. With an error beside
// what it found, others may be hidden.
func (l hostLive) daemons() kvmcheck.Reading[[]Daemon] {
	daemons, err := l.scan()
	if err != nil {
		return kvmcheck.NotKnown[[]Daemon](procDir, err)
	}
	found := kvmcheck.Known(procDir, daemons)
	name, err := l.root.ReadString(kthreaddComm)
	switch {
	case err != nil:
		found.Err = err.Error()
	case name != "kthreadd":
		found.Err = kthreaddComm + ": no kernel thread; this is not the host's /proc"
	}
	return found
}

// scan goes through /proc once. Processes come and go meanwhile.
func (l hostLive) scan() ([]Daemon, error) {
	pids, err := l.root.ReadDir(procDir)
	if err != nil {
		return nil, err
	}
	dir, err := l.root.Resolve(procDir)
	if err != nil {
		return nil, err
	}
	daemons := []Daemon{}
	for _, pid := range pids {
		if _, err := strconv.ParseUint(pid, 10, 32); err != nil {
			continue
		}
		daemon, err := readDaemon(filepath.Join(dir, pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(procDir, pid), err)
		}
		if daemon.Name != "" {
			daemons = append(daemons, daemon)
		}
	}
	return daemons, nil
}

// readComm reads what a process calls itself. It makes the system calls itself:
// it is done for every process of the host, and package os needs twice as many.
func readComm(file string) (string, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var comm [64]byte    // TASK_COMM_LEN is 16; workqueues have longer names
	n, err := unix.Read(fd, comm[:])
	return string(bytes.TrimSpace(comm[:max(n, 0)])), err
}

// readDaemon returns a process that a check asks about, or one without a name.
// A namesake in a container is not the host's.
func readDaemon(dir string) (Daemon, error) {
	name, err := readComm(filepath.Join(dir, "comm"))
	isKubelet := slices.Contains(kubeletNames, name)
	if err != nil || !isKubelet && !slices.Contains(watchedNames, name) {
		return Daemon{}, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Daemon{}, err
	}
	process, err := parseStatus(data)
	if err != nil || process.nested {
		return Daemon{}, err
	}
	if !isKubelet {
		return Daemon{Name: name}, nil
	}
	if process.uid != 0 {
		return Daemon{}, nil // anybody can have this name
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	return Daemon{Name: name, Flags: parseFlags(cmdline)}, err
}

// domains reads libvirt's status files. They hold secrets, so that only their
// gist goes into a recording.
func (l hostLive) domains() kvmcheck.Reading[[]Domain] {
	names, err := l.root.ReadDir(domainsDir)
	if hostfs.Absent(err) {
		return kvmcheck.Known(domainsDir, []Domain{})
	}
	if err != nil {
		return kvmcheck.NotKnown[[]Domain](domainsDir, err)
	}
	domains := []Domain{}
	for _, name := range names {
		file := path.Join(domainsDir, name)
		if path.Ext(name) != ".xml" {
			continue
		}
		data, err := l.root.ReadFile(file)
		if hostfs.Absent(err) {
			continue // it has ended
		}
		if err != nil {
			return kvmcheck.NotKnown[[]Domain](file, err)
		}
		status := l.statuses[file]
		if sum := sha256.Sum256(data); status.sum != sum {
			domain, err := parseDomain(data)
			if err != nil {
				return kvmcheck.NotKnown[[]Domain](file, err)
			}
			status = domainStatus{sum: sum, domain: domain}
		}
		l.statuses[file] = status
		domains = append(domains, status.domain)
	}
	maps.DeleteFunc(l.statuses, func(file string, _ domainStatus) bool { return !slices.Contains(names, path.Base(file)) })
	return kvmcheck.Known(domainsDir, domains)
}

// resolve follows every link on the way to a path, on this machine too.
func (l hostLive) resolve(name string) (string, error) {
	full, err := l.root.Resolve(name)
	if err != nil || l.root.Dir() != "/" {
		return full, err
	}
	return filepath.EvalSymlinks(full)
}

func (l hostLive) Volume(dir string) kvmcheck.Reading[Volume] {
	full, err := l.resolve(dir)
	if err != nil {
		return kvmcheck.NotKnown[Volume](dir, hostError("resolve", dir, err))
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(full, &stat); err != nil {
		return kvmcheck.NotKnown[Volume](dir, hostError("statfs", dir, err))
	}
	unit := uint64(stat.Frsize)
	return kvmcheck.Known(dir, Volume{
		Path:       path.Join("/", strings.TrimPrefix(full, l.root.Dir())),
		Bytes:      stat.Blocks * unit,
		FreeBytes:  stat.Bavail * unit,
		Inodes:     stat.Files,
		FreeInodes: stat.Ffree,
		ReadOnly:   stat.Flags&unix.ST_RDONLY != 0,
	})
}

// Program reads Go's build information. A program without it is one too.
func (l hostLive) Program(name string) kvmcheck.Reading[Program] {
	full, err := l.resolve(name)
	if err != nil {
		return kvmcheck.NotKnown[Program](name, hostError("resolve", name, err))
	}
	info, err := os.Stat(full)
	if err != nil {
		return kvmcheck.NotKnown[Program](name, hostError("stat", name, err))
	}
	program := Program{Executable: info.Mode().IsRegular() && info.Mode()&0o111 != 0}
	if !program.Executable {
		return kvmcheck.Known(name, program)
	}
	file, err := os.OpenFile(full, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return kvmcheck.Known(name, program) // it runs all the same
	}
	defer file.Close() //nolint:errcheck // nothing was written
	program.Module, program.Version = goVersion(file)
	return kvmcheck.Known(name, program)
}

// goVersion returns the main module of a Go program, nothing of another one.
func goVersion(program io.ReaderAt) (module, version string) {
	info, err := buildinfo.Read(program)
	if err != nil {
		return "", ""
	}
	return info.Main.Path, strings.TrimPrefix(info.Main.Version, "(devel)")
}

// Clock asks adjtimex(2) and changes nothing.
func (l hostLive) Clock() kvmcheck.Reading[Clock] {
	var timex unix.Timex
	if _, err := unix.Adjtimex(&timex); err != nil {
		return kvmcheck.NotKnown[Clock](clockSource, err)
	}
	return kvmcheck.Known(clockSource, Clock{
		Synchronised: timex.Status&unix.STA_UNSYNC == 0,
		MaxErrorUsec: timex.Maxerror,
		EstErrorUsec: timex.Esterror,
	})
}

// hostError names the host's path, whatever path the system call saw.
func hostError(op, name string, err error) error {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
