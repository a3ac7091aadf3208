package qemu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// jobs knows which machines have a long job on their hands, such as a
// migration, without asking anybody: libvirt notes it in the status file that
// it keeps of each machine that runs, and replaces that file when a job begins
// or ends. So while nothing happens, a look at the directory is all. Where there are
// no such files, as in a pod, events tell of migrations.
type jobs struct {
	root  *hostfs.Root
	dir   string // host path; empty when the files are not to be trusted
	told  bool   // by files
	seen  time.Time
	files map[string]statusFile
}

// statusFile is what is known of one machine's status file.
type statusFile struct {
	changed time.Time
	job     string
}

func newJobs(root *hostfs.Root, t target) *jobs {
	j := &jobs{root: root, files: make(map[string]statusFile)}
	switch {
	case t.owner >= 0 || t.pod != "": // the user's to write, or the pod's
	case t.socket != "":
		j.dir = path.Join(path.Dir(t.socket), "qemu")
	default:
		j.dir = path.Join(t.dir, "qemu")
	}
	return j
}

// mtimeGrain is how old a change must be for another one to show in the time
// that the file system keeps.
const mtimeGrain = time.Second

// refresh looks at the status files of domains if any file has changed. What
// cannot be read has no job.
func (j *jobs) refresh(domains []domainRef) {
	if j.dir == "" {
		return
	}
	changed, err := j.changed(j.dir)
	j.told = true
	switch {
	case err != nil:
		j.seen, j.told = time.Time{}, false
		clear(j.files)
		return
	case changed.Equal(j.seen):
		return
	}
	if j.seen = changed; time.Since(changed) < mtimeGrain {
		j.seen = time.Time{}
	}
	files := make(map[string]statusFile, len(domains))
	for _, domain := range domains {
		if domain.number == inactive || strings.Contains(domain.name, "/") {
			continue
		}
		name := path.Join(j.dir, domain.name+".xml")
		file := j.files[domain.name]
		at, err := j.changed(name)
		if err != nil {
			continue
		}
		if !at.Equal(file.changed) || time.Since(at) < mtimeGrain {
			data, err := j.root.ReadFile(name)
			if err != nil {
				continue
			}
			file = statusFile{at, parseJob(data)}
		}
		files[domain.name] = file
	}
	j.files = files
}

// changed returns when a file or directory was last changed.
func (j *jobs) changed(name string) (time.Time, error) {
	full, err := j.root.Resolve(name)
	if err != nil {
		return time.Time{}, err
	}
	info, err := os.Stat(full)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// of returns the job of a domain, or none.
func (j *jobs) of(name string) string { return j.files[name].job }

// parseJob reads the kind of job from a status file of libvirt, in libvirt's
// words: what is in the XML before the domain itself, whose metadata can be
// anything.
func parseJob(data []byte) string {
	data, _, found := bytes.Cut(data, []byte("<domain "))
	_, job, _ := bytes.Cut(data, []byte("<job "))
	job, _, _ = bytes.Cut(job, []byte(">"))
	_, kind, _ := bytes.Cut(job, []byte(" async='"))
	kind, _, ended := bytes.Cut(kind, []byte("'"))
	for _, known := range jobKinds {
		if found && ended && string(kind) == known {
			return known
		}
	}
	return ""
}

// jobKinds are the jobs that libvirt has statistics of, but for its start of a
// machine and the arriving end of a migration.
var jobKinds = [...]string{migrationOut, "save", "dump", "snapshot", "backup"}

const migrationOut = "migration out"

// operations are the kinds by what statistics call them. QEMU also tells of passes
// when it saves a machine.
var operations = map[libvirt.DomainJobOperation]string{
	libvirt.DomainJobOperationStrMigrationOut: migrationOut, libvirt.DomainJobOperationStrSave: "save",
	libvirt.DomainJobOperationStrDump: "dump", libvirt.DomainJobOperationStrSnapshot: "snapshot", libvirt.DomainJobOperationStrBackup: "backup",
}

// procJobStats is REMOTE_PROC_DOMAIN_GET_JOB_STATS.
const procJobStats = 298

// jobStats asks how far a domain's job is. Without the flag for completed
// jobs, which takes them away from whoever waits for them, it changes nothing.
func (c *connection) jobStats(of *domainRef, deadline time.Time) ([]byte, error) {
	args := appendDomain(c.begin(), of)
	args = binary.BigEndian.AppendUint32(args, 0)
	reply, err := c.exchange(procJobStats, args, maxDomainReply, deadline)
	if err != nil {
		return nil, fmt.Errorf("get job statistics: %w", err)
	}
	return reply, nil
}

// decode reads the reply to REMOTE_PROC_DOMAIN_GET_JOB_STATS: the job's type
// and parameters, of which one says what kind it is. It returns how many of them
// mean nothing to us. Without a job there is no kind.
func (j *Job) decode(payload []byte) (unused int, err error) {
	w := walker{data: payload}
	none := w.u32() == uint32(libvirt.DomainJobNone) // else whether its end can be foreseen
	var value param
	var pages, size Num
	for n := w.u32(); n > 0 && !w.failed; n-- {
		field := w.bytes()
		w.param(&value)
		switch string(field) {
		case "memory_dirty_rate":
			pages = value.num
		case "memory_page_size":
			size = value.num
		default:
			if !w.failed && !j.set(field, &value) {
				unused++
			}
		}
	}
	if !w.done() {
		return 0, fmt.Errorf("decode job statistics: %w", errBadReply)
	}
	if pages.Set && size.Set {
		j.MemoryDirtied = Some(pages.V * size.V)
	}
	if none {
		*j = Job{}
	}
	return unused, nil
}

// set stores one parameter.
func (j *Job) set(field []byte, p *param) bool {
	if place := j.duration(field); place != nil {
		p.num.V *= uint64(time.Millisecond)
		return store(place, p)
	}
	if place := j.number(field); place != nil {
		return store(place, p)
	}
	switch string(field) {
	case "operation":
		if kind, known := operations[libvirt.DomainJobOperation(p.num.V)]; known {
			j.Kind = kind
		}
		return true
	case "time_elapsed_net", "time_remaining", "downtime_net", "data_total", "data_processed", "data_remaining", "memory_constant", "memory_normal", "memory_normal_bytes":
		return true // sums, and parts of what is there
	}
	_, compression := cut(field, "compression_")
	return compression
}

func (j *Job) duration(name []byte) *Num {
	switch string(name) {
	case "time_elapsed":
		return &j.Elapsed
	case "downtime":
		return &j.Downtime
	case "setup_time":
		return &j.Setup
	}
	return nil
}

func (j *Job) number(name []byte) *Num {
	switch string(name) {
	case "memory_total":
		return &j.Memory.Total
	case "memory_processed":
		return &j.Memory.Processed
	case "memory_remaining":
		return &j.Memory.Remaining
	case "memory_bps":
		return &j.Memory.Rate
	case "disk_total":
		return &j.Disk.Total
	case "disk_processed":
		return &j.Disk.Processed
	case "disk_remaining":
		return &j.Disk.Remaining
	case "disk_bps":
		return &j.Disk.Rate
	case "memory_iteration":
		return &j.Iteration
	case "memory_postcopy_requests":
		return &j.PostcopyRequests
	case "auto_converge_throttle":
		return &j.Throttle
	case "vfio_data_transferred":
		return &j.VFIO
	}
	return nil
}
