package cluster_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// custom lists the labels of the user's own.
func (p *published) custom() map[string]string {
	p.t.Helper()
	labels := p.ours()
	maps.DeleteFunc(labels, func(key, _ string) bool { return !strings.HasPrefix(key, "virtnode.io/custom.") })
	return labels
}

// TestLabelsOfOnesOwn takes expressions of the configuration to labels of a
// Node, and away again, with the program as it is shipped.
func TestLabelsOfOnesOwn(t *testing.T) {
	needRoot(t)
	p, way := newPublished(t, withAgents(t), "own-labels")
	// What the API server takes at the most, and what it would not take as it is.
	longest, text := strings.Repeat("n", 56), strings.Repeat("A text & more, ", 10)
	const size, truth = "{name: size, expression: 'facts.cpu.info.value.cpus > 100000 ? \"large\" : \"small\"'}", "{name: truth, expression: 'facts.cpu.info.value.cpus > 0'}"
	const none = "{name: none, expression: 'facts.cpu.info.value.cpus < 0'}"
	d := startDaemon(t, p.name, kubeconfigOf(way), "["+strings.Join([]string{
		size, truth, none, "{name: " + longest + ", expression: 'facts.cpu.info.value.cpus * 0 + 7'}",
		"{name: text, expression: 'facts.cpu.info.value.cpus > 0 ? \"" + text + "\" : \"\"'}",
	}, ", ")+"]")
	all := map[string]string{
		"virtnode.io/custom.size": "small", "virtnode.io/custom.truth": "true", "virtnode.io/custom." + longest: "7",
		"virtnode.io/custom.text": "A-text---more--A-text---more--A-text---more--A-text---more--A-t",
	}
	within(t, "the labels are there", func() bool { return cmp.Equal(all, p.custom()) })
	d.has(t, "virtnode_node_publish_up 1")

	d.configure(t, "["+truth+", {name: size, expression: 'facts.cpu.info.value.cpu'}]")
	d.has(t, "virtnode_config_last_reload_successful 0")
	if d.log.count("line 4: kubernetes.labels[1].expression: line 1, column 21: undefined field") != 1 {
		t.Errorf("the line of the mistake is not said:\n%s", d.log)
	}
	if diff := cmp.Diff(all, p.custom()); diff != "" {
		t.Error("a configuration that is refused: ", diff)
	}

	// A new value of a text comes, and a label goes, as for all labels: slowly.
	d.configure(t, "["+truth+", "+strings.Replace(size, "small", "medium", 1)+"]")
	began := time.Now()
	withinTime(t, 2*time.Minute, "what is no longer asked for goes", func() bool {
		return cmp.Equal(map[string]string{"virtnode.io/custom.truth": "true", "virtnode.io/custom.size": "medium"}, p.custom())
	})
	if took := time.Since(began); took < time.Minute {
		t.Errorf("it took %v, and no minute", took)
	}
}
