package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const featuresDir = "etc/kubernetes/node-feature-discovery/features.d"

// uninstallHost runs uninstall on a tree of files.
func uninstallHost(t *testing.T, root string, args ...string) string {
	t.Helper()
	out, errs, status := runAgent(t, append([]string{"uninstall", "--host", "--root", root}, args...)...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	return out
}

func TestUninstallCleansTheHost(t *testing.T) {
	const ours = "# Written by nodeagent, which writes it anew: changes are lost.\nvirtnode.io/kvm=true\n"
	const said = "this host: /" + featuresDir + "/virtnode\n"
	for name, test := range map[string]struct {
		file, text string
		args       []string
		said       string
	}{
		"the agent's file":            {featuresDir + "/virtnode", ours, nil, said},
		"somebody's file of the name": {featuresDir + "/virtnode", "virtnode.io/kvm=true\n", nil, ""},
		"another file":                {featuresDir + "/theirs", ours, nil, ""},
		"a folder elsewhere":          {"nfd/virtnode", ours, []string{"--nfd-directory", "/nfd"}, "this host: /nfd/virtnode\n"},
		"no such folder":              {"nfd/virtnode", ours, nil, ""},
	} {
		root := t.TempDir()
		file := filepath.Join(root, test.file)
		beside := filepath.Join(filepath.Dir(file), "beside")
		err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(test.text), 0o600), os.WriteFile(beside, nil, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{test.said, ""} { // the second time there is nothing
			if got := uninstallHost(t, root, test.args...); got != want {
				t.Errorf("%s: it said %q, want %q", name, got, want)
			}
		}
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) != (test.said != "") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(beside); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A link leads to where it does on the host, not beside its root.
func TestUninstallStaysBelowTheRoot(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	file := filepath.Join(outside, "virtnode")
	link := filepath.Join(root, featuresDir)
	err := errors.Join(
		os.WriteFile(file, []byte("# Written by nodeagent, which writes it anew: changes are lost.\n"), 0o600),
		os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(outside, link))
	if err != nil {
		t.Fatal(err)
	}
	if out := uninstallHost(t, root); out != "" {
		t.Error(out)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if _, errs, status := runAgent(t, "uninstall", "--host", "--node", "a"); status == 0 || !strings.Contains(errs, "host") {
		t.Errorf("status %d, %s", status, errs)
	}
}
