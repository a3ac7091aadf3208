package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Limits of asking the cluster who may read a page.
const (
	reviewTimeout = 5 * time.Second
	// An answer holds for so long. Who lost a right keeps it for a minute at
	// most; who was given one waits ten seconds at most.
	allowedFor = time.Minute
	refusedFor = 10 * time.Second
	// maxAnswers bounds the answers that are remembered.
	maxAnswers = 1024
	maxToken   = 16 << 10
	// Reviews a second, and at once: a stranger with many tokens shall not
	// make the agent a burden to the API server.
	reviewRate  = 10
	reviewBurst = 20
)

// Access judges by the cluster's word who may read a page: a bearer token says
// who it is (TokenReview), and a rule for non-resource URLs says whether that
// one may get the page's path (SubjectAccessReview).
type Access struct {
	client rest.Interface
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	answers map[[sha256.Size]byte]answer
}

// answer is the status of a page for a token, and until when it holds.
type answer struct {
	status int
	why    string
	until  time.Time
}

// NewAccess asks nobody yet. The agent's credentials need the rights of the
// cluster role system:auth-delegator.
func NewAccess(config *rest.Config, log *slog.Logger) (*Access, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(authenticationv1.AddToScheme(scheme), authorizationv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("make a client for access reviews: %w", err)
	}
	config = rest.CopyConfig(config)
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.QPS, config.Burst = reviewRate, reviewBurst
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for access reviews: %w", err)
	}
	return &Access{client: client, log: log, now: time.Now, answers: make(map[[sha256.Size]byte]answer)}, nil
}

// Judge returns the status that a request is to be answered with, and why:
// 200 when it may pass, 401 without a valid token, 403 without the right, and
// 503 when the cluster cannot be asked and no answer of before holds.
func (a *Access) Judge(r *http.Request) (status int, why string) {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !found || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
		return http.StatusUnauthorized, "a bearer token of the cluster is needed"
	}
	key := sha256.Sum256([]byte(token + "\x00" + r.URL.Path))
	if known, found := a.remembered(key); found {
		return known.status, known.why
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	status, why, err := a.review(ctx, token, r.URL.Path)
	if err != nil {
		a.log.Warn("access to a page could not be reviewed", "path", r.URL.Path, "error", err)
		return http.StatusServiceUnavailable, "the cluster could not be asked whether you may see this"
	}
	a.remember(key, status, why)
	return status, why
}

// review asks the cluster.
func (a *Access) review(ctx context.Context, token, path string) (status int, why string, err error) {
	who := &authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"},
		Spec:     authenticationv1.TokenReviewSpec{Token: token},
	}
	if err := a.client.Post().AbsPath("/apis/authentication.k8s.io/v1/tokenreviews").Body(who).Do(ctx).Into(who); err != nil {
		return 0, "", fmt.Errorf("review the token: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, "the cluster does not know the token", nil
	}
	user := who.Status.User
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	may := &authorizationv1.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"},
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: "get"},
		},
	}
	if err := a.client.Post().AbsPath("/apis/authorization.k8s.io/v1/subjectaccessreviews").Body(may).Do(ctx).Into(may); err != nil {
		return 0, "", fmt.Errorf("review the right: %w", err)
	}
	if !may.Status.Allowed {
		return http.StatusForbidden, fmt.Sprintf("%s may not get %s; a cluster role with this non-resource URL would allow it", user.Username, path), nil
	}
	return http.StatusOK, "", nil
}

func (a *Access) remembered(key [sha256.Size]byte) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, found := a.answers[key]
	return known, found && a.now().Before(known.until)
}

func (a *Access) remember(key [sha256.Size]byte, status int, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if len(a.answers) >= maxAnswers {
		a.forget(now)
	}
	held := refusedFor
	if status == http.StatusOK {
		held = allowedFor
	}
	a.answers[key] = answer{status, why, now.Add(held)}
}

// forget makes room: first what does not hold any more, then refusals, which
// a stranger can have as many of as they like, then everything.
func (a *Access) forget(now time.Time) {
	for _, goes := range []func(answer) bool{
		func(known answer) bool { return !now.Before(known.until) },
		func(known answer) bool { return known.status != http.StatusOK },
		func(answer) bool { return true },
	} {
		for key, known := range a.answers {
			if goes(known) {
				delete(a.answers, key)
			}
		}
		if len(a.answers) < maxAnswers {
			return
		}
	}
}
