package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/test/hosttest"
)

var updateRendered = flag.Bool("update-rendered", false, "write what render prints to testdata")

func storagePolicy() string {
	return filepath.Join(hosttest.Root(), "pkg", "multus", "testdata", "storage.yaml")
}

// rendered runs render and returns what it prints.
func rendered(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	root := newRoot()
	root.SetArgs(append([]string{"render"}, args...))
	root.SetOut(&out)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestRenderPrintsWhatOthersRead(t *testing.T) {
	for _, what := range []string{"attachments", "device-plugin"} {
		got := rendered(t, what, "-f", storagePolicy())
		golden := filepath.Join("testdata", what+".yaml")
		if *updateRendered {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: go test ./cmd/nodeagent -update-rendered, and read the difference (-want +got):\n%s", what, diff)
		}
	}
}

func TestRenderAsJSONIsOneList(t *testing.T) {
	var list struct {
		Kind  string
		Items []struct{ Kind string }
	}
	if err := json.Unmarshal([]byte(rendered(t, "attachments", "-o", "json", "-f", storagePolicy())), &list); err != nil {
		t.Fatal(err)
	}
	if list.Kind != "List" || len(list.Items) != 7 || list.Items[0].Kind != "NetworkAttachmentDefinition" {
		t.Errorf("got %+v", list)
	}
}

func TestRenderSaysWhereAPolicyIsWrong(t *testing.T) {
	root := newRoot()
	root.SetArgs([]string{"render", "attachments", "-f", "-"})
	root.SetIn(strings.NewReader("apiVersion: virtnode.io/v1alpha1\nkind: HostNetwork\nmetadata: {name: a}\nspec: {attachmens: []}\n"))
	err := root.ExecuteContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "-: line 4: spec.attachmens: unknown field; did you mean attachments?") {
		t.Errorf("got %v", err)
	}
}
