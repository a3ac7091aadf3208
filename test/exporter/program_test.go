package exporter

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestAgentServesAndEnds(t *testing.T) {
	agent, err := Start(t.Context(), Agent(hosttest.BuildAgent(t), AgentOptions{Config: "log: {level: debug, format: text}\n"}))
	if err != nil {
		t.Fatal(err)
	}
	page, err := agent.Scrape(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if up, known := page.Value("virtnode_task_up", "task", "web"); !known || up != 1 {
		t.Errorf("task web: %v, known: %v", up, known)
	}
	if page.Took <= 0 || len(page.Text) == 0 {
		t.Errorf("page of %d bytes in %v", len(page.Text), page.Took)
	}
	usage, err := UsageOf(agent.PID)
	if err != nil || usage.CPU <= 0 || usage.Resident < 1<<20 || usage.Descriptors < 3 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if !strings.Contains(agent.Log(), "nodeagent started") {
		t.Errorf("log is %q", agent.Log())
	}
	if err := agent.Close(); err != nil {
		t.Error(err)
	}
	if _, err := CPUTime(agent.PID); err == nil {
		t.Error("the agent still runs")
	}
	if _, err := os.Stat(agent.dir); err == nil {
		t.Error("its folder is still there")
	}
}

func TestStartSaysWhyNot(t *testing.T) {
	_, err := Start(t.Context(), Agent(hosttest.BuildAgent(t), AgentOptions{Config: "nonsense: 1\n"}))
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a wrong configuration: %v", err)
	}
}

func TestCloseTellsOfAnEarlyEnd(t *testing.T) {
	p, err := launch(Program{Name: "true", Command: func(string, string) (*exec.Cmd, error) { return exec.Command("true"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if err := p.Close(); err == nil {
		t.Error("nobody was told")
	}
}

func TestPage(t *testing.T) {
	page, err := Parse([]byte(`# TYPE seconds histogram
seconds_bucket{vm="a",le="1"} 2
seconds_bucket{vm="a",le="+Inf"} 3
seconds_sum{vm="a"} 4.5
seconds_count{vm="a"} 3
# TYPE up gauge
up{vm="a",zone="x"} 1
up{vm="b"} 0
free 7
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		labels []string
		want   float64
		known  bool
	}{
		{"up", []string{"vm", "a"}, 1, true},
		{"up", []string{"vm", "b"}, 0, true},
		{"up", nil, 0, false},
		{"up", []string{"vm", "c"}, 0, false},
		{"free", nil, 7, true},
		{"seconds_bucket", []string{"le", "1"}, 2, true},
		{"seconds_sum", nil, 4.5, true},
	} {
		if got, known := page.Value(test.name, test.labels...); got != test.want || known != test.known {
			t.Errorf("%s %v: %v, %v", test.name, test.labels, got, known)
		}
	}
	if got := page.Select("up", "vm", "a")[0].Key(); got != `up{vm="a",zone="x"}` {
		t.Errorf("key %s", got)
	}
	if got := page.Series("vm", []string{"a", "c"}); got != 5 {
		t.Errorf("%d series of a", got)
	}
	if _, err := Parse([]byte("up{vm=\"a} 1\n")); err == nil {
		t.Error("a broken page was parsed")
	}
}
