package node

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/network"
)

// silent is an API server that takes every request and never answers.
type silent struct{ requests atomic.Int64 }

func (s *silent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.requests.Add(1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestASilentAPIServerIsAskedAgain lets an hour pass at such a server: the
// publisher gives up each request, and comes back ever more slowly.
func TestASilentAPIServerIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := new(silent)
		p := NewPublisher(Options{
			Config: func() (*rest.Config, error) { return &rest.Config{Host: "http://silent", Transport: server}, nil },
			Node:   "n", Random: func() float64 { return 0 }, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- p.Run(ctx, func() {}) }()
		for range 60 {
			p.Observe(lookAt(t, "vm-kvm")) // looks go on
			time.Sleep(time.Minute)
		}
		// Two lists, each given up after 10 s, and pauses of 30 s at most.
		if asked := server.requests.Load(); asked < 100 || asked > 1000 {
			t.Errorf("%d requests in an hour", asked)
		}
		if state := p.State(); state.Up || state.Errors[failTimeout] < 100 {
			t.Errorf("up: %v, errors %v", state.Up, state.Errors)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestHostNetworksWaitForAWayToTheCluster has a kubeconfig that is none for half
// an hour, and then a server that says nothing.
func TestHostNetworksWaitForAWayToTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		config := func() (*rest.Config, error) {
			if time.Since(began) < 30*time.Minute {
				return nil, errors.New("read kubeconfig: it is none")
			}
			return &rest.Config{Host: "http://silent", Transport: new(silent)}, nil
		}
		var log strings.Builder
		h := NewHostNetworks(config, "n", func([]v1alpha1.NetworkReport) {}, slog.New(slog.NewTextHandler(&log, nil)))
		unknown := func(why string) {
			t.Helper()
			if _, err := h.Policies(); !errors.Is(err, network.ErrUnknown) || !strings.Contains(err.Error(), why) || h.State().Up {
				t.Errorf("%v, %+v", err, h.State())
			}
		}
		unknown("not known yet")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { h.Run(ctx); close(ended) }()
		time.Sleep(29 * time.Minute)
		unknown("not known yet: read kubeconfig: it is none")
		if tried := h.State().Errors[failConfig]; tried < 20 || tried > 60 {
			t.Errorf("tried %d times", tried)
		}
		time.Sleep(31 * time.Minute)
		unknown("not known yet: ")
		if h.State().Errors[failTimeout] < 50 {
			t.Errorf("%+v", h.State())
		}
		cancel()
		<-ended
		said := log.String()
		if strings.Count(said, "reason=BadConfig") != 1 || strings.Count(said, "reason=Timeout") != 2 || strings.Count(said, "can be watched again") != 1 {
			t.Error(said)
		}
	})
}
