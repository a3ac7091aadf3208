package cluster_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/test/cluster"
)

// account makes a service account, gives it cluster roles, and returns a token.
func account(t *testing.T, client kubernetes.Interface, name string, roles ...string) string {
	t.Helper()
	const namespace = "default"
	if _, err := client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: namespace}},
		}
		if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	request, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// guardedServer is the agent's web server, asking the cluster as a service
// account of that name and roles.
func guardedServer(t *testing.T, way *rest.Config) *httptest.Server {
	t.Helper()
	access, err := node.NewAccess(way, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := metrics.NewServer(metrics.Options{Report: func() (any, error) { return "report", nil }})
	server.SetAccess(access.Judge)
	served := httptest.NewServer(server.Handler())
	t.Cleanup(served.Close)
	return served
}

func status(t *testing.T, url, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}

// as is a way to the API server with a token in place of the administrator's
// certificate.
func as(way *rest.Config, token string) *rest.Config {
	way = rest.AnonymousClientConfig(way)
	way.BearerToken = token
	return way
}

// scrapers makes one who may get /metrics, one who may not, and an agent that
// may ask about both. The authorizer learns of bindings within moments: the
// first is let in when this returns.
func scrapers(t *testing.T, way *rest.Config) (server *httptest.Server, prometheus, stranger string) {
	t.Helper()
	client, err := kubernetes.NewForConfig(way)
	if err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "scrape"},
		Rules:      []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
	}
	if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	prometheus, stranger = account(t, client, "prometheus", "scrape"), account(t, client, "stranger")
	agent := as(way, account(t, client, "agent", "system:auth-delegator"))
	tick, deadline := time.NewTicker(100*time.Millisecond), time.NewTimer(time.Minute)
	defer tick.Stop()
	defer deadline.Stop()
	for {
		// A new one each time: an answer of before is remembered.
		server = guardedServer(t, agent)
		if status(t, server.URL+"/metrics", prometheus) == http.StatusOK {
			return server, prometheus, stranger
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("the API server never let anybody in")
		}
	}
}

// TestTheClusterSaysWhoMayScrape goes through a real API server, by the rights
// that an agent and a Prometheus would have.
func TestTheClusterSaysWhoMayScrape(t *testing.T) {
	server, prometheus, stranger := scrapers(t, plane.Config(t))
	for _, test := range []struct {
		name, path, token string
		want              int
	}{
		{"who is allowed", "/metrics", prometheus, 200},
		{"who is allowed, another page", "/report", prometheus, 403},
		{"who is known and not allowed", "/metrics", stranger, 403},
		{"a made-up token", "/metrics", "made-up", 401},
		{"no token", "/metrics", "", 401},
		{"no token for a probe", "/healthz", "", 200},
		{"no token for the other probe", "/readyz", "", 200},
	} {
		if got := status(t, server.URL+test.path, test.token); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	// An agent that lacks the right to ask cannot let anybody in.
	if got := status(t, guardedServer(t, as(plane.Config(t), stranger)).URL+"/metrics", prometheus); got != 503 {
		t.Errorf("an agent without the right to ask: %d, want 503", got)
	}
}

// TestAnAPIServerThatGoesAway has one of its own, which it stops.
func TestAnAPIServerThatGoesAway(t *testing.T) {
	plane.Config(t) // ends the test when the tier cannot run
	own, err := cluster.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop() })
	server, prometheus, stranger := scrapers(t, own.Config())
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := status(t, server.URL+"/metrics", prometheus); got != 200 {
		t.Errorf("a remembered answer, without a server: %d, want 200", got)
	}
	if got := status(t, server.URL+"/metrics", stranger); got != 503 {
		t.Errorf("somebody new, without a server: %d, want 503", got)
	}
}
