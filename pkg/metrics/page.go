package metrics

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// newRegistry holds what is usual to know about a Go program: the go_ families,
// by client_golang, and the process_ families.
func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), newOwnProcess())
	return registry
}

// appendPage appends the whole page to w. An error means that families of
// the Go runtime are missing; the page is of use all the same.
func (s *Server) appendPage(ctx context.Context, w *writer) error {
	start := time.Now()
	about := scrape{}
	if vms := s.vms.Load(); vms != nil {
		snapshot := (*vms).Collect(ctx)
		defer snapshot.Release()
		appendSnapshot(w, snapshot, s.selected.Load())
		about.series, about.duplicates = w.series, snapshot.Duplicates
		s.cutVM.Add(w.budget.cutVM)
		s.cutPage.Add(w.budget.cutPage)
		sources := make([]sourceHealth, 0, len(snapshot.Sources))
		for _, state := range snapshot.Sources {
			sources = append(sources, sourceHealth{state, snapshot.Time.Sub(state.LastSuccess)})
		}
		write(w, sourceFamilies[:], sources, labelSource)
	}
	if s.opt.Readiness != nil {
		appendReadiness(w, s.opt.Readiness())
	}
	if s.opt.Network != nil {
		appendNetwork(w, s.opt.Network())
	}
	if s.opt.Publish != nil {
		appendPublish(w, s.opt.Publish())
	}
	if s.opt.Programs != nil {
		write(w, programFamilies[:], s.opt.Programs(), labelProgram)
	}
	if s.opt.Tasks != nil {
		write(w, taskFamilies[:], s.opt.Tasks(), labelTask)
	}
	if s.opt.Config != nil {
		write(w, configFamilies[:], []ConfigState{s.opt.Config()}, unlabelled[ConfigState])
	}
	write(w, buildFamilies[:], []buildInfo{{s.opt.Version}}, labelBuild)
	err := s.appendRegistry(w)
	about.duration, about.cutVM, about.cutPage = time.Since(start), s.cutVM.Load(), s.cutPage.Load()
	write(w, scrapeFamilies[:], []scrape{about}, unlabelled[scrape])
	return err
}

// appendRegistry appends what client_golang knows, encoded by its own library.
func (s *Server) appendRegistry(w *writer) error {
	families, err := s.registry.Gather()
	if err != nil {
		err = fmt.Errorf("gather the agent's own metrics: %w", err)
	}
	format := expfmt.FmtText
	if w.protobuf {
		format = expfmt.FmtProtoDelim
	}
	buf := bytes.NewBuffer(w.buf)
	encoder := expfmt.NewEncoder(buf, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return fmt.Errorf("encode the agent's own metrics: %w", err)
		}
	}
	w.buf = buf.Bytes()
	return err
}
