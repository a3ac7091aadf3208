package qemu

import "slices"

// setInterface stores a value of the interface group. The name comes first.
func (d *domain) setInterface(field []byte, p *param) bool {
	n, name, ok := index(field)
	if string(name) == "name" {
		if !ok || d.nic != none && n <= d.nic || !d.vm.addInterface(p.str) {
			return false
		}
		d.nic = n
		return true
	}
	if string(field) == "count" {
		return true
	}
	if !ok || n != d.nic {
		return false
	}
	return store(d.vm.Interfaces[len(d.vm.Interfaces)-1].field(name), p)
}

// addInterface refuses a name that could not tell two interfaces apart.
func (vm *VM) addInterface(name []byte) bool {
	if len(name) == 0 || len(name) > maxName || slices.ContainsFunc(vm.Interfaces, func(nic Interface) bool { return nic.Name == string(name) }) {
		return false
	}
	vm.Interfaces = another(vm.Interfaces)
	nic := &vm.Interfaces[len(vm.Interfaces)-1]
	*nic = Interface{Name: intern(nic.Name, name)}
	return true
}

func (nic *Interface) field(name []byte) *Num {
	switch string(name) {
	case "rx.bytes":
		return &nic.Receive.Bytes
	case "rx.pkts":
		return &nic.Receive.Packets
	case "rx.errs":
		return &nic.Receive.Errors
	case "rx.drop":
		return &nic.Receive.Drops
	case "tx.bytes":
		return &nic.Transmit.Bytes
	case "tx.pkts":
		return &nic.Transmit.Packets
	case "tx.errs":
		return &nic.Transmit.Errors
	case "tx.drop":
		return &nic.Transmit.Drops
	}
	return nil
}

// setDisk stores a value of the block group. The name comes first.
func (d *domain) setDisk(field []byte, p *param) bool {
	n, name, ok := index(field)
	if string(name) == "name" {
		if !ok || d.disk != none && n <= d.disk || !d.vm.addDisk(p.str) {
			return false
		}
		d.disk = n
		return true
	}
	if string(field) == "count" {
		return true
	}
	if !ok || n != d.disk {
		return false
	}
	disk := &d.vm.Blocks[len(d.vm.Blocks)-1]
	if place := disk.field(name); place != nil {
		return store(place, p)
	}
	if rest, found := cut(name, "timed_group."); found {
		return d.vm.setBlockTime(disk.Device, rest, p)
	}
	if rest, found := cut(name, "latency_histogram."); found {
		return d.vm.setBlockBin(disk.Device, rest, p)
	}
	// What is known and not needed here.
	return string(name) == "path" || string(name) == "backingIndex"
}

// addDisk refuses a name that could not tell two disks apart.
func (vm *VM) addDisk(device []byte) bool {
	if len(device) == 0 || len(device) > maxName || slices.ContainsFunc(vm.Blocks, func(disk Block) bool { return disk.Device == string(device) }) {
		return false
	}
	vm.Blocks = another(vm.Blocks)
	disk := &vm.Blocks[len(vm.Blocks)-1]
	*disk = Block{Device: intern(disk.Device, device)}
	return true
}

func (disk *Block) field(name []byte) *Num {
	switch string(name) {
	case "rd.reqs":
		return &disk.Read.Requests
	case "rd.bytes":
		return &disk.Read.Bytes
	case "rd.times":
		return &disk.Read.Time
	case "wr.reqs":
		return &disk.Write.Requests
	case "wr.bytes":
		return &disk.Write.Bytes
	case "wr.times":
		return &disk.Write.Time
	case "fl.reqs":
		return &disk.Flush.Requests
	case "fl.times":
		return &disk.Flush.Time
	case "allocation":
		return &disk.Allocation
	case "capacity":
		return &disk.Capacity
	case "physical":
		return &disk.Physical
	case "threshold":
		return &disk.Threshold
	}
	return nil
}

// setBlockTime stores "0.rd_latency_max", a value of one interval of a disk.
// The interval's length comes first.
func (vm *VM) setBlockTime(device string, field []byte, p *param) bool {
	_, name, ok := index(field)
	if !ok {
		return string(field) == "count"
	}
	if string(name) == "interval" {
		if !p.num.Set || slices.ContainsFunc(vm.BlockTimes, func(b BlockTime) bool { return b.Device == device && b.Interval == p.num.V }) {
			return false
		}
		vm.BlockTimes = append(vm.BlockTimes, BlockTime{Device: device, Interval: p.num.V})
		return true
	}
	last := len(vm.BlockTimes) - 1
	if last < 0 || vm.BlockTimes[last].Device != device {
		return false
	}
	b := &vm.BlockTimes[last]
	switch string(name) {
	case "rd_queue_depth_avg":
		return storeReal(&b.ReadDepth, p)
	case "wr_queue_depth_avg":
		return storeReal(&b.WriteDepth, p)
	}
	if place := b.field(name); place != nil {
		return store(place, p)
	}
	_, zoned := cut(name, "zone_append_")
	return zoned // disks of that kind have no place here
}

// storeReal puts what came as a double, in billionths, where it belongs.
func storeReal(place *Num, p *param) bool {
	if !p.real {
		return false
	}
	*place = p.num
	return true
}

func (b *BlockTime) field(name []byte) *Num {
	switch string(name) {
	case "rd_latency_min":
		return &b.Read.Minimum
	case "rd_latency_max":
		return &b.Read.Maximum
	case "rd_latency_avg":
		return &b.Read.Average
	case "wr_latency_min":
		return &b.Write.Minimum
	case "wr_latency_max":
		return &b.Write.Maximum
	case "wr_latency_avg":
		return &b.Write.Average
	case "flush_latency_min":
		return &b.Flush.Minimum
	case "flush_latency_max":
		return &b.Flush.Maximum
	case "flush_latency_avg":
		return &b.Flush.Average
	}
	return nil
}

// setBlockBin stores "read.bin.3.value", a bin of a disk's histogram. Its
// start comes first.
func (vm *VM) setBlockBin(device string, field []byte, p *param) bool {
	for _, operation := range [...]struct{ prefix, name string }{
		{"read.bin.", "read"}, {"write.bin.", "write"}, {"flush.bin.", "flush"}, {"zone_append.bin.", "zone-append"},
	} {
		rest, found := cut(field, operation.prefix)
		if !found {
			continue
		}
		_, name, ok := index(rest)
		last := len(vm.BlockBins) - 1
		switch {
		case !ok:
			return string(rest) == "count"
		case string(name) == "start" && p.num.Set && vm.binFits(device, operation.name, p.num.V):
			vm.BlockBins = append(vm.BlockBins, BlockBin{Device: device, Operation: operation.name, Start: p.num.V})
			return true
		case string(name) == "value" && last >= 0 && vm.BlockBins[last].Device == device && vm.BlockBins[last].Operation == operation.name:
			return store(&vm.BlockBins[last].Count, p)
		}
		return false
	}
	return false
}

// binFits reports whether a bin goes on with the last histogram, or begins
// another one at zero.
func (vm *VM) binFits(device, operation string, start uint64) bool {
	same := func(bin BlockBin) bool { return bin.Device == device && bin.Operation == operation }
	if last := len(vm.BlockBins) - 1; last >= 0 && same(vm.BlockBins[last]) {
		return start > vm.BlockBins[last].Start
	}
	return start == 0 && !slices.ContainsFunc(vm.BlockBins, same)
}

// setIOThread stores a value of the iothread group, whose numbers are those
// of the domain's XML.
func (vm *VM) setIOThread(field []byte, p *param) bool {
	id, name, ok := index(field)
	if !ok {
		return string(field) == "count"
	}
	last := len(vm.IOThreads) - 1
	if last < 0 || vm.IOThreads[last].ID != id {
		if slices.ContainsFunc(vm.IOThreads, func(t IOThread) bool { return t.ID == id }) {
			return false
		}
		vm.IOThreads = append(vm.IOThreads, IOThread{ID: id})
		last++
	}
	thread := &vm.IOThreads[last]
	switch string(name) {
	case "poll-max-ns":
		return store(&thread.PollMaximum, p)
	case "poll-grow":
		return store(&thread.PollGrow, p)
	case "poll-shrink":
		return store(&thread.PollShrink, p)
	}
	return false
}
