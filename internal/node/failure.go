package node

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

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
