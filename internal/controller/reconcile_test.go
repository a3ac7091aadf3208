package controller

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// lister is an empty cluster that counts how often its policies are listed.
type lister struct {
	client.Client
	looks int
	fails error
}

func (l *lister) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if _, is := list.(*v1alpha1.HostNetworkList); is {
		l.looks++
	}
	return l.fails
}

// TestALookLetsTheCacheBeTold looks again at once: the cache may not know yet
// what was written, and it would be written again.
func TestALookLetsTheCacheBeTold(t *testing.T) {
	now, cluster := time.Now(), &lister{}
	w := &whole{client: cluster, live: cluster, now: func() time.Time { return now }, pause: settle, log: slog.New(slog.DiscardHandler)}
	look := func(what string, looks int, after time.Duration) {
		t.Helper()
		result, err := w.Reconcile(t.Context(), reconcile.Request{})
		if !errors.Is(err, cluster.fails) || cluster.looks != looks || result.RequeueAfter != after {
			t.Errorf("%s: %d looks and again after %v, %v; want %d, %v, %v", what, cluster.looks, result.RequeueAfter, err, looks, after, cluster.fails)
		}
	}
	look("the first time", 1, resync)
	look("at once", 1, settle)
	now = now.Add(settle - time.Millisecond)
	look("a bit early", 1, time.Millisecond)
	now = now.Add(time.Millisecond)
	look("after the pause", 2, resync)
	now, cluster.fails = now.Add(settle), errors.New("no cluster")
	look("when it fails", 3, 0)
	look("after that the queue decides", 4, 0)
}
