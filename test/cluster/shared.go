package cluster

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// New starts a control plane for one test, which ends with it. Tests that can
// live side by side take a Shared one: every start costs seconds.
func New(t testing.TB) *rest.Config {
	t.Helper()
	hosttest.Need(t, hosttest.Cluster, Missing())
	p, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p.Config()
}

// Shared is one control plane for all tests of a package, started by the
// first test that asks:
//
//	var plane cluster.Shared
//
//	func TestMain(m *testing.M) { os.Exit(plane.Run(m)) }
//
//	func TestNode(t *testing.T) { client := kubernetes.NewForConfigOrDie(plane.Config(t)) … }
//
// The zero value is ready for use.
type Shared struct {
	once  sync.Once
	plane *ControlPlane
	err   error
}

// Config returns the connection of an administrator. It skips or fails the
// test when the tier is not prepared.
func (s *Shared) Config(t testing.TB) *rest.Config {
	t.Helper()
	hosttest.Need(t, hosttest.Cluster, Missing())
	s.once.Do(func() { s.plane, s.err = Start() })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.plane.Config()
}

// Run runs the tests, then stops the control plane, and returns the exit code.
func (s *Shared) Run(m *testing.M) int {
	code := m.Run()
	if s.plane == nil {
		return code
	}
	if err := s.plane.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}
