package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// A failed task is started again after a pause that doubles with each failure
// in a row; a task that ran for longer than maxPause starts afresh.
const (
	minPause = time.Second
	maxPause = time.Minute
)

// lastChance is what a drain that ran out of time leaves to the tasks that it
// had not come to yet.
const lastChance = time.Second

// Task is one long-running part of the agent.
type Task struct {
	Name string
	// Run works until ctx ends. It calls ready when it does its job; that may
	// be more than once. An error or a panic means: start me again later. To
	// return nil early means that there is nothing left to do.
	Run func(ctx context.Context, ready func()) error
}

// State is where a task is in its life.
type State string

// The states of a task.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Failed   State = "failed" // it will be started again
	Finished State = "finished"
)

// Status is a task as seen from outside.
type Status struct {
	Name     string
	State    State
	Err      string // of the last failure; empty once it is ready again
	Restarts int
}

// Supervisor runs tasks. The zero value is not usable; see [New].
type Supervisor struct {
	log *slog.Logger

	mu    sync.Mutex
	tasks []*running // in the order in which they were started
}

type running struct {
	task   Task
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	status Status
}

// New returns a supervisor that logs the failures of its tasks.
func New(log *slog.Logger) *Supervisor { return &Supervisor{log: log} }

// Start runs a task until [Supervisor.Drain]. A task of the same name is
// stopped first and waited for, and the new one takes its place.
func (s *Supervisor) Start(task Task) {
	ctx, cancel := context.WithCancel(context.Background())
	next := &running{task: task, cancel: cancel, done: make(chan struct{})}
	next.status = Status{Name: task.Name, State: Starting}

	s.mu.Lock()
	place := slices.IndexFunc(s.tasks, func(r *running) bool { return r.task.Name == task.Name })
	var previous *running
	if place >= 0 {
		previous = s.tasks[place]
		s.tasks[place] = next
	} else {
		s.tasks = append(s.tasks, next)
	}
	s.mu.Unlock()

	if previous != nil {
		previous.cancel()
		<-previous.done
	}
	go func() {
		defer close(next.done)
		s.keep(ctx, next)
	}()
}

// keep runs a task again and again until ctx ends or it finishes.
func (s *Supervisor) keep(ctx context.Context, r *running) {
	pause := minPause
	for {
		began := time.Now()
		err := r.runOnce(ctx)
		if ctx.Err() != nil || err == nil {
			r.set(Finished, nil)
			return
		}
		r.set(Failed, err)
		if time.Since(began) > maxPause {
			pause = minPause
		}
		s.log.Error("task failed", "task", r.task.Name, "error", err, "retryIn", pause)
		select {
		case <-ctx.Done():
			r.set(Finished, nil)
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
		r.restart()
	}
}

// runOnce turns a panic into an error, so that it stays with its task.
func (r *running) runOnce(ctx context.Context) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	return r.task.Run(ctx, func() { r.set(Ready, nil) })
}

func (r *running) set(state State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.State, r.status.Err = state, ""
	if err != nil {
		r.status.Err = err.Error()
	}
}

// restart keeps the last error in sight until the task is ready again.
func (r *running) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.State = Starting
	r.status.Restarts++
}

// Status lists the tasks in the order in which they were started.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	statuses := make([]Status, 0, len(s.tasks))
	for _, r := range s.tasks {
		r.mu.Lock()
		statuses = append(statuses, r.status)
		r.mu.Unlock()
	}
	return statuses
}

// Drain stops the tasks in reverse order, each after the one before it has
// ended, so that what serves stops before what it serves from. When ctx ends,
// the rest is stopped at once; a task that still goes on is named in the error.
func (s *Supervisor) Drain(ctx context.Context) error {
	s.mu.Lock()
	tasks := slices.Clone(s.tasks)
	s.mu.Unlock()
	slices.Reverse(tasks)
	for _, r := range tasks {
		r.cancel()
		select {
		case <-r.done:
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastChance)
	defer cancel()
	var stuck []error
	for _, r := range tasks {
		select {
		case <-r.done:
			continue
		case <-last.Done():
		}
		select {
		case <-r.done: // both were true
		default:
			stuck = append(stuck, fmt.Errorf("task %s did not stop in time", r.task.Name))
		}
	}
	return errors.Join(stuck...)
}
