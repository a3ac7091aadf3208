package node

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// TestSamplesNameWhatThereIs reads the samples for the agent's neighbours, and
// finds their labels and conditions among those that are published.
func TestSamplesNameWhatThereIs(t *testing.T) {
	for _, name := range []string{"argocd", "audit-policy", "flux", "node-readiness-rule", "virtual-machine"} {
		text, err := os.ReadFile(filepath.Join(hosttest.Root(), "deploy", "samples", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var object struct {
				APIVersion string `json:"apiVersion"`
				Kind       string `json:"kind"`
			}
			if err := yaml.Unmarshal([]byte(document), &object); err != nil || object.APIVersion == "" || object.Kind == "" {
				t.Errorf("%s: %+v, %v", name, object, err)
			}
		}
		for _, match := range regexp.MustCompile(`(?m)^\s*(virtnode\.io/[a-zA-Z0-9.-]+): `).FindAllStringSubmatch(string(text), -1) {
			if !slices.ContainsFunc(rows(), func(r row) bool { return Prefix+r.name == match[1] }) {
				t.Errorf("%s asks for %s, which is no label", name, match[1])
			}
		}
		if name == "node-readiness-rule" && !strings.Contains(string(text), "type: "+VirtualizationReady+"\n") {
			t.Errorf("%s does not name the condition", name)
		}
	}
}
