package node

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/watch"
)

// answerTimeout is how long the API server, or what stands before it, may say
// nothing at all to a list or to the start of a watch.
const answerTimeout = 10 * time.Second

// answeredWatch begins a watch, and gives up a server that takes the request and
// never answers: client-go would wait without end. Once begun, it lasts.
func answeredWatch(ctx context.Context, begin func(context.Context) (watch.Interface, error)) (watch.Interface, error) {
	within, cancel := context.WithCancel(ctx)
	patience := time.AfterFunc(answerTimeout, cancel)
	events, err := begin(within)
	switch late := !patience.Stop(); {
	case err == nil && !late:
		return &begunWatch{events, cancel}, nil
	case err == nil:
		events.Stop()
		fallthrough
	case late && ctx.Err() == nil:
		err = fmt.Errorf("no answer to a watch within %v: %w", answerTimeout, context.DeadlineExceeded)
	}
	cancel()
	return nil, err
}

// begunWatch ends its request when it is stopped.
type begunWatch struct {
	watch.Interface
	cancel context.CancelFunc
}

func (w *begunWatch) Stop() {
	w.Interface.Stop()
	w.cancel()
}
