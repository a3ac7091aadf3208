package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"
)

// look is what one scrape said about each VM.
type look struct {
	at  time.Time
	vms map[string]*sample
}

// sample is a VM's numbers, counters summed over CPUs, interfaces and disks.
type sample struct {
	state    string
	counters map[string]float64
}

// watch prints what /metrics says until show ends; on a terminal in place.
func watch(ctx, show context.Context, url string, out io.Writer) error {
	before, err := scrape(ctx, url)
	if err != nil {
		return err
	}
	inPlace := isTerminal(out)
	tick := time.NewTicker(demoRefresh)
	defer tick.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := scrape(ctx, url)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		table := render(before, now)
		if inPlace && !first {
			table = fmt.Sprintf("\x1b[%dA\x1b[J", strings.Count(table, "\n")) + table
		}
		if _, err := io.WriteString(out, table); err != nil {
			return err
		}
		before = now
		if show.Err() != nil {
			return nil
		}
	}
}

func isTerminal(out io.Writer) bool {
	file, isFile := out.(*os.File)
	if !isFile {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func scrape(ctx context.Context, url string) (look, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return look{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return look{}, fmt.Errorf("scrape the agent: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // only read
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return look{}, fmt.Errorf("parse the agent's metrics: %w", err)
	}
	return look{at: time.Now(), vms: byVM(families)}, nil
}

func byVM(families map[string]*dto.MetricFamily) map[string]*sample {
	vms := make(map[string]*sample)
	for family, content := range families {
		short, isVM := strings.CutPrefix(family, "virtnode_vm_")
		if !isVM {
			continue
		}
		for _, metric := range content.GetMetric() {
			labels := make(map[string]string)
			for _, pair := range metric.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			vm := vms[labels["name"]]
			if vm == nil {
				vm = &sample{counters: make(map[string]float64)}
				vms[labels["name"]] = vm
			}
			if short == "state" {
				vm.state = labels["state"]
			}
			vm.counters[short] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return vms
}

func render(before, now look) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	seconds := now.at.Sub(before.at).Seconds()
	_, _ = fmt.Fprintf(table, "VM\tSTATE\tCPU %%\tMEMORY MiB\tREAD KiB/s\tWRITE KiB/s\tRX PKT/s\tTX PKT/s\t\n")
	for _, name := range slices.Sorted(maps.Keys(now.vms)) {
		vm, old := now.vms[name], before.vms[name]
		if old == nil {
			old = &sample{}
		}
		rate := func(counter string) float64 { return (vm.counters[counter] - old.counters[counter]) / seconds }
		_, _ = fmt.Fprintf(table, "%s\t%s\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", name, vm.state,
			100*rate("cpu_seconds_total"), vm.counters["memory_resident_bytes"]/(1<<20),
			rate("block_read_bytes_total")/1024, rate("block_write_bytes_total")/1024,
			rate("network_receive_packets_total"), rate("network_transmit_packets_total"))
	}
	_ = table.Flush() // strings.Builder does not fail
	text.WriteString("\n")
	return text.String()
}
