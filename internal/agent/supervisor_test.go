package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func quiet() *Supervisor { return New(slog.New(slog.DiscardHandler)) }

// untilDone is a task that is ready at once and works until it is stopped.
func untilDone(name string, ended *[]string) Task {
	return Task{Name: name, Run: func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		*ended = append(*ended, name)
		return ctx.Err()
	}}
}

func TestDrainStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		s := quiet()
		for _, name := range []string{"telemetry", "readiness", "web"} {
			s.Start(untilDone(name, &ended))
		}
		synctest.Wait()
		if err := s.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"web", "readiness", "telemetry"}, ended); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFailingTaskIsRestartedAndHidesNoOther(t *testing.T) {
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.New("no such socket") },
		"a panic":  func() error { panic("no such socket") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended []string
				s := quiet()
				runs := 0
				s.Start(untilDone("good", &ended))
				s.Start(Task{Name: "bad", Run: func(ctx context.Context, ready func()) error {
					if runs++; runs < 4 {
						return fail()
					}
					ready()
					<-ctx.Done()
					return nil
				}})
				synctest.Wait()
				got := s.Status()
				if got[0].State != Ready || got[1].State != Failed || !strings.Contains(got[1].Err, "no such socket") {
					t.Fatalf("after the first failure: %+v", got)
				}
				time.Sleep(minPause + 2*minPause + 4*minPause)
				synctest.Wait()
				want := []Status{{Name: "good", State: Ready}, {Name: "bad", State: Ready, Restarts: 3}}
				if diff := cmp.Diff(want, s.Status()); diff != "" {
					t.Error(diff)
				}
				if err := s.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestPauseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := quiet()
		s.Start(Task{Name: "bad", Run: func(context.Context, func()) error { return errors.New("no") }})
		time.Sleep(time.Hour)
		synctest.Wait()
		if restarts := s.Status()[0].Restarts; restarts < 55 || restarts > 70 {
			t.Errorf("%d restarts in an hour, want about one a minute", restarts)
		}
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStartReplacesATaskAfterItHasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		s := quiet()
		s.Start(untilDone("telemetry", &order))
		synctest.Wait()
		s.Start(Task{Name: "telemetry", Run: func(ctx context.Context, ready func()) error {
			order = append(order, "new")
			ready()
			<-ctx.Done()
			return nil
		}})
		synctest.Wait()
		if diff := cmp.Diff([]string{"telemetry", "new"}, order); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]Status{{Name: "telemetry", State: Ready}}, s.Status()); diff != "" {
			t.Error(diff)
		}
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDrainNamesTheTaskThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		release := make(chan struct{})
		s := quiet()
		s.Start(untilDone("good", &ended))
		s.Start(Task{Name: "stuck", Run: func(context.Context, func()) error { <-release; return nil }})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Drain(ctx)
		if err == nil || err.Error() != "task stuck did not stop in time" {
			t.Errorf("got %v", err)
		}
		close(release)
		synctest.Wait()
		if diff := cmp.Diff([]string{"good"}, ended); diff != "" {
			t.Error(diff)
		}
	})
}
