package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// key names a build by everything that decides its result. Each part is
// hashed with its length: bytes that move from one part to the next change
// the key.
func key(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		// A hash never returns an error.
		_, _ = fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// kubernetesVersion returns the version of k8s.io/kubernetes that a go.mod
// requires.
func kubernetesVersion(gomod string) (string, error) {
	require := regexp.MustCompile(`(?m)^\s*(?:require\s+)?k8s\.io/kubernetes\s+(v\d+\.\d+\.\d+\S*)`)
	found := require.FindStringSubmatch(gomod)
	if found == nil {
		return "", errors.New("find k8s.io/kubernetes in go.mod: no such requirement")
	}
	return found[1], nil
}

// linkFlags makes the binaries small and lets them report their version:
// a Kubernetes binary does not learn it from its module.
func linkFlags(version string) string {
	numbers := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	const base = " -X k8s.io/component-base/version."
	return "-s -w" +
		base + "gitVersion=" + version +
		base + "gitMajor=" + numbers[0] +
		base + "gitMinor=" + numbers[1]
}
