package qemu

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/digitalocean/go-libvirt"
)

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
