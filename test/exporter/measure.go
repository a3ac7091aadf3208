package exporter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Ground is what lies below an exporter, and pays for its questions.
type Ground struct {
	Daemon int      // PID of libvirtd
	QEMUs  []int    // PIDs
	UUIDs  []string // of the machines
}

// Cost is what one scrape costs.
type Cost struct {
	Latency       time.Duration // median
	Slowest       time.Duration
	Exporter      time.Duration // CPU time beyond what it uses without a scrape
	Idle          time.Duration // CPU time of the exporter in one interval without a scrape
	Daemon, QEMUs time.Duration // CPU time beyond what they use without a scrape
	Resident      int64         // bytes, at the end
	SeriesPerVM   float64       // on the last page
}

// used is the CPU time of everything at one time.
type used struct{ exporter, daemon, qemus time.Duration }

func (u used) since(before used) used {
	return used{u.exporter - before.exporter, u.daemon - before.daemon, u.qemus - before.qemus}
}

// Compare scrapes exporters in turn, over and over, with one turn in each round
// in which nobody scrapes: what libvirtd and the QEMUs use then is what they
// use anyway. Every turn lasts an interval, so that what a scrape has begun
// ends in its own turn, unless the scrape itself is slower.
func (g Ground) Compare(ctx context.Context, rounds int, interval time.Duration, exporters ...*Process) ([]Cost, error) {
	costs, took := make([]Cost, len(exporters)), make([][]time.Duration, len(exporters))
	// The first scrapes connect and learn; they are not counted.
	for _, exporter := range exporters {
		if err := warm(ctx, exporter, g.UUIDs, interval); err != nil {
			return nil, err
		}
	}
	var idle used
	for range rounds {
		quiet, err := g.rest(ctx, interval, exporters, costs)
		if err != nil {
			return nil, err
		}
		idle = used{0, idle.daemon + quiet.daemon, idle.qemus + quiet.qemus}
		for i, exporter := range exporters {
			cost := &costs[i]
			spent, err := g.turn(ctx, interval, exporter, func(page *Page) {
				took[i] = append(took[i], page.Took)
				cost.SeriesPerVM = float64(page.Series("uuid", g.UUIDs)) / float64(len(g.UUIDs))
			})
			if err != nil {
				return nil, err
			}
			cost.Exporter += spent.exporter
			cost.Daemon += spent.daemon
			cost.QEMUs += spent.qemus
		}
	}
	for i, exporter := range exporters {
		usage, err := UsageOf(exporter.PID)
		if err != nil {
			return nil, err
		}
		cost, n := &costs[i], time.Duration(rounds)
		slices.Sort(took[i])
		cost.Latency, cost.Slowest, cost.Resident = took[i][rounds/2], took[i][rounds-1], usage.Resident
		cost.Exporter, cost.Idle = max(0, cost.Exporter-cost.Idle)/n, cost.Idle/n
		cost.Daemon, cost.QEMUs = max(0, cost.Daemon-idle.daemon)/n, max(0, cost.QEMUs-idle.qemus)/n
	}
	return costs, nil
}

// warm scrapes until the page has all machines, and then once more.
func warm(ctx context.Context, exporter *Process, uuids []string, interval time.Duration) error {
	for {
		page, err := exporter.Scrape(ctx)
		if err != nil {
			return err
		}
		if err := wait(ctx, interval); err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(uuids), func(uuid string) bool { return page.Series("uuid", []string{uuid}) > 0 })
		if len(missing) == 0 {
			_, err := exporter.Scrape(ctx)
			return errors.Join(err, wait(ctx, interval))
		}
	}
}

// rest is one interval without a scrape. What each exporter uses in it is
// added to its cost.
func (g Ground) rest(ctx context.Context, interval time.Duration, exporters []*Process, costs []Cost) (used, error) {
	sum := func(sign time.Duration) error {
		for i, exporter := range exporters {
			now, err := CPUTime(exporter.PID)
			if err != nil {
				return err
			}
			costs[i].Idle += sign * now
		}
		return nil
	}
	if err := sum(-1); err != nil {
		return used{}, err
	}
	spent, err := g.turn(ctx, interval, nil, nil)
	return spent, errors.Join(err, sum(1))
}

// turn is one interval with one scrape at its beginning, or with none. A
// scrape that is slower than the interval lengthens it; then what the others
// use without it is charged to it as well.
func (g Ground) turn(ctx context.Context, interval time.Duration, exporter *Process, seen func(*Page)) (used, error) {
	before, err := g.look(exporter)
	if err != nil {
		return used{}, err
	}
	start := time.Now()
	if exporter != nil {
		page, err := exporter.Scrape(ctx)
		if err != nil {
			return used{}, err
		}
		seen(page)
	}
	if err := wait(ctx, time.Until(start.Add(interval))); err != nil {
		return used{}, err
	}
	after, err := g.look(exporter)
	return after.since(before), err
}

func (g Ground) look(exporter *Process) (used, error) {
	var now used
	var err error
	if exporter != nil {
		if now.exporter, err = CPUTime(exporter.PID); err != nil {
			return now, err
		}
	}
	if now.daemon, err = CPUTime(g.Daemon); err != nil {
		return now, fmt.Errorf("measure libvirtd: %w", err)
	}
	for _, pid := range g.QEMUs {
		one, err := CPUTime(pid)
		if err != nil {
			return now, fmt.Errorf("measure a QEMU: %w", err)
		}
		now.qemus += one
	}
	return now, nil
}

func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
