package metrics

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// ownProcess collects the process_ families of this process, as client_golang
// does, for an eighth of the time: it asks for numbers instead of
// parsing texts. Left out is process_network_*, which is the traffic of the
// network namespace, here the host's.
type ownProcess struct {
	cpu, descriptors, mostDescriptors, virtual, mostVirtual, resident, start *prometheus.Desc

	started float64 // Unix seconds; 0: nobody knows
}

func newOwnProcess() *ownProcess {
	p := &ownProcess{
		cpu:             processDesc("cpu_seconds_total", "Total user and system CPU time spent in seconds."),
		descriptors:     processDesc("open_fds", "Number of open file descriptors."),
		mostDescriptors: processDesc("max_fds", "Maximum number of open file descriptors."),
		virtual:         processDesc("virtual_memory_bytes", "Virtual memory size in bytes."),
		mostVirtual:     processDesc("virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes."),
		resident:        processDesc("resident_memory_bytes", "Resident memory size in bytes."),
		start:           processDesc("start_time_seconds", "Start time of the process since unix epoch in seconds."),
	}
	if self, err := procfs.Self(); err == nil {
		if stat, err := self.Stat(); err == nil {
			p.started, _ = stat.StartTime()
		}
	}
	return p
}

func processDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("process_"+name, help, nil, nil)
}

// Describe implements [prometheus.Collector].
func (p *ownProcess) Describe(descs chan<- *prometheus.Desc) { prometheus.DescribeByCollect(p, descs) }

// Collect implements [prometheus.Collector]. What cannot be told is left out.
func (p *ownProcess) Collect(metrics chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, known bool) {
		if known {
			metrics <- prometheus.MustNewConstMetric(desc, kind, value)
		}
	}
	var cpu unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &cpu)
	send(p.cpu, prometheus.CounterValue, time.Duration(cpu.Nano()).Seconds(), err == nil)
	descriptors, err := openDescriptors()
	send(p.descriptors, prometheus.GaugeValue, float64(descriptors), err == nil)
	virtual, resident, err := memory()
	send(p.virtual, prometheus.GaugeValue, virtual, err == nil)
	send(p.resident, prometheus.GaugeValue, resident, err == nil)
	var limit unix.Rlimit
	err = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	send(p.mostDescriptors, prometheus.GaugeValue, float64(limit.Cur), err == nil)
	err = unix.Getrlimit(unix.RLIMIT_AS, &limit)
	send(p.mostVirtual, prometheus.GaugeValue, float64(limit.Cur), err == nil)
	send(p.start, prometheus.GaugeValue, p.started, p.started > 0)
}

// openDescriptors counts this process's descriptors: since Linux 6.2 that is the
// size of the directory (fs/proc/fd.c), before it is zero.
func openDescriptors() (int, error) {
	const dir = "/proc/self/fd"
	info, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	if size := info.Size(); size > 0 {
		return int(size), nil
	}
	names, err := os.ReadDir(dir)
	return len(names) - 1, err // less the one it is read with
}

// memory reads the sizes of this process in bytes from /proc/self/statm, which
// begins with them in pages (proc_pid_statm(5)).
func memory() (virtual, resident float64, err error) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(string(data), &virtual, &resident)
	page := float64(os.Getpagesize())
	return virtual * page, resident * page, err
}
