package cluster_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// pass lets minutes go by in which the agent looks at its host, and waits for
// nothing.
func (s *simulated) pass(minutes int, report kvmcheck.Report) {
	for range minutes {
		s.mu.Lock()
		s.now = s.now.Add(time.Minute)
		report.Time = s.now
		s.mu.Unlock()
		s.Observe(node.Look{Report: report})
	}
}

// TestAnHourWithoutTheAPIServer kills the server, lets an hour of looks
// pass in which the host loses its KVM and comes back as a larger one, and
// starts the server again on the same store.
func TestAnHourWithoutTheAPIServer(t *testing.T) {
	own := startOwn(t)
	config := own.Config()
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	installAgents(t, config)
	p, way := newPublished(t, config, "outage")
	good, bad := machines(t)
	facts := hosttest.Replay(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-numa-sriov.tar.gz"))
	larger := kvmcheck.NewReport(facts, kvmcheck.Profile{}, "v1.2.4", hosttest.Time())
	agent := newAgent(t, way, p.name)
	agent.look(t, 0, good)
	agent.settled(t)
	agent.look(t, time.Minute, good) // what was under way has ended
	writes := len(agent.wire.wrote())

	if err := own.KillServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	agent.pass(25, bad)
	within(t, "a write has failed", func() bool { state := agent.State(); return !state.Up && state.Errors["Unreachable"] > 3 })
	agent.pass(35, larger)
	if said := agent.log.count("publishing to the cluster fails"); said == 0 || said > 3 {
		t.Errorf("the outage was logged %d times:\n%s", said, agent.log)
	}
	if err := own.StartServer(); err != nil {
		t.Fatal(err)
	}
	within(t, "the last truth is published", func() bool {
		return p.ours()["virtnode.io/numa.nodes"] == "2" && p.object().Status.Agent == "v1.2.4" && agent.State().Up
	})
	// Each thing is written once, and nothing that was true only in between.
	made := agent.wire.wrote()[writes:]
	if len(made) > 3 {
		t.Errorf("%d writes, want labels, conditions and a status at most: %v", len(made), made)
	}
	for _, said := range made {
		if strings.Contains(said, "ModuleNotLoaded") || strings.Contains(said, `"virtnode.io/kvm":"false"`) {
			t.Errorf("what was true within the hour was written: %s", said)
		}
	}
}

// TestWhatIsMissingCostsOnlyItself has a cluster without the kind of the
// agent's object, and an agent without a Node.
func TestWhatIsMissingCostsOnlyItself(t *testing.T) {
	config := startOwn(t).Config()
	clients := kubernetes.NewForConfigOrDie(config)
	good, bad := machines(t)

	makeNode(t, clients, "nokind")
	p := &published{t, clients, newObjects(t, config), "nokind"}
	agent := newAgent(t, config, "nokind")
	agent.look(t, 0, good)
	within(t, "labels and conditions are there", func() bool {
		return p.ours()["virtnode.io/kvm"] == "true" && p.condition().Status == corev1.ConditionTrue
	})
	state := agent.State()
	if state.Up || state.Errors["NoSuchKind"] == 0 || agent.log.count("install the CustomResourceDefinitions") != 1 {
		t.Errorf("%+v\n%s", state, agent.log)
	}
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	within(t, "the object follows", func() bool { return agent.State().Up })
	if verdict := p.object().Status.Verdict; verdict != "Ready" {
		t.Errorf("verdict %s", verdict)
	}

	lost := newAgent(t, config, "no-such-node")
	lost.Observe(node.Look{Report: bad})
	within(t, "a missing Node is said", func() bool { return lost.log.count("NODE_NAME must be the Node's name") == 1 })
	makeNode(t, clients, "no-such-node")
	within(t, "it is found when it comes", func() bool { return lost.State().Up })
}

// TestRefusalsAreSaidOnce has agents that the API server does not know, or
// does not let.
func TestRefusalsAreSaidOnce(t *testing.T) {
	p, way := newPublished(t, withAgents(t), "refused")
	good, _ := machines(t)
	unbound := as(plane.Config(t), agentToken(t, p.clients, ""))
	stranger := as(plane.Config(t), account(t, p.clients, "publish-stranger"))
	for name, test := range map[string]struct {
		config *rest.Config
		reason string
	}{
		"a token that is none":             {as(way, "made-up"), "Unauthorized"},
		"an account without rights":        {stranger, "Forbidden"},
		"a token that is bound to no pod":  {unbound, "AdmissionDenied"},
		"an authority that is not trusted": {&rest.Config{Host: way.Host, BearerToken: way.BearerToken}, "BadCertificate"},
		"nobody there":                     {&rest.Config{Host: "https://127.0.0.1:1"}, "Unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			agent := newAgent(t, test.config, p.name)
			agent.Observe(node.Look{Report: good})
			within(t, "it is tried again", func() bool { return agent.State().Errors[test.reason] > 3 })
			if said := agent.log.count("reason=" + test.reason); said == 0 || said > 4 || agent.State().Up {
				t.Errorf("logged %d times:\n%s", said, agent.log)
			}
		})
	}
	if labels := p.ours(); len(labels) != 0 {
		t.Errorf("somebody wrote %v", labels)
	}
}

// keepsTrying waits until the agent has met a failure again and again, and holds what
// it has said of it against what a person would read. Then the cause goes.
func (s *simulated) keepsTrying(t *testing.T, reason, fix string) {
	t.Helper()
	within(t, "it is tried again", func() bool { state := s.State(); return !state.Up && state.Errors[reason] > 2 })
	if said := s.log.count("reason=" + reason); said == 0 || said > 4 || s.log.count(fix) == 0 {
		t.Errorf("logged %d times:\n%s", said, s.log)
	}
}

// TestAPolicyThatDenies is somebody's, and goes again.
func TestAPolicyThatDenies(t *testing.T) {
	p, way := newPublished(t, withAgents(t), "denied")
	good, _ := machines(t)
	agent := newAgent(t, way, p.name)
	agent.look(t, 0, good)
	agent.settled(t)
	update := admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.Update},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"nodes"}},
	}
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "somebody-denies"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: update}}},
			MatchConditions:  []admissionv1.MatchCondition{{Name: "it", Expression: "object.metadata.name == 'denied' && request.userInfo.username.endsWith(':nodeagent')"}},
			Validations:      []admissionv1.Validation{{Expression: "false", Message: "no labels today"}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: policy.ObjectMeta,
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}
	for _, object := range []client.Object{policy, binding} {
		if err := p.objects.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.objects.Delete(context.Background(), object) })
	}
	token := kubernetes.NewForConfigOrDie(way)
	within(t, "the policy is in force", func() bool {
		return apierrors.IsInvalid(patch(t, token, attempt{"/api/v1/nodes/denied", mergePatch, `{"metadata":{"labels":{"virtnode.io/kvm":"x"}}}`, ""}))
	})
	p.edit(`{"metadata":{"labels":{"virtnode.io/kvm":null}}}`)
	agent.keepsTrying(t, "AdmissionDenied", "no labels today")
	if err := p.objects.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	within(t, "the label is back", func() bool { return p.ours()["virtnode.io/kvm"] == "true" && agent.State().Up })
}

// TestAClockThatIsWrong has hosts to whom the API server's certificate is not
// valid yet, or no more.
func TestAClockThatIsWrong(t *testing.T) {
	config := withAgents(t)
	good, _ := machines(t)
	for name, wrong := range map[string]time.Duration{"behind": -20 * 365 * 24 * time.Hour, "ahead": 20 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			p, way := newPublished(t, config, "clock-"+name)
			trust, err := rest.TLSConfigFor(way)
			if err != nil {
				t.Fatal(err)
			}
			var skew atomic.Int64
			skew.Store(int64(wrong))
			trust.Time = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
			agent := newAgent(t, &rest.Config{
				Host: way.Host, BearerToken: way.BearerToken,
				Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true},
			}, p.name)
			agent.Observe(node.Look{Report: good})
			agent.keepsTrying(t, "BadCertificate", "look at the clock of this host")
			skew.Store(0)
			within(t, "all is well once the clock is set", func() bool { return p.ours()["virtnode.io/kvm"] == "true" && agent.State().Up })
		})
	}
}
