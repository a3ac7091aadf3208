package qemu

import "slices"

// set stores a value of the balloon group, whose sizes are in KiB.
func (m *Memory) set(name []byte, p *param) bool {
	place := m.size(name)
	if place == nil {
		known := store(m.event(name), p)
		// Libvirt's 0 is no time: the balloon's driver has told nothing yet.
		m.LastUpdate.Set = m.LastUpdate.V > 0
		return known
	}
	p.num.V *= 1024
	return store(place, p)
}

func (m *Memory) size(name []byte) *Num {
	switch string(name) {
	case "current":
		return &m.Current
	case "maximum":
		return &m.Maximum
	case "rss":
		return &m.Resident
	case "available":
		return &m.Available
	case "unused":
		return &m.Unused
	case "usable":
		return &m.Usable
	case "disk_caches":
		return &m.DiskCaches
	case "swap_in":
		return &m.SwapIn
	case "swap_out":
		return &m.SwapOut
	}
	return nil
}

func (m *Memory) event(name []byte) *Num {
	switch string(name) {
	case "major_fault":
		return &m.MajorFaults
	case "minor_fault":
		return &m.MinorFaults
	case "hugetlb_pgalloc":
		return &m.HugetlbAllocations
	case "hugetlb_pgfail":
		return &m.HugetlbFails
	case "last-update":
		return &m.LastUpdate
	}
	return nil
}

// setBandwidth stores a value of "0.name" or "0.node.1.bytes.total", as
// setCache does.
func (d *domain) setBandwidth(field []byte, p *param) bool {
	_, rest, ok := index(field)
	if !ok {
		return string(field) == "count"
	}
	switch string(rest) {
	case "name":
		d.monitored = intern(d.monitored, p.str)
		return len(p.str) <= maxName
	case "vcpus", "node.count":
		return true
	}
	rest, _ = cut(rest, "node.")
	_, name, _ := index(rest)
	last := len(d.vm.Bandwidth) - 1
	switch string(name) {
	case "id":
		node := Bandwidth{Monitor: d.monitored, Node: uint32(p.num.V)}
		if !p.num.Set || slices.ContainsFunc(d.vm.Bandwidth, func(b Bandwidth) bool { return b.Monitor == node.Monitor && b.Node == node.Node }) {
			return false
		}
		d.vm.Bandwidth = append(d.vm.Bandwidth, node)
		return true
	case "bytes.local":
		return last >= 0 && d.vm.Bandwidth[last].Monitor == d.monitored && store(&d.vm.Bandwidth[last].Local, p)
	case "bytes.total":
		return last >= 0 && d.vm.Bandwidth[last].Monitor == d.monitored && store(&d.vm.Bandwidth[last].Total, p)
	}
	return false
}

// set stores a value of the dirtyrate group.
func (d *DirtyRate) set(field []byte, p *param) bool {
	switch string(field) {
	case "calc_status":
		states := [...]DirtyRateState{DirtyRateUnstarted, DirtyRateMeasuring, DirtyRateMeasured}
		if !p.num.Set || p.num.V >= uint64(len(states)) {
			return false
		}
		d.State = states[p.num.V]
		return true
	case "calc_period":
		return store(&d.Period, p)
	case "megabytes_per_second":
		p.num.V <<= 20
		return store(&d.Rate, p)
	case "calc_start_time", "calc_mode":
		return true // when the host was how old, and how it was measured
	}
	_, found := cut(field, "vcpu.")
	return found // the parts of the sum
}
