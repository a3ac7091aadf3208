package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config returns the way to the cluster: that of a kubeconfig, or that of the
// pod's service account when there is none. Who the agent is, and whom it
// trusts, is looked up again when the cluster does not take it any more; where
// the cluster is, is not.
func Config(kubeconfig string) (*rest.Config, error) {
	config, err := lookUp(kubeconfig)
	if err != nil {
		return nil, err
	}
	at, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	way, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	return &rest.Config{Host: at.String(), Timeout: config.Timeout, Transport: &credentials{kubeconfig: kubeconfig, way: way}}, nil
}

// ConfigOf returns what finds the way to the cluster when it is asked.
func ConfigOf(kubeconfig string) func() (*rest.Config, error) {
	return func() (*rest.Config, error) { return Config(kubeconfig) }
}

// Pauses after a failure.
const minRetry, maxRetry = time.Second, time.Minute

func newBackoff() wait.Backoff {
	return wait.Backoff{Duration: minRetry, Factor: 2, Jitter: 0.5, Steps: 1 << 30, Cap: maxRetry}
}

// pause reports whether the time has passed, and ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// connect asks for the way to the cluster until there is one, and makes of it
// what speaks with the cluster. It reports whether it did before ctx ended.
func connect[T any](ctx context.Context, config func() (*rest.Config, error), client func(*rest.Config) (T, error), failing *failures) (made T, connected bool) {
	backoff := newBackoff()
	for {
		way, err := config()
		if err == nil {
			made, err = client(way)
		}
		if err == nil {
			failing.note("connect", nil)
			return made, true
		}
		failing.note("connect", &failure{failConfig, err})
		if !pause(ctx, backoff.Step()) {
			return made, false
		}
	}
}

// lookUp reads the way to the cluster as it is now.
func lookUp(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("find the cluster: this is no pod with a service account; name a file in kubernetes.kubeconfig, or with --kubeconfig")
		}
		if err != nil {
			return nil, fmt.Errorf("find the cluster: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}

// credentials go with each request. After one that the cluster does not know
// them for, or that does not know the cluster, the next goes with those that
// are there then: a token was revoked, or an authority replaced.
type credentials struct {
	kubeconfig string

	mu  sync.Mutex
	way http.RoundTripper
}

func (c *credentials) RoundTrip(request *http.Request) (*http.Response, error) {
	c.mu.Lock()
	way := c.way
	c.mu.Unlock()
	response, err := way.RoundTrip(request)
	if err == nil && response.StatusCode == http.StatusUnauthorized || err != nil && reasonOf(err) == failCertificate {
		c.renew(way)
	}
	return response, err
}

// renew replaces a way that has failed. One that cannot be read stays: who asks
// again comes here again.
func (c *credentials) renew(failed http.RoundTripper) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.way != failed {
		return // another request was faster
	}
	config, err := lookUp(c.kubeconfig)
	if err != nil {
		return
	}
	if way, err := rest.TransportFor(config); err == nil {
		c.way = way
	}
}
