// Command bench puts what a scrape costs beside what Debian's exporter of
// libvirt costs, on the same real machines, and prints the table as Markdown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// options are what is measured, and how often.
type options struct {
	agent    string
	domains  int
	working  int // of them
	rounds   int
	interval time.Duration
}

// quiet puts off the check of the host, which comes once a minute, scraped or not:
// it would be counted in whose turn it falls.
const quiet = "readiness: {interval: 24h}\n"

// judged is after how long a new agent's verdict about its host is durable:
// a "no" takes three checks in a minute.
const judged = 75 * time.Second

func main() { os.Exit(run()) }

func run() int {
	var opt options
	flag.StringVar(&opt.agent, "agent", "bin/nodeagent", "the agent's binary")
	flag.IntVar(&opt.domains, "domains", 200, "how many machines; each takes 50 MB of memory and about two seconds to start")
	flag.IntVar(&opt.working, "working", 0, "how many of them read and write their disks all the time; the others idle")
	flag.IntVar(&opt.rounds, "rounds", 8, "how often each exporter is scraped")
	flag.DurationVar(&opt.interval, "interval", 5*time.Second, "time for a scrape and what it leaves to be done; each exporter has every third")
	golang := flag.Bool("go", false, "only write what go test -bench prints on standard input as a table")
	flag.Parse()
	if *golang {
		return report(printBenchmarks(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return report(measure(ctx, opt, os.Stdout))
}

// report returns the exit status.
func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// measure runs both exporters on a bed, and prints what they cost.
func measure(ctx context.Context, opt options, out io.Writer) (err error) {
	if err := errors.Join(libvirt.Missing(), exporter.DebianMissing()); err != nil {
		return err
	}
	host, err := libvirt.Start(ctx, libvirt.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	progress("starting %d machines", opt.domains)
	ground, err := startMachines(ctx, host, opt)
	if err != nil {
		return err
	}
	processes := make([]*exporter.Process, 2)
	for i, program := range []exporter.Program{
		exporter.Agent(opt.agent, exporter.AgentOptions{URIs: []string{host.URI()}, Config: quiet}),
		exporter.Debian(host.URI()),
	} {
		if processes[i], err = exporter.Start(ctx, program); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, processes[i].Close()) }()
	}
	// Until then it checks its host as often as it ever does, which is no
	// scrape's cost, and comes in the same turn every time.
	progress("waiting %v until the agent has judged its host for good", judged)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(judged):
	}
	progress("scraping each %d times, every %v, in turn with a pause", opt.rounds, opt.interval)
	costs, err := ground.Compare(ctx, opt.rounds, opt.interval, processes...)
	if err != nil {
		return err
	}
	return printTable(out, opt, costs[0], costs[1])
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, ">> "+format+"\n", args...) }

// startMachines starts machines with two vCPUs, two disks and a NIC.
func startMachines(ctx context.Context, host *libvirt.Host, opt options) (exporter.Ground, error) {
	var ground exporter.Ground
	domains := make([]libvirt.Domain, opt.domains)
	for i := range domains {
		domains[i] = libvirt.Domain{Name: fmt.Sprintf("vm-%03d", i), VCPUs: 2, Disks: make([]libvirt.Disk, 2), NICs: make([]libvirt.NIC, 1)}
		if i < opt.working {
			domains[i].Workload = libvirt.DiskAndNet
		}
	}
	if err := host.StartDomains(ctx, domains...); err != nil {
		return ground, err
	}
	var err error
	if ground.Daemon, err = host.DaemonPID(); err != nil {
		return ground, err
	}
	for _, domain := range domains {
		pid, err := host.QEMUPID(domain.Name)
		if err != nil {
			return ground, err
		}
		uuid, err := host.UUID(ctx, domain.Name)
		if err != nil {
			return ground, err
		}
		ground.QEMUs, ground.UUIDs = append(ground.QEMUs, pid), append(ground.UUIDs, uuid)
	}
	return ground, nil
}
