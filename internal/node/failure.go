package node

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Why the cluster does not take, or give, what the agent wants. The words are
// those of the metrics.
const (
	failConfig       = "BadConfig"
	failUnreachable  = "Unreachable"
	failTimeout      = "Timeout"
	failCertificate  = "BadCertificate"
	failUnauthorized = "Unauthorized"
	failForbidden    = "Forbidden"
	failDenied       = "AdmissionDenied"
	failNoKind       = "NoSuchKind"
	failNoNode       = "NoSuchNode"
	failConflict     = "Conflict"
	failThrottled    = "Throttled"
	failOther        = "Other"
)

// reasons lists them all, so that each has a series from the start.
func reasons() []string {
	return []string{
		failConfig, failUnreachable, failTimeout, failCertificate, failUnauthorized, failForbidden, failDenied,
		failNoKind, failNoNode, failConflict, failThrottled, failOther,
	}
}

// failure is an error with its reason.
type failure struct {
	reason string
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failures are those of the parts of one work with the cluster: which fail now,
// and how often each reason was met.
type failures struct {
	fails, works string // what the log says
	log          *slog.Logger
	changed      func() // is told when a failure begins or ends

	mu    sync.Mutex
	now   map[string]*failure // by part
	count map[string]uint64   // by reason
}

func newFailures(fails, works string, log *slog.Logger, changed func()) *failures {
	f := &failures{fails: fails, works: works, log: log, changed: changed, now: make(map[string]*failure), count: make(map[string]uint64)}
	for _, reason := range reasons() {
		f.count[reason] = 0
	}
	return f
}

// note counts a failure of a part, and logs it when it is another one than
// before. Without an error, the part works.
func (f *failures) note(part string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.now[part]
	if err == nil {
		if before != nil {
			delete(f.now, part)
			f.log.Info(f.works, "part", part, "was", before.reason)
			f.changed()
		}
		return
	}
	reason := reasonOf(err)
	f.count[reason]++
	if before != nil && before.reason == reason {
		return
	}
	f.now[part] = &failure{reason, err}
	f.log.Warn(f.fails, "part", part, "reason", reason, "error", err, "fix", remedyFor(reason))
	f.changed()
}

// counts returns how often each reason was met.
func (f *failures) counts() map[string]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.count)
}

// first returns why a part fails, as it was when it began to; nil: none does.
func (f *failures) first() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, part := range slices.Sorted(maps.Keys(f.now)) {
		return f.now[part]
	}
	return nil
}

// reasonOf sorts an error of a request.
func reasonOf(err error) string {
	var known *failure
	var network net.Error
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.As(err, &invalid), errors.As(err, &authority), errors.As(err, &hostname):
		return failCertificate
	case apierrors.IsUnauthorized(err):
		return failUnauthorized
	case strings.Contains(err.Error(), "denied request"): // what policies and webhooks of admission answer
		return failDenied
	case apierrors.IsForbidden(err):
		return failForbidden
	case apierrors.IsConflict(err):
		return failConflict
	case apierrors.IsNotFound(err):
		return failNoKind // the objects themselves are known to be there, or not
	case apierrors.IsTooManyRequests(err):
		return failThrottled
	case apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return failTimeout
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), apierrors.IsServiceUnavailable(err):
		return failUnreachable
	default:
		return failOther
	}
}

// remedyFor is what a person can do.
func remedyFor(reason string) string {
	switch reason {
	case failConfig:
		return "correct kubernetes.kubeconfig, or give the pod a service account"
	case failCertificate:
		return "if the certificate is said to have expired, or not to be valid yet, look at the clock of this host first; else at the cluster's certificate authority in the kubeconfig"
	case failUnauthorized:
		return "the token was revoked or has expired: give the agent a new one; in a pod, the kubelet does"
	case failForbidden:
		return "give the agent its cluster role: deploy/daemonset/base/rbac.yaml"
	case failDenied:
		return "an admission policy refuses the write: the agent's token must be bound to its pod, and NODE_NAME be the pod's node"
	case failNoKind:
		return "install the CustomResourceDefinitions: deploy/daemonset/base/crds; labels and conditions are published without them"
	case failNoNode:
		return "NODE_NAME must be the Node's name"
	default:
		return "it is tried again by itself"
	}
}
