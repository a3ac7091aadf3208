package node

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// featureBed is a folder of NFD, and what keeps a file in it.
type featureBed struct {
	*FeatureFile
	dir string
}

func newFeatureBed(t *testing.T, dir string, use FeatureUse) featureBed {
	t.Helper()
	open := func() (*os.Root, error) { return os.OpenRoot(dir) }
	return featureBed{NewFeatureFile(open, use, hosttest.Time, slog.New(slog.DiscardHandler)), dir}
}

func (b featureBed) round(t *testing.T) {
	t.Helper()
	if err := b.FeatureFile.round(); err != nil {
		t.Fatal(err)
	}
}

func (b featureBed) file() string { return filepath.Join(b.dir, FeatureFileName) }

func (b featureBed) text(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// localSource reads a feature file as NFD's documentation describes the format:
// what becomes labels, and what becomes features.
func localSource(text string) (labels, features map[string]string) {
	labels, features = make(map[string]string), make(map[string]string)
	noLabel := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, "=")
		switch {
		case line == "# +no-label":
			noLabel = true
		case line == "" || strings.HasPrefix(line, "#"):
		default:
			features[key] = value
			if !noLabel {
				labels[key] = value
			}
			noLabel = false
		}
	}
	return labels, features
}

func TestNFDGetsTheLabels(t *testing.T) {
	want := truth{}.observe(lookAt(t, "vm-numa-sriov"))
	want.network = want.network.observe(hosttest.Time(), tenantReady(), true)
	all := want.want().labels
	if all["virtnode.io/network.tenant"] != yes || all["virtnode.io/kvm"] != yes {
		t.Fatalf("the machine has %v", all)
	}
	for use, wantLabels := range map[FeatureUse]map[string]string{FeaturesAsLabels: all, FeaturesOnly: {}} {
		bed := newFeatureBed(t, t.TempDir(), use)
		bed.round(t)
		if _, err := os.Lstat(bed.file()); err == nil {
			t.Error("there is a file before the first look")
		}
		bed.ObserveNetworks(tenantReady(), true)
		bed.Observe(lookAt(t, "vm-numa-sriov"))
		bed.round(t)
		labels, features := localSource(bed.text(t))
		if diff := cmp.Diff(wantLabels, labels); diff != "" {
			t.Errorf("labels: %s", diff)
		}
		if diff := cmp.Diff(all, features); diff != "" {
			t.Errorf("features: %s", diff)
		}
		bed.Observe(lookAt(t, "vm-numa-sriov"))
		bed.round(t)
		if bed.writes != 1 {
			t.Errorf("%d writes of the same", bed.writes)
		}
		if left, err := os.ReadDir(bed.dir); err != nil || len(left) != 1 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

func tenantReady() []v1alpha1.NetworkReport {
	return []v1alpha1.NetworkReport{{Policy: "p", State: v1alpha1.NetworkConverged, Interfaces: []v1alpha1.InterfaceReport{{Name: "tenant", Ready: true}}}}
}

// TestFeaturesHoldOverARestart begins anew on a machine that is worse now.
func TestFeaturesHoldOverARestart(t *testing.T) {
	dir := t.TempDir()
	first := newFeatureBed(t, dir, FeaturesAsLabels)
	first.Observe(lookAt(t, "vm-kvm"))
	first.round(t)
	second := newFeatureBed(t, dir, FeaturesAsLabels)
	for step, want := range []string{yes, yes, "false"} {
		second.Observe(lookAt(t, "vm-no-module").at(time.Duration(step+1) * time.Minute))
		second.round(t)
		if labels, _ := localSource(second.text(t)); labels["virtnode.io/kvm"] != want {
			t.Errorf("look %d: kvm=%s, want %s", step, labels["virtnode.io/kvm"], want)
		}
	}
}

func TestFeaturesGoWhenSwitchedOff(t *testing.T) {
	dir := t.TempDir()
	bed := newFeatureBed(t, dir, FeaturesAsLabels)
	bed.Observe(lookAt(t, "vm-kvm"))
	bed.round(t)
	newFeatureBed(t, dir, NoFeatures).round(t)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	newFeatureBed(t, filepath.Join(dir, "nfd-is-not-here"), NoFeatures).round(t)
}

// TestFeaturesOfOthersStay puts what is somebody else's where the file belongs.
func TestFeaturesOfOthersStay(t *testing.T) {
	for name, put := range map[string]func(path, victim string) error{
		"a file":           func(path, _ string) error { return os.WriteFile(path, []byte("theirs=true\n"), 0o600) },
		"a link":           func(path, victim string) error { return os.Symlink(victim, path) },
		"a link inside":    func(path, _ string) error { return os.Symlink("elsewhere", path) },
		"a directory":      func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"something larger": func(path, _ string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "victim")
			for _, use := range []FeatureUse{FeaturesAsLabels, NoFeatures} {
				bed := newFeatureBed(t, t.TempDir(), use)
				for _, path := range []string{victim, filepath.Join(bed.dir, "elsewhere")} {
					if err := os.WriteFile(path, []byte(featureFileHead), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if err := put(bed.file(), victim); err != nil {
					t.Fatal(err)
				}
				before, err := os.Lstat(bed.file())
				if err != nil {
					t.Fatal(err)
				}
				bed.Observe(lookAt(t, "vm-kvm"))
				if err := bed.FeatureFile.round(); (err == nil) != (use == NoFeatures) {
					t.Errorf("use %d: %v", use, err)
				}
				if after, err := os.Lstat(bed.file()); err != nil || !os.SameFile(before, after) {
					t.Errorf("use %d: it was replaced: %v", use, err)
				}
			}
			if data, err := os.ReadFile(victim); err != nil || string(data) != featureFileHead {
				t.Errorf("the victim holds %q, %v", data, err)
			}
		})
	}
}

// TestFeaturesPassALinkInTheirWay has a link where the next file is written.
func TestFeaturesPassALinkInTheirWay(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	bed := newFeatureBed(t, t.TempDir(), FeaturesAsLabels)
	if err := os.Symlink(victim, filepath.Join(bed.dir, featureFileNext)); err != nil {
		t.Fatal(err)
	}
	bed.Observe(lookAt(t, "vm-kvm"))
	bed.round(t)
	if _, err := os.Stat(victim); err == nil {
		t.Error("the link was followed")
	}
	if labels, _ := localSource(bed.text(t)); labels["virtnode.io/kvm"] != yes {
		t.Errorf("labels %v", labels)
	}
}

// TestFeaturesWaitForNFD lets the folder come later.
func TestFeaturesWaitForNFD(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "features.d")
	bed := newFeatureBed(t, dir, FeaturesAsLabels)
	bed.Observe(lookAt(t, "vm-kvm"))
	if err := bed.FeatureFile.round(); err == nil || !strings.Contains(err.Error(), "NFD worker") {
		t.Errorf("without a folder: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bed.Run(ctx, func() {}) }()
	limit := time.After(time.Minute)
	for tick := time.Tick(time.Millisecond); ; {
		if _, err := os.Stat(bed.file()); err == nil {
			break
		}
		select {
		case <-tick:
		case <-limit:
			t.Fatal("no file")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func FuzzParseFeatures(f *testing.F) {
	f.Add([]byte(featureFileHead + "# +no-label\nvirtnode.io/kvm=true\nvirtnode.io/network.tenant=true\n"))
	f.Add([]byte("virtnode.io/=\nvirtnode.io/x=\x00\n=\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		truth := parseFeatures(data)
		truth.seen = true
		labels := truth.want().labels
		again, _ := localSource(featuresOf(labels, FeaturesAsLabels))
		if !maps.Equal(labels, again) {
			t.Errorf("%v became %v", labels, again)
		}
	})
}
