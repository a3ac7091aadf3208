package node

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"
)

// apiServer knows tokens NAME, and lets ada get /metrics.
type apiServer struct {
	mu      sync.Mutex
	down    bool
	reviews int
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reviews++
	if s.down {
		http.Error(w, "overloaded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/apis/authentication.k8s.io/v1/tokenreviews":
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		name, good := strings.CutPrefix(review.Spec.Token, "token-of-")
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: good, User: authenticationv1.UserInfo{Username: name, Groups: []string{"people"}}}
		_ = json.NewEncoder(w).Encode(review)
	case "/apis/authorization.k8s.io/v1/subjectaccessreviews":
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		asked := review.Spec.NonResourceAttributes
		review.Status.Allowed = review.Spec.User == "ada" && len(review.Spec.Groups) == 1 && asked.Path == "/metrics" && asked.Verb == "get"
		_ = json.NewEncoder(w).Encode(review)
	default:
		http.NotFound(w, r)
	}
}

func (s *apiServer) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *apiServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reviews
}

func newAccess(t *testing.T) (*Access, *apiServer, func(time.Duration)) {
	t.Helper()
	api := new(apiServer)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	access, err := NewAccess(&rest.Config{Host: server.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	access.now = func() time.Time { return now }
	return access, api, func(d time.Duration) { now = now.Add(d) }
}

func judge(access *Access, path, header string) int {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	if header != "" {
		request.Header.Set("Authorization", header)
	}
	status, _ := access.Judge(request)
	return status
}

func TestAccess(t *testing.T) {
	access, api, _ := newAccess(t)
	for _, test := range []struct {
		path, header string
		want         int
	}{
		{"/metrics", "Bearer token-of-ada", 200},
		{"/metrics", "bearer  token-of-ada", 200},
		{"/report", "Bearer token-of-ada", 403},
		{"/metrics", "Bearer token-of-eve", 403},
		{"/metrics", "Bearer stolen", 401},
		{"/metrics", "Basic YTpi", 401},
		{"/metrics", "Bearer ", 401},
		{"/metrics", "Bearer", 401},
		{"/metrics", "", 401},
		{"/metrics", "Bearer token-of-" + strings.Repeat("x", maxToken), 401},
	} {
		if got := judge(access, test.path, test.header); got != test.want {
			t.Errorf("%s with %.40q: %d, want %d", test.path, test.header, got, test.want)
		}
	}
	if api.asked() != 7 {
		t.Errorf("%d reviews, want 7: two for each token and path, one for a bad token, none for what is remembered", api.asked())
	}
}

func TestAnswersHoldForATime(t *testing.T) {
	access, api, pass := newAccess(t)
	const ada, eve = "Bearer token-of-ada", "Bearer token-of-eve"
	if judge(access, "/metrics", ada) != 200 || judge(access, "/metrics", eve) != 403 {
		t.Fatal("the fake is wrong")
	}
	api.set(true)
	pass(refusedFor)
	if got := judge(access, "/metrics", ada); got != 200 {
		t.Errorf("an allowed one, after %v with a server that is down: %d", refusedFor, got)
	}
	if got := judge(access, "/metrics", eve); got != 503 {
		t.Errorf("a refused one: %d", got)
	}
	pass(allowedFor - refusedFor)
	if got := judge(access, "/metrics", ada); got != 503 {
		t.Errorf("an allowed one after %v: %d", allowedFor, got)
	}
	api.set(false)
	if got := judge(access, "/metrics", ada); got != 200 {
		t.Errorf("once the server is back: %d", got)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	access, _, pass := newAccess(t)
	key := func(i int) (k [32]byte) { copy(k[:], strconv.Itoa(i)); return k }
	access.remember(key(-1), http.StatusOK, "")
	for i := range 3 * maxAnswers {
		access.remember(key(i), http.StatusUnauthorized, "")
		if len(access.answers) > maxAnswers {
			t.Fatalf("%d answers", len(access.answers))
		}
	}
	if _, found := access.remembered(key(-1)); !found {
		t.Error("a stranger's tokens drove out who is allowed")
	}
	pass(allowedFor)
	for i := range maxAnswers {
		access.remember(key(-2-i), http.StatusOK, "")
	}
	access.remember(key(0), http.StatusOK, "")
	if len(access.answers) > maxAnswers {
		t.Errorf("%d answers", len(access.answers))
	}
}

func TestConfigSaysWhatIsMissing(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for file, want := range map[string]string{
		"":                                    "find the cluster: this is no pod with a service account; name a file in kubernetes.kubeconfig, or with --kubeconfig",
		filepath.Join(t.TempDir(), "missing"): "no such file",
	} {
		if _, err := Config(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", file, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n" +
		"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := Config(file)
	if err != nil || config.Host != "https://127.0.0.1:1" {
		t.Errorf("%+v, %v", config, err)
	}
}
