package prometheus

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
)

func monitoring(name string) string {
	return filepath.Join(hosttest.Root(), "deploy", "monitoring", name)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRules lets promtool judge the alerts: each fires in one case and stays
// quiet in another.
func TestRules(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, Missing())
	for _, args := range [][]string{
		{"check", "rules", monitoring("rules.yaml")},
		{"test", "rules", monitoring("rules_test.yaml")},
		{"check", "config", scrapeConfig(t)},
	} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// scrapeConfig is the scrape configuration without its discovery, which
// Debian's Prometheus was built without.
func scrapeConfig(t *testing.T) string {
	t.Helper()
	const discovery = `    kubernetes_sd_configs:
      - role: pod
        namespaces:
          names: [virtnode-system]
`
	text := read(t, monitoring("prometheus.yaml"))
	if !strings.Contains(text, discovery) {
		t.Fatal("prometheus.yaml finds its pods in another way")
	}
	text = strings.ReplaceAll(text, discovery, "    static_configs: [{targets: ['node-1:9477']}]\n")
	text = strings.ReplaceAll(text, "rule_files: [rules.yaml]", "rule_files: ["+monitoring("rules.yaml")+"]")
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// alerts are the names of the alerts, in their order.
func alerts(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, monitoring("rules.yaml")), -1) {
		names = append(names, match[1])
	}
	if len(names) < 12 {
		t.Fatalf("found %d alerts: %v", len(names), names)
	}
	return names
}

func TestEveryAlertHasARunbookAndBothTests(t *testing.T) {
	rules, tests := read(t, monitoring("rules.yaml")), read(t, monitoring("rules_test.yaml"))
	runbooks := read(t, filepath.Join(hosttest.Root(), "docs", "runbooks.md"))
	for _, alert := range alerts(t) {
		if !strings.Contains(runbooks, "\n## "+alert+"\n") {
			t.Errorf("docs/runbooks.md has no heading %s", alert)
		}
		if !strings.Contains(rules, "docs/runbooks.md#"+strings.ToLower(alert)+"\n") {
			t.Errorf("alert %s does not lead to its runbook", alert)
		}
		for _, test := range []string{" fires\n", " is quiet\n"} {
			if !strings.Contains(tests, "- name: "+alert+test) {
				t.Errorf("no test says that %s%s", alert, strings.TrimSuffix(test, "\n"))
			}
		}
	}
}

// families reads the reference, which is made from the tables that write the
// exposition: the labels of every family.
func families(t *testing.T) map[string][]string {
	t.Helper()
	known := map[string][]string{"up": {"job", "instance"}}
	quoted := regexp.MustCompile("`([a-z_]+)`")
	var common []string
	for line := range strings.Lines(read(t, filepath.Join(hosttest.Root(), "docs", "metrics.md"))) {
		switch {
		case strings.HasPrefix(line, "## Group "): // the labels of all VMs stay
		case strings.HasPrefix(line, "## "):
			common = nil
		case strings.HasPrefix(line, "Labels on every series:"):
			common = nil
			list, _, _ := strings.Cut(line, ". ")
			for _, match := range quoted.FindAllStringSubmatch(list, -1) {
				common = append(common, match[1])
			}
		case strings.HasPrefix(line, "| `"):
			cells := strings.Split(line, "|")
			labels := []string{"job", "instance"}
			for _, match := range quoted.FindAllStringSubmatch(cells[3], -1) {
				labels = append(labels, match[1])
			}
			known[strings.Trim(cells[1], " `")] = append(labels, common...)
		}
	}
	if len(known) < 100 || !slices.Contains(known["virtnode_vm_monitor_state"], "uuid") {
		t.Fatalf("found %d families in docs/metrics.md: it is read wrongly", len(known))
	}
	return known
}

// TestRulesSpeakOfWhatTheAgentServes catches an alert that can never fire,
// since nobody has such a series.
func TestRulesSpeakOfWhatTheAgentServes(t *testing.T) {
	known := families(t)
	selector := regexp.MustCompile(`\b(virtnode_\w+|up)\b(?:\{([^}]*)\})?`)
	label := regexp.MustCompile(`(\w+) ?(?:=|!=|=~|!~) ?"`)
	seen := 0
	for _, file := range []string{"rules.yaml", "rules_test.yaml"} {
		for line := range strings.Lines(read(t, monitoring(file))) {
			if strings.Contains(line, "summary:") || strings.Contains(line, "description:") || strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, match := range selector.FindAllStringSubmatch(line, -1) {
				labels, found := known[match[1]]
				if !found {
					t.Errorf("%s: nobody serves %s", file, match[1])
					continue
				}
				seen++
				for _, name := range label.FindAllStringSubmatch(match[2], -1) {
					if !slices.Contains(labels, name[1]) {
						t.Errorf("%s: %s has no label %s, but %v", file, match[1], name[1], labels)
					}
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d selectors were found", seen)
	}
}
