package node

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"
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
