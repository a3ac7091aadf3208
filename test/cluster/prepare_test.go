package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
)

func newBatch(t *testing.T, names ...string) batch {
	t.Helper()
	b := batch{dir: filepath.Join(t.TempDir(), "key")}
	for _, name := range names {
		b.components = append(b.components, component{name, "tools", "example.org/" + name, tierAPI})
	}
	return b
}

// writeProgram is a compiler that takes no time.
func writeProgram(_ context.Context, _ batch, c component, out string) error {
	return os.WriteFile(out, []byte(c.pkg), 0o755)
}

func discard(string) {}

// unfinished lists what is in the folder beside whole binaries and the lock.
func unfinished(t *testing.T, b batch) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.dir, tempPattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestBuildMakesWhatIsMissing(t *testing.T) {
	b := newBatch(t, "etcd", "kube-apiserver")
	var built []string
	count := func(ctx context.Context, b batch, c component, out string) error {
		built = append(built, c.name)
		return writeProgram(ctx, b, c, out)
	}
	for range 2 {
		if err := b.build(t.Context(), count, discard); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(b.dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	if err := b.build(t.Context(), count, discard); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(built, " "), "etcd kube-apiserver etcd"; got != want {
		t.Errorf("built %s, want %s", got, want)
	}
	if missing := b.missing(); len(missing) > 0 {
		t.Errorf("missing after the build: %v", missing)
	}
}

func TestBuildThatFailsLeavesNothing(t *testing.T) {
	b := newBatch(t, "etcd")
	broken := errors.New("no such module")
	err := b.build(t.Context(), func(_ context.Context, _ batch, _ component, out string) error {
		return errors.Join(os.WriteFile(out, []byte("half"), 0o755), broken)
	}, discard)
	if !errors.Is(err, broken) {
		t.Errorf("got error %v, want %v", err, broken)
	}
	if len(b.missing()) != 1 || len(unfinished(t, b)) != 0 {
		t.Errorf("half a build was left: %v", unfinished(t, b))
	}
}

func TestBuildSweepsWhatAKilledOneLeft(t *testing.T) {
	b := newBatch(t, "etcd")
	stale := filepath.Join(b.dir, strings.ReplaceAll(tempPattern, "*", "1"))
	if err := os.MkdirAll(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.build(t.Context(), writeProgram, discard); err != nil {
		t.Fatal(err)
	}
	if left := unfinished(t, b); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBuildsAtOnceCompileOnce(t *testing.T) {
	b := newBatch(t, "etcd")
	var compiled atomic.Int32
	waiting := make(chan struct{})
	hold := func(ctx context.Context, b batch, c component, out string) error {
		compiled.Add(1)
		<-waiting // until the other build stands at the lock
		return writeProgram(ctx, b, c, out)
	}
	log := func(line string) {
		if strings.Contains(line, "another process") {
			close(waiting)
		}
	}
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if err := b.build(t.Context(), hold, log); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := compiled.Load(); n != 1 {
		t.Errorf("compiled %d times, want once", n)
	}
}

func TestLockStopsWaitingWhenCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, func() { t.Error("nobody holds the lock yet") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := lock(ctx, path, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock, err = lock(t.Context(), path, func() { t.Error("the lock is still held") })
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestEveryStops(t *testing.T) {
	calls := make(chan struct{})
	stop := every(time.Millisecond, func() {
		select {
		case calls <- struct{}{}:
		default:
		}
	})
	<-calls
	stop()
	select {
	case <-calls:
		t.Error("called after stop")
	default:
	}
}

func TestMissingSaysHowToPrepare(t *testing.T) {
	t.Setenv(hosttest.CacheEnv, t.TempDir())
	err := Missing()
	if err == nil {
		t.Fatal("nothing is missing from an empty cache")
	}
	for _, want := range []string{"etcd", "kube-apiserver", "go run ./test/bed cluster prepare"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %s", err, want)
		}
	}
	if _, err := Start(); err == nil {
		t.Error("a control plane started without binaries")
	}
}
