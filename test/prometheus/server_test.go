package prometheus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// parentEnv makes the test binary the parent of a server, for
// TestServerEndsWithItsParent to kill.
const parentEnv = "NODEAGENT_TEST_PROMETHEUS_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		os.Exit(m.Run())
	}
	server, err := Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(server.dir, server.url)
	select {}
}

const exposition = `# HELP bed_answer_ratio What the test expects to read.
# TYPE bed_answer_ratio gauge
bed_answer_ratio{vm="one"} 0.25
bed_answer_ratio{vm="two"} 42
`

func TestServerScrapes(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, exposition)
	}))
	defer target.Close()
	address := strings.TrimPrefix(target.URL, "http://")
	server := New(t, address)
	if _, err := server.Wait(t.Context(), "bed_answer_ratio"); err != nil {
		t.Fatal(err)
	}

	samples, err := server.Query(t.Context(), `sort(bed_answer_ratio)`)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, sample := range samples {
		got[sample.Labels["vm"]] = sample.Value
		if sample.Labels["__name__"] != "bed_answer_ratio" || sample.Labels["instance"] != address || sample.Time.IsZero() {
			t.Errorf("sample %+v", sample)
		}
	}
	if diff := cmp.Diff(map[string]float64{"one": 0.25, "two": 42}, got); diff != "" {
		t.Errorf("scraped values (-want +got):\n%s", diff)
	}

	targets, err := server.Targets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) != 1 || targets[0].URL != target.URL+"/metrics" || targets[0].Health != "up" {
		t.Errorf("targets %+v", targets)
	}
}

func TestServerSaysWhyATargetIsDown(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(http.NotFoundHandler())
	defer target.Close()
	server := New(t, strings.TrimPrefix(target.URL, "http://"))
	if _, err := server.Wait(t.Context(), "up == 0"); err != nil {
		t.Fatal(err)
	}
	targets, err := server.Targets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) != 1 || targets[0].Health != "down" || !strings.Contains(targets[0].LastError, "404") {
		t.Errorf("targets %+v", targets)
	}
	if _, err := server.Query(t.Context(), "sum("); err == nil {
		t.Error("a query that does not parse has an answer")
	}
}

func TestServerEndsWithItsParent(t *testing.T) {
	t.Parallel()
	hosttest.Need(t, hosttest.Libvirt, Missing())
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent did not start a server: %v", err)
	}
	fields := strings.Fields(line)
	if len(fields) != 2 {
		t.Fatalf("the parent printed %q", line)
	}
	dir := fields[0]
	server := &Server{url: fields[1], ended: make(chan struct{})}
	if err := server.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	// The folder goes last.
	err = hosttest.Poll(t.Context(), "the server's end", func() (bool, error) {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Query(t.Context(), "up"); err == nil {
		t.Error("the server still answers")
	}
}

func TestParseSamples(t *testing.T) {
	scalar, err := parseSamples([]byte(`{"resultType":"scalar","result":[1.5,"+Inf"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(scalar) != 1 || scalar[0].Time.UnixMilli() != 1500 || fmt.Sprint(scalar[0].Value) != "+Inf" {
		t.Errorf("scalar is %+v", scalar)
	}
	for _, text := range []string{
		`{"resultType":"matrix","result":[]}`,
		`{"resultType":"scalar","result":[1,"many"]}`,
		`{"resultType":"vector","result":{}}`,
		`[`,
	} {
		if samples, err := parseSamples([]byte(text)); err == nil {
			t.Errorf("parsed %s as %+v", text, samples)
		}
	}
}
