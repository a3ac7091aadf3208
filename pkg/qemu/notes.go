package qemu

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// notes are what libvirt notes of each machine that runs, in a status file: its
// process, and whether it has a long job on its hands, such as a migration. To read
// them asks nobody, and libvirt replaces a file when a job begins or ends: while
// nothing happens, a look at the directory is all. Where there are no such files,
// as in a pod, events tell of migrations.
type notes struct {
	root  *hostfs.Root
	dir   string // host path; empty when the files are not to be trusted
	told  bool   // by files
	seen  time.Time
	files map[string]statusFile
}

// statusFile is what is known of one machine's status file.
type statusFile struct {
	changed time.Time
	job     string // none: empty
	pid     int    // 0: unknown
}

func newNotes(root *hostfs.Root, t target) *notes {
	n := &notes{root: root, files: make(map[string]statusFile)}
	switch {
	case t.owner >= 0 || t.pod != "": // the user's to write, or the pod's
	case t.socket != "":
		n.dir = path.Join(path.Dir(t.socket), "qemu")
	default:
		n.dir = path.Join(t.dir, "qemu")
	}
	return n
}

// mtimeGrain is how old a change must be for another one to show in the time
// that the file system keeps.
const mtimeGrain = time.Second

// refresh looks at the status files of domains if any file has changed. What
// cannot be read says nothing.
func (n *notes) refresh(domains []domainRef) {
	if n.dir == "" {
		return
	}
	changed, err := n.changed(n.dir)
	n.told = true
	switch {
	case err != nil:
		n.seen, n.told = time.Time{}, false
		clear(n.files)
		return
	case changed.Equal(n.seen):
		return
	}
	if n.seen = changed; time.Since(changed) < mtimeGrain {
		n.seen = time.Time{}
	}
	files := make(map[string]statusFile, len(domains))
	for _, domain := range domains {
		if domain.number == inactive || strings.Contains(domain.name, "/") {
			continue
		}
		name := path.Join(n.dir, domain.name+".xml")
		file := n.files[domain.name]
		at, err := n.changed(name)
		if err != nil {
			continue
		}
		if !at.Equal(file.changed) || time.Since(at) < mtimeGrain {
			data, err := n.root.ReadFile(name)
			if err != nil {
				continue
			}
			file = parseStatusFile(data)
			file.changed = at
		}
		files[domain.name] = file
	}
	n.files = files
}

// changed returns when a file or directory was last changed.
func (n *notes) changed(name string) (time.Time, error) {
	full, err := n.root.Resolve(name)
	if err != nil {
		return time.Time{}, err
	}
	info, err := os.Stat(full)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// of returns what is noted of a domain, or nothing.
func (n *notes) of(name string) statusFile { return n.files[name] }

// parseStatusFile reads the process and the kind of job from a status file of
// libvirt, the kind in libvirt's words: what is in the XML before the domain
// itself, whose metadata can be anything.
func parseStatusFile(data []byte) (file statusFile) {
	data, _, found := bytes.Cut(data, []byte("<domain "))
	if !found {
		return file
	}
	if job := attribute(data, "<job ", " async='"); slices.Contains(jobKinds[:], job) {
		file.job = job
	}
	if pid, err := strconv.Atoi(attribute(data, "<domstatus ", " pid='")); err == nil {
		file.pid = max(pid, 0)
	}
	return file
}

// attribute returns the value of an attribute of the first tag of a kind, or nothing.
func attribute(data []byte, tag, name string) string {
	_, rest, _ := bytes.Cut(data, []byte(tag))
	rest, _, _ = bytes.Cut(rest, []byte(">"))
	_, rest, _ = bytes.Cut(rest, []byte(name))
	value, _, _ := bytes.Cut(rest, []byte("'"))
	return string(value)
}
