package config

import "time"

// Config is the agent's configuration: one YAML document. The doc tag of each
// field is its reference; `nodeagent config` prints it.
type Config struct {
	Web        Web        `yaml:"web" doc:"The HTTP server for /metrics, /healthz, /readyz and /report."`
	Telemetry  Telemetry  `yaml:"telemetry" doc:"Which VMs are measured, and how long a scrape may wait for them."`
	Readiness  Readiness  `yaml:"readiness" doc:"The check of the host's virtualization readiness."`
	Network    Network    `yaml:"network" doc:"The host's links and virtual functions, for VMs."`
	Kubernetes Kubernetes `yaml:"kubernetes" doc:"The cluster, if the host is a node of one."`
	Log        Log        `yaml:"log" doc:"What is written to standard error."`
}

// Web configures the HTTP server.
type Web struct {
	ListenAddress  string `yaml:"listenAddress" doc:"Address to listen on: host:port, or :port for all interfaces. Flag: --web.listen-address."`
	ConfigFile     string `yaml:"configFile" doc:"File with TLS, client certificates and basic authentication, in the format that Prometheus' exporters share (exporter-toolkit, web configuration). Certificates and users in it are read anew when they change. Empty: plain HTTP. Flag: --web.config.file."`
	KubernetesAuth bool   `yaml:"kubernetesAuth" doc:"Whether a page is served only to those whose bearer token the cluster accepts (TokenReview) and who may get its path as a non-resource URL (SubjectAccessReview). /healthz and /readyz stay open."`
}

// Kubernetes configures the way to the cluster.
type Kubernetes struct {
	Kubeconfig string  `yaml:"kubeconfig" doc:"File with the cluster's address and the agent's credentials. Empty: the service account of the agent's pod."`
	Publish    bool    `yaml:"publish" doc:"Whether the node's labels and conditions, and its NodeVirtualization, are written. It needs a way to the cluster, and the node's name in the environment variable NODE_NAME."`
	Labels     []Label `yaml:"labels" doc:"Labels of your own, beside those of docs/labels.md: virtnode.io/custom.NAME."`
	NFD        NFD     `yaml:"nfd" doc:"Node Feature Discovery: a file with the labels, for its worker on this node."`
}

// NFD configures the file for Node Feature Discovery.
type NFD struct {
	Write     bool   `yaml:"write" doc:"Whether the file virtnode is kept in the directory. Where the agent does not publish, NFD labels the node with what is in it; else NFD has it as features for its rules. Without, a file of the agent's is removed."`
	Directory string `yaml:"directory" doc:"The host's directory that NFD's worker reads."`
}

// Label is a label of the user's own.
type Label struct {
	Name       string `yaml:"name" doc:"What stands after virtnode.io/custom.: small letters, digits and dashes."`
	Expression string `yaml:"expression" doc:"The value, in CEL about facts, as in readiness.rules: a text, a number, or true (the label is true) and false (there is no label). While what it asks is not known, the label stays as it is."`
}

// Telemetry configures where VMs are found and how patiently.
type Telemetry struct {
	LibvirtURIs    []string        `yaml:"libvirtURIs" doc:"libvirt daemons to ask: qemu:///system, qemu:///session or qemu+unix:///system?socket=PATH. Empty: find local sockets. Flag: --libvirt-uri, repeatable."`
	Kubelet        string          `yaml:"kubelet" doc:"The kubelet's directory. The VMs of KubeVirt have their libvirt in the pods there. Empty: do not look for them."`
	Budget         time.Duration   `yaml:"budget" doc:"The longest that a scrape waits for libvirt. Slower answers serve the next scrape."`
	CallTimeout    time.Duration   `yaml:"callTimeout" doc:"After this long a libvirt call is given up and its connection closed. At least the budget."`
	MaxAge         time.Duration   `yaml:"maxAge" doc:"Answers older than this are not served any more. At least the budget, and ten minutes at most."`
	Groups         map[string]bool `yaml:"groups" doc:"Groups of metric families to switch on (true) or off (false); docs/metrics.md lists them. The standard holds for those not named."`
	KVMStats       []string        `yaml:"kvmStats" doc:"Names of KVM's own statistics to serve, such as exits or pages_2m. Empty: a few that are worth their series."`
	MaxSeriesPerVM int             `yaml:"maxSeriesPerVM" doc:"The most series that one VM may have; 0: no limit. The last families in docs/metrics.md are cut first, and virtnode_scrape_series_cut_total counts them."`
	MaxSeries      int             `yaml:"maxSeries" doc:"The most series that all VMs together may have; 0: no limit."`
	Compat         []string        `yaml:"compat" doc:"Other exporters whose families are served too: libvirt-exporter (Debian's prometheus-libvirt-exporter), kubevirt (kubevirt_vmi_*)."`
	BPF            bool            `yaml:"bpf" doc:"Put programs into the kernel that tell what /proc does not, how long virtual CPUs wait for a physical one, and what it tells at a higher price."`
}

// Readiness configures the check.
type Readiness struct {
	Interval time.Duration      `yaml:"interval" doc:"Time between two checks of the host."`
	Profile  string             `yaml:"profile" doc:"Which kind of node this is, and so what it needs: kubevirt, libvirt, sriov, confidential, or one of the profiles below. Flag of check: --profile."`
	Profiles map[string]Profile `yaml:"profiles" doc:"Profiles of your own, by name."`
	Rules    []Rule             `yaml:"rules" doc:"Checks of your own, asked in every profile."`
}

// Profile says what a kind of node needs.
type Profile struct {
	Base        string   `yaml:"base" doc:"The profile that decides what this one does not name."`
	Required    []string `yaml:"required" doc:"Checks without which VMs cannot run, by name (area/check) or pattern. * stands for any text without a slash. A name goes before a pattern, and a longer pattern before a shorter one. docs/checks.md lists the checks; a rule is rule/NAME."`
	Recommended []string `yaml:"recommended" doc:"Checks without which VMs run, but not as they should."`
	Optional    []string `yaml:"optional" doc:"Checks that matter to some VMs only."`
	Skipped     []string `yaml:"skipped" doc:"Checks that nobody asks for."`
}

// Rule is a check of the user's own.
type Rule struct {
	Name       string `yaml:"name" doc:"The finding is rule/NAME: small letters, digits and dashes."`
	Expression string `yaml:"expression" doc:"What must hold, in CEL (cel.dev), about facts: what nodeagent check -o json shows there, by the same names. Of a value that could be read, ask .value. What could not be read makes the finding Unknown, unless the expression does not depend on it; ask has(FACT.FIELD) before a field that may be missing. In YAML, put it between single quotes."`
	Reason     string `yaml:"reason" doc:"One word for the cause when it does not hold, in CamelCase."`
	Message    string `yaml:"message" doc:"What is said when it does not hold."`
	Remedy     string `yaml:"remedy" doc:"What a person can do about it."`
	Level      string `yaml:"level" doc:"What it means: required, recommended or optional. A profile may say otherwise."`
}

// Network configures the host network. Without policies it is left alone.
type Network struct {
	Policies       []string          `yaml:"policies" doc:"Files of HostNetwork policies, as for nodeagent plan; * and ? stand for any text in a name. They are read again at every interval. What is new is applied, once; so is everything after a reboot. Empty: the HostNetworks of the cluster are followed instead, or, on a host that is in none, what the agent has changed before is brought back."`
	NodeLabels     map[string]string `yaml:"nodeLabels" doc:"Labels of this node that a policy's nodeSelector may ask for, besides kubernetes.io/hostname."`
	Interval       time.Duration     `yaml:"interval" doc:"Time between two looks whether the host is still as the policies want it."`
	Repair         bool              `yaml:"repair" doc:"Whether what has drifted is brought back, if that disturbs nobody. Otherwise it is only reported."`
	StateDirectory string            `yaml:"stateDirectory" doc:"Where the journal is kept, and what was there before the first change. It must outlive a reboot."`
}

// Log configures the log.
type Log struct {
	Level  string `yaml:"level" doc:"debug, info, warn or error."`
	Format string `yaml:"format" doc:"text, json, or auto: text on a terminal, JSON elsewhere."`
}

// Default returns the configuration of an agent without a file.
func Default() Config {
	return Config{
		Web: Web{ListenAddress: ":9477"},
		Telemetry: Telemetry{
			LibvirtURIs:    []string{},
			Kubelet:        "/var/lib/kubelet",
			Budget:         500 * time.Millisecond,
			CallTimeout:    5 * time.Second,
			MaxAge:         time.Minute,
			Groups:         map[string]bool{},
			KVMStats:       []string{},
			MaxSeriesPerVM: 5000,
			MaxSeries:      200_000,
			Compat:         []string{},
			BPF:            true,
		},
		Readiness: Readiness{Interval: time.Minute, Profile: "kubevirt", Profiles: map[string]Profile{}, Rules: []Rule{}},
		Network: Network{
			Policies: []string{}, NodeLabels: map[string]string{}, Interval: 30 * time.Second, StateDirectory: "/var/lib/nodeagent/network",
		},
		Kubernetes: Kubernetes{
			Publish: true, Labels: []Label{},
			NFD: NFD{Directory: "/etc/kubernetes/node-feature-discovery/features.d"},
		},
		Log: Log{Level: "info", Format: "auto"},
	}
}

// Example returns profiles, rules and labels that show how they are written.
// Print puts them beside those fields, as comments.
func Example() Config {
	return Config{Readiness: exampleOfReadiness(), Kubernetes: Kubernetes{Labels: []Label{{
		Name:       "size",
		Expression: `facts.cpu.info.value.cpus >= 64 ? "large" : "small"`,
	}}}}
}

func exampleOfReadiness() Readiness {
	return Readiness{
		Profiles: map[string]Profile{"gpu": {
			Base:        "kubevirt",
			Required:    []string{"iommu/*", "vfio/driver", "rule/small-pages"},
			Recommended: []string{"memory/hugepages-1Gi"},
			Optional:    []string{},
			Skipped:     []string{"kvm/nested"},
		}},
		Rules: []Rule{{
			Name:       "small-pages",
			Expression: "facts.memory.hugepages.value.exists(p, p.sizeKiB == 2048 && p.free.value >= 512)",
			Reason:     "TooFewSmallPages",
			Message:    "fewer than 512 huge pages of 2 MiB are free",
			Remedy:     "raise vm.nr_hugepages in /etc/sysctl.d, or move a VM away",
			Level:      "recommended",
		}},
	}
}
