package cluster

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	const gomod, gosum, target, flags = "module m", "a h1:x=", "go1.26.0 linux/amd64", "-s -w"
	same := key(gomod, gosum, target, flags)
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(same) {
		t.Errorf("key %q does not make a folder name", same)
	}
	if again := key(gomod, gosum, target, flags); again != same {
		t.Errorf("the same build got the keys %s and %s", same, again)
	}
	for name, parts := range map[string][]string{
		"another go.mod":                  {gomod + "2", gosum, target, flags},
		"another go.sum":                  {gomod, gosum + "\nb h1:y=", target, flags},
		"another Go":                      {gomod, gosum, "go1.26.1 linux/amd64", flags},
		"other linker flags":              {gomod, gosum, target, ""},
		"text moved between go.mod, .sum": {gomod + "a", gosum[1:], target, flags},
	} {
		if key(parts...) == same {
			t.Errorf("%s got the same key", name)
		}
	}
}

func TestKubernetesVersion(t *testing.T) {
	for name, tc := range map[string]struct{ gomod, want string }{
		"in a block":           {"require (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)", "v1.36.3"},
		"in one line":          {"require k8s.io/kubernetes v1.37.0-rc.1\n", "v1.37.0-rc.1"},
		"not the tool":         {"tool k8s.io/kubernetes/cmd/kube-apiserver\n", ""},
		"not a staging module": {"require k8s.io/kubernetes-api v1.2.3\n", ""},
		"nothing":              {"", ""},
	} {
		got, err := kubernetesVersion(tc.gomod)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tc.want)
		}
	}
}

func TestLinkFlags(t *testing.T) {
	const want = "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=v1.36.3" +
		" -X k8s.io/component-base/version.gitMajor=1" +
		" -X k8s.io/component-base/version.gitMinor=36"
	if got := linkFlags("v1.36.3"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A package that go.mod does not name as a tool would lose its requirements
// with the next go mod tidy.
func TestComponentsAreTools(t *testing.T) {
	for _, c := range components() {
		gomod, err := os.ReadFile(filepath.Join(c.module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		isTool := func(line string) bool { return strings.TrimPrefix(strings.TrimSpace(line), "tool ") == c.pkg }
		if !slices.ContainsFunc(strings.Split(string(gomod), "\n"), isTool) {
			t.Errorf("%s/go.mod has no tool %s", c.module, c.pkg)
		}
	}
}
