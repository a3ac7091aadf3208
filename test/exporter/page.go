package exporter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Page is one answer to a scrape.
type Page struct {
	Text    []byte
	Took    time.Duration // from the request to the last byte
	Samples []Sample
}

// Sample is one series' value. A histogram is its _bucket, _sum and _count.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// Key names the series, with its labels in order.
func (s Sample) Key() string {
	var key strings.Builder
	key.WriteString(s.Name)
	for i, name := range slices.Sorted(maps.Keys(s.Labels)) {
		key.WriteByte("{,"[min(i, 1)])
		key.WriteString(name + "=" + strconv.Quote(s.Labels[name]))
	}
	if len(s.Labels) > 0 {
		key.WriteByte('}')
	}
	return key.String()
}

// Scrape gets /metrics over a connection of its own, so that none is left.
func (p *Process) Scrape(ctx context.Context) (*Page, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("scrape %s: %w", p.name, err)
	}
	text, err := io.ReadAll(response.Body)
	took := time.Since(start)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("scrape %s: %w", p.name, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape %s: %s: %s", p.name, response.Status, text)
	}
	page, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("scrape %s: %w", p.name, err)
	}
	page.Took = took
	return page, nil
}

// Parse reads the text exposition format.
func Parse(text []byte) (*Page, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("parse the page: %w", err)
	}
	page := &Page{Text: text}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, metric := range families[name].Metric {
			page.add(name, metric)
		}
	}
	return page, nil
}

// add appends the samples of one metric of a family.
func (p *Page) add(name string, metric *dto.Metric) {
	put := func(name string, value float64, more ...string) {
		labels := make(map[string]string, len(metric.Label)+1)
		for _, pair := range metric.Label {
			labels[pair.GetName()] = pair.GetValue()
		}
		for i := 0; i+1 < len(more); i += 2 {
			labels[more[i]] = more[i+1]
		}
		p.Samples = append(p.Samples, Sample{Name: name, Labels: labels, Value: value})
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	switch {
	case metric.Counter != nil:
		put(name, metric.Counter.GetValue())
	case metric.Gauge != nil:
		put(name, metric.Gauge.GetValue())
	case metric.Untyped != nil:
		put(name, metric.Untyped.GetValue())
	case metric.Histogram != nil:
		for _, bucket := range metric.Histogram.Bucket {
			put(name+"_bucket", float64(bucket.GetCumulativeCount()), "le", number(bucket.GetUpperBound()))
		}
		put(name+"_sum", metric.Histogram.GetSampleSum())
		put(name+"_count", float64(metric.Histogram.GetSampleCount()))
	case metric.Summary != nil:
		for _, quantile := range metric.Summary.Quantile {
			put(name, quantile.GetValue(), "quantile", number(quantile.GetQuantile()))
		}
		put(name+"_sum", metric.Summary.GetSampleSum())
		put(name+"_count", float64(metric.Summary.GetSampleCount()))
	}
}

// Select returns the samples with these labels, given as name, value, name,
// value…; an empty name stands for any family.
func (p *Page) Select(name string, labels ...string) []Sample {
	var found []Sample
	for _, sample := range p.Samples {
		if (name == "" || sample.Name == name) && sample.has(labels) {
			found = append(found, sample)
		}
	}
	return found
}

func (s Sample) has(labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if s.Labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// Value returns the value of the only sample with these labels; false when
// there is none, or more than one.
func (p *Page) Value(name string, labels ...string) (float64, bool) {
	found := p.Select(name, labels...)
	if len(found) != 1 {
		return 0, false
	}
	return found[0].Value, true
}

// Series counts the samples that have a label with one of the values, which is
// how an exporter's series of some VMs are told from the rest.
func (p *Page) Series(label string, values []string) int {
	count := 0
	for _, sample := range p.Samples {
		if value, ok := sample.Labels[label]; ok && slices.Contains(values, value) {
			count++
		}
	}
	return count
}
