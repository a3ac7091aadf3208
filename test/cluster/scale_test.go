package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// The budget of docs/design/scale.md, for one agent.
const (
	// Its Node, the Node's metadata, its NodeVirtualization, all HostNetworks.
	watches = 4
	// A watch starts with a list, or is both in one.
	mostReads = 2 * watches
	// Labels, conditions, the NodeVirtualization, its status; and room for one
	// in four that an API server on a busy machine answers too late.
	writes, mostWrites = 4, 5
)

const (
	fleetSize = 1000
	// So many start at once. When one has published, the next one does: all
	// of them together would measure the machine, and not the agents.
	inStart = 50
	// What a thousand agents do on a machine that others use as well.
	patience = 5 * time.Minute
)

// TestAThousandAgents runs what a thousand nodes' agents do with the cluster:
// each with a connection, a token and the rights of its own.
func TestAThousandAgents(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	f := newFleet(t)
	const memory, processor = "process_resident_memory_bytes", "process_cpu_seconds_total"
	ours, theirs, busy := memoryInUse(), f.server(memory), f.server(processor)
	f.start()
	f.startedWithinBudget()
	t.Logf("that took %.0f ms of the API server for each agent", (f.server(processor)-busy)/fleetSize*1000)
	t.Logf("memory for each agent: %d KiB here, %.0f KiB of the API server", (memoryInUse()-ours)/fleetSize>>10, (f.server(memory)-theirs)/fleetSize/1024)
	f.restsFor(10 * time.Minute)
	f.changesReachTheirOwn()

	f.stop()
	before, busy := f.versions(), f.server(processor)
	f.start()
	t.Logf("a restart: %.2f reads for each agent, and %.0f ms of the API server", f.mean(readsMade), (f.server(processor)-busy)/fleetSize*1000)
	f.restsFor(time.Minute)
	if made := f.mean(writesMade); made != 0 {
		t.Errorf("%.2f writes for each agent after a restart", made)
	}
	f.expectVersions(before)
}

// fleet is the agents of a cluster.
type fleet struct {
	t       *testing.T
	config  *rest.Config // an administrator's
	clients *kubernetes.Clientset
	objects client.Client
	report  kvmcheck.Report
	ways    [fleetSize]*rest.Config
	agents  [fleetSize]*metered
	now     atomic.Int64 // of all agents, in seconds
	stop    func()
}

// metered is an agent with all that it has with the API server to do.
type metered struct {
	*node.Publisher
	networks *node.HostNetworks
	meter    meter
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	config := cluster.New(t)
	config.QPS = -1 // agents have limits of their own; this is the test's
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	installAgents(t, config)
	good, _ := machines(t)
	f := &fleet{t: t, config: config, clients: kubernetes.NewForConfigOrDie(config), objects: newObjects(t, config), report: good}
	f.now.Store(hosttest.Time().Unix())
	policy := &v1alpha1.HostNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: "storage"},
		Spec:       v1alpha1.HostNetworkSpec{Interfaces: []v1alpha1.Interface{{Name: "storage", Match: &v1alpha1.Match{Name: "eth1"}}}},
	}
	if err := f.objects.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	f.each(func(i int) {
		makeNode(t, f.clients, nameOf(i))
		f.heartbeat(i)
		f.ways[i] = as(config, agentToken(t, f.clients, nameOf(i)))
	})
	return f
}

func nameOf(i int) string { return fmt.Sprintf("fleet-%04d", i) }

// each does something for every node, for several at once.
func (f *fleet) each(do func(i int)) {
	f.t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < fleetSize; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// heartbeat writes the status of a Node as its kubelet does every five minutes,
// in the size that it has there.
func (f *fleet) heartbeat(i int) {
	images := make([]corev1.ContainerImage, 50)
	for i := range images {
		images[i] = corev1.ContainerImage{Names: []string{fmt.Sprintf("registry.example.org/image-%d@sha256:%s", i, strings.Repeat("0", 64))}, SizeBytes: 1 << 26}
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now()}
	body, err := json.Marshal(map[string]any{"status": corev1.NodeStatus{Images: images, Conditions: []corev1.NodeCondition{ready}}})
	if err == nil {
		_, err = f.clients.CoreV1().Nodes().Patch(f.t.Context(), nameOf(i), types.StrategicMergePatchType, body, metav1.PatchOptions{FieldManager: "kubelet"}, "status")
	}
	if err != nil {
		f.t.Error(err)
	}
}

// start starts all agents, and returns when the last has published.
func (f *fleet) start() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	f.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	f.t.Cleanup(f.stop)
	began := time.Now()
	slots := make(chan struct{}, inStart)
	for i := range f.agents {
		select {
		case slots <- struct{}{}:
		case <-time.After(patience):
			f.t.Fatalf("the first %d agents never came to publish", i-inStart)
		}
		agent := f.newAgent(i)
		f.agents[i] = agent
		running.Go(func() { _ = agent.Run(ctx, func() {}) }) // it has no error
		running.Go(func() { agent.networks.Run(ctx) })
		running.Go(func() {
			poll := time.NewTicker(20 * time.Millisecond)
			defer poll.Stop()
			for !agent.State().Up {
				select {
				case <-ctx.Done():
					return
				case <-poll.C:
				}
			}
			<-slots
		})
	}
	f.patiently("it has published, and watches all it needs", func(i int) bool { return f.agents[i].State().Up && f.agents[i].meter.watches.Load() == watches })
	f.t.Logf("%d agents started in %v, %d at a time", fleetSize, time.Since(began).Round(time.Second), inStart)
}

func (f *fleet) newAgent(i int) *metered {
	f.t.Helper()
	agent := new(metered)
	// The clients of one process share a connection; those of another agent
	// would have it, too, if this one had no dialer of its own.
	connected := rest.CopyConfig(f.ways[i])
	connected.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		agent.meter.connections.Add(1)
		return &connection{conn, sync.OnceFunc(func() { agent.meter.connections.Add(-1) })}, nil
	}
	connected.Wrap(func(next http.RoundTripper) http.RoundTripper { return &metering{next, &agent.meter} })
	transport, err := rest.TransportFor(connected)
	if err != nil {
		f.t.Fatal(err)
	}
	way := &rest.Config{Host: connected.Host, Transport: transport}
	config := func() (*rest.Config, error) { return way, nil }
	agent.Publisher = node.NewPublisher(node.Options{
		Config: config, Node: nameOf(i), Random: func() float64 { return 0 }, Now: f.clock, Log: slog.New(slog.DiscardHandler),
	})
	agent.networks = node.NewHostNetworks(config, nameOf(i), func([]v1alpha1.NetworkReport) {}, slog.New(slog.DiscardHandler))
	agent.Observe(f.look())
	return agent
}

func (f *fleet) clock() time.Time { return time.Unix(f.now.Load(), 0) }

func (f *fleet) look() node.Look {
	report := f.report
	report.Time = f.clock()
	return node.Look{Report: report}
}

func (f *fleet) startedWithinBudget() {
	f.t.Helper()
	reads, made := f.mean(readsMade), f.mean(writesMade)
	f.t.Logf("the first start: %.2f reads, %.2f writes and %.2f connections for each agent", reads, made, f.mean(connections))
	if reads > mostReads || made > mostWrites {
		f.t.Errorf("the budget is %d reads and %d writes", mostReads, mostWrites)
	}
	for i, agent := range f.agents {
		if reads, made := readsMade(agent), writesMade(agent); reads < watches || made < writes {
			f.t.Errorf("%s: %d reads and %d writes are too few to have done anything", nameOf(i), reads, made)
		}
	}
	list, err := f.clients.CoreV1().Nodes().List(f.t.Context(), metav1.ListOptions{LabelSelector: "virtnode.io/kvm=true"})
	if err != nil {
		f.t.Fatal(err)
	}
	var objects v1alpha1.NodeVirtualizationList
	if err := f.objects.List(f.t.Context(), &objects); err != nil {
		f.t.Fatal(err)
	}
	ready := 0
	for i := range objects.Items {
		if objects.Items[i].Status.Verdict == "Ready" {
			ready++
		}
	}
	if len(list.Items) != fleetSize || ready != fleetSize {
		f.t.Errorf("%d Nodes are labelled, %d NodeVirtualizations are ready", len(list.Items), ready)
	}
}

// restsFor lets time of the agents pass in which every minute's look finds what
// the one before has found. Each of them is compared with what the API server
// has, so that nothing can be left to be written later.
func (f *fleet) restsFor(rest time.Duration) {
	f.t.Helper()
	before, made, reads, bytes, began := f.versions(), f.of(writesMade), f.mean(readsMade), f.mean(bytesTold), time.Now()
	for range int(rest / time.Minute) {
		f.now.Add(60)
		looked := f.of(rounds)
		for _, agent := range f.agents {
			agent.Observe(f.look())
		}
		f.patiently("it has looked", func(i int) bool { return rounds(f.agents[i]) > looked[i] })
		if diff := cmp.Diff(made, f.of(writesMade)); diff != "" {
			f.t.Fatalf("agents write at rest:\n%s", diff)
		}
	}
	f.t.Logf("%v at rest, in %v: %.2f reads and %.0f bytes of watches for each agent", rest, time.Since(began).Round(time.Second), f.mean(readsMade)-reads, f.mean(bytesTold)-bytes)
	f.expectVersions(before)
}

// versions are those of all that agents write, and so change with every write.
func (f *fleet) versions() map[string]string {
	f.t.Helper()
	versions := make(map[string]string)
	for _, kind := range []string{"Node", "NodeVirtualization"} {
		list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: kind + "List"}}
		if kind == "Node" {
			list.APIVersion = "v1"
		}
		if err := f.objects.List(f.t.Context(), list); err != nil {
			f.t.Fatal(err)
		}
		for i := range list.Items {
			versions[kind+" "+list.Items[i].Name] = list.Items[i].ResourceVersion
		}
	}
	return versions
}

func (f *fleet) expectVersions(want map[string]string) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.versions()); diff != "" {
		f.t.Errorf("what agents write has changed:\n%s", diff)
	}
}

// changesReachTheirOwn lets every kubelet write its Node's status once, and
// changes a HostNetwork.
func (f *fleet) changesReachTheirOwn() {
	f.t.Helper()
	made, asked, bytes := f.of(writesMade), f.of(readsMade), f.of(bytesTold)
	f.each(f.heartbeat)
	one, err := f.clients.CoreV1().Nodes().Get(f.t.Context(), nameOf(0), metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	size := int64(one.Size())
	f.patiently("it is told of its Node", func(i int) bool { return bytesTold(f.agents[i]) >= bytes[i]+size })
	for i, agent := range f.agents {
		told, again := bytesTold(agent)-bytes[i], readsMade(agent)-asked[i] // a watch that begins anew tells it again
		if told >= size*(2+again) {
			f.t.Errorf("%s was told %d bytes, and its Node has %d: that is more than a change of its own", nameOf(i), told, size)
		}
	}
	f.t.Logf("a change of a Node of %d bytes: its agent alone, %.0f bytes", size, f.mean(bytesTold)-meanOf(bytes))

	for _, agent := range f.agents {
		select { // what the start has left
		case <-agent.networks.Wake():
		default:
		}
	}
	bytes = f.of(bytesTold)
	policy := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: "storage"}}
	if err := f.objects.Patch(f.t.Context(), policy, client.RawPatch(mergePatch, []byte(`{"spec":{"priority":1}}`))); err != nil {
		f.t.Fatal(err)
	}
	f.patiently("it is told of the HostNetwork", func(i int) bool {
		select {
		case <-f.agents[i].networks.Wake():
			return true
		default:
			return false
		}
	})
	f.t.Logf("a change of a HostNetwork: all agents, %.0f bytes each", f.mean(bytesTold)-meanOf(bytes))
	if diff := cmp.Diff(made, f.of(writesMade)); diff != "" {
		f.t.Errorf("what others change makes agents write:\n%s", diff)
	}
}

// patiently waits until something holds for every agent.
func (f *fleet) patiently(what string, holds func(i int) bool) {
	f.t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer deadline.Stop()
	for i := range f.agents {
		for !holds(i) {
			select {
			case <-tick.C:
			case <-deadline.C:
				f.t.Fatalf("%s: it never came to this: %s", nameOf(i), what)
			}
		}
	}
}

// of returns a number of each agent.
func (f *fleet) of(number func(*metered) int64) []int64 {
	all := make([]int64, fleetSize)
	for i, agent := range f.agents {
		all[i] = number(agent)
	}
	return all
}

func (f *fleet) mean(number func(*metered) int64) float64 { return meanOf(f.of(number)) }

func meanOf(all []int64) float64 {
	sum := int64(0)
	for _, one := range all {
		sum += one
	}
	return float64(sum) / float64(len(all))
}

func readsMade(a *metered) int64   { return a.meter.reads.Load() }
func writesMade(a *metered) int64  { return a.meter.writes.Load() }
func connections(a *metered) int64 { return a.meter.connections.Load() }
func bytesTold(a *metered) int64   { return a.meter.bytes.Load() }
func rounds(a *metered) int64      { return int64(a.State().Rounds) }

// server is what the API server says of itself.
func (f *fleet) server(metric string) float64 {
	f.t.Helper()
	page, err := f.clients.RESTClient().Get().AbsPath("/metrics").DoRaw(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if text, found := strings.CutPrefix(line, metric+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				f.t.Fatal(err)
			}
			return value
		}
	}
	f.t.Fatal("the API server does not say ", metric)
	return 0
}

func memoryInUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapInuse + stats.StackInuse)
}

// meter counts what an agent asks, and what its watches tell it.
type meter struct {
	connections    atomic.Int64 // that are open
	reads, writes  atomic.Int64
	watches, bytes atomic.Int64 // watches that are open, and what came through them
}

type metering struct {
	next  http.RoundTripper
	meter *meter
}

func (m *metering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet {
		m.meter.reads.Add(1)
	} else {
		m.meter.writes.Add(1)
	}
	answer, err := m.next.RoundTrip(r)
	if err == nil && answer.StatusCode == http.StatusOK && r.URL.Query().Get("watch") != "" {
		m.meter.watches.Add(1)
		answer.Body = &watched{answer.Body, m.meter, sync.OnceFunc(func() { m.meter.watches.Add(-1) })}
	}
	return answer, err
}

type connection struct {
	net.Conn
	over func()
}

func (c *connection) Close() error {
	c.over()
	return c.Conn.Close()
}

type watched struct {
	io.ReadCloser
	meter *meter
	over  func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.meter.bytes.Add(int64(n))
	return n, err
}

func (w *watched) Close() error {
	w.over()
	return w.ReadCloser.Close()
}
