package qemu

import (
	"bytes"
	"slices"
)

// setCPU stores a value of the cpu group.
func (d *domain) setCPU(field []byte, p *param) bool {
	if rest, found := cut(field, "cache.monitor."); found {
		return d.setCache(rest, p)
	}
	return store(d.vm.CPU.field(field), p)
}

func (c *CPU) field(name []byte) *Num {
	switch string(name) {
	case "time":
		return &c.Time
	case "user":
		return &c.User
	case "system":
		return &c.System
	case "haltpoll.success.time":
		return &c.HaltPollSuccess
	case "haltpoll.fail.time":
		return &c.HaltPollFailure
	}
	return nil
}

// setCache stores a value of "0.name" or "0.bank.1.bytes". The name of a
// monitor comes before its banks, and a bank's number before its bytes.
func (d *domain) setCache(field []byte, p *param) bool {
	_, rest, ok := index(field)
	if !ok {
		return string(field) == "count"
	}
	switch string(rest) {
	case "name":
		d.monitored = intern(d.monitored, p.str)
		return len(p.str) <= maxName
	case "vcpus", "bank.count":
		return true
	}
	rest, _ = cut(rest, "bank.")
	_, name, _ := index(rest)
	last := len(d.vm.Caches) - 1
	switch string(name) {
	case "id":
		bank := Cache{Monitor: d.monitored, Bank: uint32(p.num.V)}
		if !p.num.Set || slices.ContainsFunc(d.vm.Caches, func(c Cache) bool { return c.Monitor == bank.Monitor && c.Bank == bank.Bank }) {
			return false
		}
		d.vm.Caches = append(d.vm.Caches, bank)
		return true
	case "bytes":
		return last >= 0 && d.vm.Caches[last].Monitor == d.monitored && store(&d.vm.Caches[last].Bytes, p)
	}
	return false
}

// setVCPU stores a value of the vcpu group.
func (vm *VM) setVCPU(field []byte, p *param, names map[string]string) bool {
	switch string(field) {
	case "current":
		return store(&vm.Current, p)
	case "maximum":
		return store(&vm.Maximum, p)
	}
	n, name, ok := index(field)
	last := len(vm.VCPUs) - 1
	if !ok || last >= 0 && n < vm.VCPUs[last].Index {
		return false
	}
	if last < 0 || n > vm.VCPUs[last].Index {
		vm.VCPUs = another(vm.VCPUs)
		last++
		vm.VCPUs[last] = VCPU{Index: n}
	}
	cpu := &vm.VCPUs[last]
	switch string(name) {
	case "state":
		states := [...]VCPUState{VCPUOffline, VCPURunning, VCPUBlocked}
		if !p.num.Set || p.num.V >= uint64(len(states)) {
			return false
		}
		cpu.State = states[p.num.V]
		return true
	case "time":
		return store(&cpu.Time, p)
	case "wait":
		return store(&cpu.Wait, p)
	case "delay":
		return store(&cpu.Delay, p)
	case "halted":
		return store(&cpu.Halted, p)
	}
	stat, ok := kvmStat(name, p, names)
	stat.VCPU = n
	return ok && appendStat(&vm.VCPUKVM, stat)
}

// setKVM stores "exits.sum", a statistic of KVM for the whole machine, if its
// name is one of those that are wanted.
func (vm *VM) setKVM(field []byte, p *param, names map[string]string) bool {
	stat, ok := kvmStat(field, p, names)
	return ok && appendStat(&vm.KVM, stat)
}

// appendStat appends a statistic if it is wanted. It refuses one that is
// there already among those of the same virtual CPU, which come last.
func appendStat(stats *[]KVMStat, stat KVMStat) bool {
	if stat.Name == "" {
		return true
	}
	for _, s := range slices.Backward(*stats) {
		if s.VCPU != stat.VCPU {
			break
		}
		if s.Name == stat.Name && s.Type == stat.Type {
			return false
		}
	}
	*stats = append(*stats, stat)
	return true
}

// kvmStat reads a statistic of KVM. It has no name if it is not wanted.
func kvmStat(field []byte, p *param, names map[string]string) (KVMStat, bool) {
	dot := bytes.LastIndexByte(field, '.')
	if dot < 0 || !p.num.Set || p.real {
		return KVMStat{}, false
	}
	stat := KVMStat{Name: names[string(field[:dot])], Value: p.num}
	switch string(field[dot+1:]) {
	case "sum":
	case "cur":
		stat.Type = KVMCurrent
	case "max":
		stat.Type = KVMPeak
	default:
		return KVMStat{}, false
	}
	return stat, true
}

// setPerf stores a value of the perf group.
func (vm *VM) setPerf(field []byte, p *param) bool {
	if !p.num.Set || p.real || len(field) == 0 || len(field) > maxName || len(vm.Perf) >= maxPerf ||
		slices.ContainsFunc(vm.Perf, func(old Perf) bool { return old.Name == string(field) }) {
		return false
	}
	vm.Perf = another(vm.Perf)
	last := &vm.Perf[len(vm.Perf)-1]
	*last = Perf{Name: intern(last.Name, field), Value: p.num}
	return true
}

// maxPerf bounds the perf counters of a machine; libvirt knows 21.
const maxPerf = 64
