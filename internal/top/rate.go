package top

import (
	"cmp"
	"slices"
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// Rate is a number that may be unknown, which is null in JSON.
type Rate = *float64

// Row is one machine in the time between two looks.
type Row struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UUID      string `json:"uuid"`
	State     string `json:"state"`

	VCPUs      Rate `json:"vcpus"`
	CPU        Rate `json:"cpuPercent"`              // of one CPU, QEMU included
	Delay      Rate `json:"runQueueDelayPercent"`    // of the time of one virtual CPU, summed over all
	Exits      Rate `json:"exitsPerSecond"`          // from guest to hypervisor
	Memory     Rate `json:"residentBytes"`           // of the QEMU process
	ReadBytes  Rate `json:"readBytesPerSecond"`      // from all disks
	WriteBytes Rate `json:"writeBytesPerSecond"`     // to all disks
	Requests   Rate `json:"diskRequestsPerSecond"`   // reads, writes and flushes
	RxBytes    Rate `json:"receiveBytesPerSecond"`   // by the guest
	TxBytes    Rate `json:"transmitBytesPerSecond"`  // by the guest
	Packets    Rate `json:"networkPacketsPerSecond"` // both ways
	Drops      Rate `json:"networkDropsPerSecond"`   // both ways
}

// Look is what one collection saw, without the collector's memory.
type Look struct {
	at  time.Time
	vms map[identity]counters
}

type identity struct{ namespace, name, uuid string }

// counters are a machine's, summed over its parts.
type counters struct {
	state    qemu.State
	start    time.Time // of the QEMU process: counters begin anew with it
	monitor  time.Time // when libvirt last asked QEMU
	vcpus    qemu.Num
	resident qemu.Num

	used, waited, rx, tx, packets, drops       qemu.Num // read for this look
	cpu, delay, exits, read, written, requests qemu.Num // read when monitor says
}

// Take keeps what rates are made of.
func Take(s *qemu.Snapshot) Look {
	look := Look{at: s.Time, vms: make(map[identity]counters, len(s.VMs))}
	for i := range s.VMs {
		vm := &s.VMs[i]
		look.vms[identity{vm.Namespace, vm.Name, vm.UUID}] = countersOf(vm)
	}
	return look
}

func countersOf(vm *qemu.VM) counters {
	c := counters{state: vm.State, monitor: vm.Monitor.LastSuccess, vcpus: vm.Current, resident: vm.Memory.Resident, cpu: vm.CPU.Time}
	if vm.Process != nil {
		c.start = vm.Process.Start
		if vm.Process.Resident.Set {
			c.resident = vm.Process.Resident
		}
		for _, used := range vm.Process.Threads {
			add(&c.used, used.CPU)
		}
		for _, thread := range vm.Process.VCPUs {
			add(&c.waited, thread.Delay)
		}
	}
	for i := range vm.VCPUs {
		add(&c.delay, vm.VCPUs[i].Delay)
	}
	for i := range vm.VCPUKVM {
		if vm.VCPUKVM[i].Name == "exits" {
			add(&c.exits, vm.VCPUKVM[i].Value)
		}
	}
	for i := range vm.Blocks {
		disk := &vm.Blocks[i]
		add(&c.read, disk.Read.Bytes)
		add(&c.written, disk.Write.Bytes)
		for _, n := range []qemu.Num{disk.Read.Requests, disk.Write.Requests, disk.Flush.Requests} {
			add(&c.requests, n)
		}
	}
	for i := range vm.Interfaces {
		nic := &vm.Interfaces[i]
		add(&c.rx, nic.Receive.Bytes)
		add(&c.tx, nic.Transmit.Bytes)
		for _, way := range []qemu.Traffic{nic.Receive, nic.Transmit} {
			add(&c.packets, way.Packets)
			add(&c.drops, way.Drops)
		}
	}
	return c
}

// add sums what is known.
func add(sum *qemu.Num, n qemu.Num) {
	if n.Set {
		sum.V, sum.Set = sum.V+n.V, true
	}
}

// Rows returns the machines of the second look, sorted. What one of the looks
// does not know, and what began anew in between, has no rate.
func Rows(before, now Look, by Order) []Row {
	rows := make([]Row, 0, len(now.vms))
	for id, vm := range now.vms {
		old := before.vms[id]
		if !old.start.Equal(vm.start) {
			old = counters{}
		}
		rows = append(rows, rowOf(id, old, vm, now.at.Sub(before.at)))
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(by.compare(&a, &b), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
	return rows
}

func rowOf(id identity, old, vm counters, passed time.Duration) Row {
	asked := vm.monitor.Sub(old.monitor) // libvirt's numbers may be older than the look
	if old.monitor.IsZero() {
		asked = 0
	}
	const percent = 100 / 1e9 // of nanoseconds in a second
	row := Row{
		Namespace: id.namespace, Name: id.name, UUID: id.uuid, State: string(vm.state),
		VCPUs: value(vm.vcpus), Memory: value(vm.resident),
		CPU:       rate(old.used, vm.used, passed, percent),
		Delay:     rate(old.waited, vm.waited, passed, percent),
		Exits:     rate(old.exits, vm.exits, asked, 1),
		ReadBytes: rate(old.read, vm.read, asked, 1), WriteBytes: rate(old.written, vm.written, asked, 1),
		Requests: rate(old.requests, vm.requests, asked, 1),
		RxBytes:  rate(old.rx, vm.rx, passed, 1), TxBytes: rate(old.tx, vm.tx, passed, 1),
		Packets: rate(old.packets, vm.packets, passed, 1), Drops: rate(old.drops, vm.drops, passed, 1),
	}
	if row.CPU == nil {
		row.CPU = rate(old.cpu, vm.cpu, asked, percent)
	}
	if row.Delay == nil {
		row.Delay = rate(old.delay, vm.delay, asked, percent)
	}
	return row
}

func value(n qemu.Num) Rate {
	if !n.Set {
		return nil
	}
	v := float64(n.V)
	return &v
}

// rate is what a counter gained in a second, times scale.
func rate(old, now qemu.Num, passed time.Duration, scale float64) Rate {
	if !old.Set || !now.Set || now.V < old.V || passed <= 0 {
		return nil
	}
	v := float64(now.V-old.V) * scale / passed.Seconds()
	return &v
}
