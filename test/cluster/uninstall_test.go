package cluster_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// TestUninstallLeavesNothing runs the program against a cluster of its own, in
// which one agent has gone without a word, and one node has lost its owners.
func TestUninstallLeavesNothing(t *testing.T) {
	own := startOwn(t)
	config := own.Config()
	clients := kubernetes.NewForConfigOrDie(config)
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	good, _ := machines(t)
	all := make(map[string]*published)
	for _, name := range []string{"one", "two", "three"} {
		makeNode(t, clients, name)
		all[name] = &published{t, clients, newObjects(t, config), name}
		agent := newAgent(t, config, name)
		agent.look(t, 0, good)
		agent.settled(t)
		agent.stop()
	}
	others := applycorev1.Node("two").WithLabels(map[string]string{"virtnode.io/of-somebody": "true", "virtnode.io/kvm": "true"})
	if _, err := clients.CoreV1().Nodes().Apply(t.Context(), others, metav1.ApplyOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	all["three"].edit(`{"metadata":{"managedFields":[{}]}}`)
	objects := newObjects(t, config)
	makePolicies(t, objects)

	host := t.TempDir()
	keep(t, host, node.FeaturesOnly, node.Look{Report: good})
	binary := hosttest.BuildAgent(t)
	uninstall := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(binary, append([]string{"uninstall", "--kubeconfig", own.Kubeconfig(), "--root", host, "--nfd-directory", "/"}, args...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, os.Environ()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		return out.String()
	}
	kept := all["two"].ours()
	if out := uninstall("--node", "one"); !strings.Contains(out, "node one: label virtnode.io/kvm\n") || !strings.Contains(out, "nodevirtualization one\n") || strings.Contains(out, "two") || strings.Contains(out, "hostnetwork") || strings.Contains(out, "this host") {
		t.Errorf("of one node:\n%s", out)
	}
	if diff := cmp.Diff(kept, all["two"].ours()); diff != "" {
		t.Errorf("of another node: %s", diff)
	}
	kind := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "hostnetworks.virtnode.io"}}}
	if err := objects.Delete(t.Context(), kind.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	if out := uninstall(); !strings.Contains(out, "hostnetwork ours: finalizer virtnode.io/restore\n") || !strings.Contains(out, "this host: /virtnode\n") {
		t.Errorf("of the whole cluster:\n%s", out)
	}
	within(t, "what only our finalizer kept is gone", func() bool {
		return apierrors.IsNotFound(objects.Get(t.Context(), client.ObjectKey{Name: "ours"}, new(v1alpha1.HostNetwork)))
	})
	theirs := finalizersOf(t, objects, "theirs")
	if diff := cmp.Diff([]string{"example.org/first", "example.org/last"}, theirs); diff != "" {
		t.Errorf("finalizers of others: %s", diff)
	}
	setFinalizers(t, objects, "theirs")
	within(t, "the kind is gone", func() bool {
		return apierrors.IsNotFound(objects.Get(t.Context(), client.ObjectKeyFromObject(kind), kind))
	})
	if out := uninstall(); out != "" {
		t.Errorf("the second time it removed\n%s", out)
	}
	for name, p := range all {
		want := map[string]string{}
		if name == "two" {
			want = map[string]string{"virtnode.io/of-somebody": "true", "virtnode.io/kvm": "true"}
		}
		if diff := cmp.Diff(want, p.ours()); diff != "" || p.condition().Status != "" {
			t.Errorf("%s: condition %v, labels %s", name, p.condition(), diff)
		}
		found := p.node()
		if found.Labels["example.org/rack"] != "7" || len(found.Status.Conditions) != 1 {
			t.Errorf("%s lost what is not the agent's: %v, %v", name, slices.Collect(maps.Keys(found.Labels)), found.Status.Conditions)
		}
		for _, entry := range found.ManagedFields {
			if entry.Manager == node.Manager {
				t.Errorf("%s: still owns %s", name, entry.FieldsV1)
			}
		}
	}
}

// makePolicies makes two HostNetworks: one that the agent's finalizer alone
// keeps, and one that others keep too.
func makePolicies(t *testing.T, objects client.Client) {
	t.Helper()
	for name, finalizers := range map[string][]string{
		"ours":   {v1alpha1.RestoreFinalizer},
		"theirs": {"example.org/first", v1alpha1.RestoreFinalizer, "example.org/last"},
	} {
		err := objects.Create(t.Context(), &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}})
		if apierrors.IsAlreadyExists(err) {
			setFinalizers(t, objects, name, finalizers...)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func setFinalizers(t *testing.T, objects client.Client, name string, finalizers ...string) {
	t.Helper()
	policy := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}}
	before := policy.DeepCopy()
	before.Finalizers = []string{"another list"}
	policy.Finalizers = finalizers
	if err := objects.Patch(t.Context(), policy, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

func finalizersOf(t *testing.T, objects client.Client, name string) []string {
	t.Helper()
	var policy v1alpha1.HostNetwork
	if err := objects.Get(t.Context(), client.ObjectKey{Name: name}, &policy); err != nil {
		t.Fatal(err)
	}
	return policy.Finalizers
}

// hookRules are the rights that the chart gives its hook.
func hookRules(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(hosttest.Root(), "deploy", "helm", "nodeagent", "templates", "uninstall.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		_, rules, found := strings.Cut(document, "\nrules:\n")
		if !found {
			continue
		}
		var role rbacv1.ClusterRole
		if err := yaml.UnmarshalStrict([]byte("rules:\n"+rules), &role); err != nil || len(role.Rules) == 0 {
			t.Fatalf("rules %v, %v", role.Rules, err)
		}
		return role.Rules
	}
	t.Fatal("the chart's hook has no rules")
	return nil
}

// without returns rules that lack a verb of one of them.
func without(rules []rbacv1.PolicyRule, at int, verb string) []rbacv1.PolicyRule {
	fewer := slices.Clone(rules)
	fewer[at].Verbs = slices.DeleteFunc(slices.Clone(fewer[at].Verbs), func(v string) bool { return v == verb })
	return slices.DeleteFunc(fewer, func(r rbacv1.PolicyRule) bool { return len(r.Verbs) == 0 })
}

// uninstallWith runs uninstall with these rights and no others, on a cluster in
// which there is everything to remove.
func uninstallWith(t *testing.T, config *rest.Config, name string, rules []rbacv1.PolicyRule) (lines []string, err error) {
	t.Helper()
	admin, objects := kubernetes.NewForConfigOrDie(config), newObjects(t, config)
	written := metav1.ApplyOptions{FieldManager: node.Manager, Force: true}
	label := applycorev1.Node("hook").WithLabels(map[string]string{"virtnode.io/kvm": "true"})
	if _, err := admin.CoreV1().Nodes().Apply(t.Context(), label, written); err != nil {
		t.Fatal(err)
	}
	condition := applycorev1.Node("hook").WithStatus(applycorev1.NodeStatus().WithConditions(applycorev1.NodeCondition().WithType(node.VirtualizationReady).WithStatus("True")))
	if _, err := admin.CoreV1().Nodes().ApplyStatus(t.Context(), condition, written); err != nil {
		t.Fatal(err)
	}
	if err := objects.Create(t.Context(), &v1alpha1.NodeVirtualization{ObjectMeta: metav1.ObjectMeta{Name: "hook"}}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	makePolicies(t, objects)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hook := as(config, account(t, admin, name, name))
	within(t, "the rights are in force", func() bool { return may(t, hook, rules) })
	err = node.Uninstall(t.Context(), hook, "", func(line string) { lines = append(lines, line) })
	return lines, err
}

// may reports whether all rules hold for who asks.
func may(t *testing.T, config *rest.Config, rules []rbacv1.PolicyRule) bool {
	t.Helper()
	reviews := kubernetes.NewForConfigOrDie(config).AuthorizationV1().SelfSubjectAccessReviews()
	for _, rule := range rules {
		resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
		for _, verb := range rule.Verbs {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: rule.APIGroups[0], Resource: resource, Subresource: subresource, Verb: verb,
			}}}
			answer, err := reviews.Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil || !answer.Status.Allowed {
				return false
			}
		}
	}
	return true
}

// TestTheHookMayDoWhatItMustAndNoMore takes each right from the chart's hook:
// uninstall needs them all, and says which one is missing.
func TestTheHookMayDoWhatItMustAndNoMore(t *testing.T) {
	config := startOwn(t).Config()
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	makeNode(t, kubernetes.NewForConfigOrDie(config), "hook")
	rules := hookRules(t)
	for at, rule := range rules {
		if len(rule.Resources) != 1 || len(rule.APIGroups) != 1 || slices.Contains(rule.Verbs, "*") {
			t.Fatalf("rule %v: want one resource a rule, and verbs by name", rule)
		}
		for i, verb := range rule.Verbs {
			_, err := uninstallWith(t, config, fmt.Sprintf("hook-%d-%d", at, i), without(rules, at, verb))
			if want := fmt.Sprintf("cannot %s resource %q", verb, rule.Resources[0]); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), " cannot ") != strings.Count(err.Error(), want) {
				t.Errorf("without %s of %s: %v", verb, rule.Resources[0], err)
			}
		}
	}
	lines, err := uninstallWith(t, config, "hook", rules)
	if err != nil {
		t.Error(err)
	}
	want := []string{
		"hostnetwork ours: finalizer virtnode.io/restore", "hostnetwork theirs: finalizer virtnode.io/restore",
		"node hook: condition VirtualizationReady", "node hook: label virtnode.io/kvm", "nodevirtualization hook",
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(lines))); diff != "" {
		t.Error(diff)
	}
}
