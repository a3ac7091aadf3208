package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

func TestTwentyScrapersAtOnce(t *testing.T) {
	f := sharedFleet(t)
	w := watchAgent(t, f, startAgent(t, "", f.URI()))
	const scrapers, rounds = 20, 10
	pages, errs := make([]*exporter.Page, scrapers), make([]error, scrapers)
	for range rounds {
		var group sync.WaitGroup
		for i := range scrapers {
			group.Go(func() { pages[i], errs[i] = w.Scrape(t.Context()) })
		}
		group.Wait()
		must(t, errors.Join(errs...))
		for _, page := range pages {
			w.keeps(t, page, f.names, kernel, light, monitor)
			w.took = append(w.took, page.Took)
		}
	}
	w.recovers(t)
}

// TestScraperStopsReading leaves answers in the agent's hands, half taken.
func TestScraperStopsReading(t *testing.T) {
	f := sharedFleet(t)
	w := watchAgent(t, f, startAgent(t, "", f.URI()))
	const idle = 8
	for i := range idle {
		conn, err := net.Dial("tcp", w.Address)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		// The answers to many requests on one connection are more than the
		// kernel's buffers take.
		must(t, conn.(*net.TCPConn).SetReadBuffer(4096))
		for range 400 {
			must(t, conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
			if _, err := fmt.Fprintf(conn, "GET /metrics HTTP/1.1\r\nHost: scraper-%d\r\n\r\n", i); err != nil {
				break // the agent does not take more requests than it can answer
			}
		}
	}
	w.during(t, 20, func(page *exporter.Page) { w.keeps(t, page, f.names, kernel, light, monitor) }, func(*exporter.Page) error { return nil })
	w.recovers(t)
}

// churnTime is how long machines come and go.
const churnTime = time.Minute

// TestMachinesComeAndGo destroys and starts half of the machines during
// scrapes. The other half has all its series on every page.
func TestMachinesComeAndGo(t *testing.T) {
	f := sharedFleet(t)
	w := watchAgent(t, f, startAgent(t, "", f.URI()))
	restless, steady := f.names[fleetSize/2:], f.names[:fleetSize/2]
	t.Cleanup(func() {
		// Whatever happened, the next test finds all machines running.
		ctx := context.WithoutCancel(t.Context())
		for _, name := range restless {
			if state, err := f.State(ctx, name); err == nil && state != "running" {
				_ = f.Boot(ctx, name)
			}
		}
	})

	end := time.Now().Add(churnTime)
	churned := make(chan error, 1)
	var cycles int
	go func() { churned <- churn(t, f.Host, restless, end, &cycles) }()
	over := false
	w.during(t, 20, func(page *exporter.Page) {
		w.keeps(t, page, steady, kernel, light, monitor)
	}, func(*exporter.Page) error {
		select {
		case err := <-churned:
			must(t, err)
			over = true
		default:
		}
		if !over {
			return errors.New("machines still come and go")
		}
		return nil
	})
	if cycles < 5 {
		t.Errorf("machines came and went only %d times", cycles)
	}
	t.Logf("machines came and went %d times", cycles)
	w.recovers(t)
}

// churn destroys machines and starts them, as many at once as there are
// processors, until the end.
func churn(t *testing.T, host *libvirt.Host, names []string, end time.Time, cycles *int) error {
	workers := min(runtime.NumCPU(), len(names))
	errs, counts := make([]error, workers), make([]int, workers)
	var group sync.WaitGroup
	for n := range workers {
		group.Go(func() {
			// Each worker has machines of its own.
			for i := n; time.Now().Before(end) && errs[n] == nil; i += workers {
				if i >= len(names) {
					i = n
				}
				name := names[i]
				errs[n] = errors.Join(host.Destroy(t.Context(), name), host.Boot(t.Context(), name))
				counts[n]++
			}
		})
	}
	group.Wait()
	for _, count := range counts {
		*cycles += count
	}
	return errors.Join(errs...)
}
