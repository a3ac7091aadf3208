package libvirt_test

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/qemu"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

const debianExporter = "prometheus-libvirt-exporter"

// compatSeries reads the families of the exporter from a page: a value for
// each series, by family and sorted labels.
func compatSeries(url string) (map[string]float64, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, err
	}
	series := make(map[string]float64)
	for name, family := range families {
		if !strings.HasPrefix(name, "libvirt_") {
			continue
		}
		for _, metric := range family.Metric {
			key := fmt.Sprintf("%s %s %v", family.GetType(), name, sortedLabels(metric))
			series[key] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return series, nil
}

func sortedLabels(metric *dto.Metric) []string {
	var labels []string
	for _, pair := range metric.Label {
		labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
	}
	slices.Sort(labels)
	return labels
}

// startDebianExporter runs it on the bed's libvirtd and returns its page's URL.
func startDebianExporter(t *testing.T, host *libvirt.Host) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	cmd := exec.Command(debianExporter, "--web.listen-address="+address, "--libvirt.uri="+host.URI())
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	url := "http://" + address + "/metrics"
	eventually(t, "a page of "+debianExporter, func() error {
		series, err := compatSeries(url)
		if err == nil && series["GAUGE libvirt_up []"] != 1 {
			err = fmt.Errorf("have %v", series)
		}
		return err
	})
	return url
}

// TestCompatEqualsDebiansExporter demands every series of the other's page, no
// more, with a value between two of the other's.
func TestCompatEqualsDebiansExporter(t *testing.T) {
	_, missing := exec.LookPath(debianExporter)
	hosttest.Need(t, hosttest.Libvirt, missing)
	host := libvirt.New(t, libvirt.Options{})
	start(t, host,
		libvirt.Domain{Name: "chatty", Workload: libvirt.DiskAndNet, VCPUs: 2, Disks: []libvirt.Disk{{}, {Format: "raw"}}, NICs: []libvirt.NIC{{}, {}}, CDROM: true},
		libvirt.Domain{Name: "paused", NICs: []libvirt.NIC{{}}},
	)
	must(t, host.Suspend(t.Context(), "paused"))
	must(t, host.Define(t.Context(), libvirt.Domain{Name: "off"}))

	server := metrics.NewServer(metrics.Options{})
	server.SetVMs(collector(t, host, qemu.Options{}))
	server.Select(metrics.Selection{Compat: []string{"libvirt-exporter"}})
	ours := httptest.NewServer(server.Handler())
	t.Cleanup(ours.Close)
	theirs := startDebianExporter(t, host)

	eventually(t, "the same on both pages", func() error {
		before, err := compatSeries(theirs)
		must(t, err)
		now, err := compatSeries(ours.URL + "/metrics")
		must(t, err)
		after, err := compatSeries(theirs)
		must(t, err)
		var differ []string
		for _, key := range slices.Sorted(maps.Keys(before)) {
			value, found := now[key]
			if low, high := min(before[key], after[key]), max(before[key], after[key]); !found || value < low || value > high {
				differ = append(differ, fmt.Sprintf("%s: have %v (%v), want %v to %v", key, value, found, low, high))
			}
			delete(now, key)
		}
		for key := range now {
			differ = append(differ, key+": the other one has no such series")
		}
		if len(before) < 40 || len(differ) > 0 {
			return fmt.Errorf("%d series:\n%s", len(before), strings.Join(differ, "\n"))
		}
		t.Logf("%d series are the same", len(before))
		return nil
	})
}
