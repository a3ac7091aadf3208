package config

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Known is what a configuration may name, and other packages know.
type Known struct {
	URI        func(string) error // judges a libvirt URI
	Expression func(string) error // judges a rule's expression
	Label      func(string) error // judges that of a label
	Profiles   []string           // the built-in ones
	Groups     []string           // of metric families
	Compats    []string           // other exporters
	Checks     []string           // "area/check"; a name may end in *
}

// Validate returns what is wrong with a configuration, lines not filled in.
func Validate(config Config, known Known) []Error {
	var problems []Error
	bad := func(field, format string, args ...any) {
		problems = append(problems, Error{Path: field, Message: fmt.Sprintf(format, args...)})
	}
	if err := checkAddress(config.Web.ListenAddress); err != nil {
		bad("web.listenAddress", "%q: %v", config.Web.ListenAddress, err)
	}
	problems = append(problems, validateTelemetry(config.Telemetry, known)...)
	if config.Readiness.Interval < time.Second || config.Readiness.Interval > 24*time.Hour {
		bad("readiness.interval", "%v: want 1s to 24h", config.Readiness.Interval)
	}
	if config.Network.Interval < time.Second || config.Network.Interval > 24*time.Hour {
		bad("network.interval", "%v: want 1s to 24h", config.Network.Interval)
	}
	if !filepath.IsAbs(config.Network.StateDirectory) {
		bad("network.stateDirectory", "%q: want a path from /", config.Network.StateDirectory)
	}
	for i, pattern := range config.Network.Policies {
		if _, err := filepath.Match(pattern, ""); err != nil || !filepath.IsAbs(pattern) {
			bad(fmt.Sprintf("network.policies[%d]", i), "%q: want a path from /, or a pattern", pattern)
		}
	}
	if !filepath.IsAbs(config.Kubernetes.NFD.Directory) {
		bad("kubernetes.nfd.directory", "%q: want a path from /", config.Kubernetes.NFD.Directory)
	}
	problems = append(problems, validateLabels(config.Kubernetes.Labels, known)...)
	if levels := []string{"debug", "info", "warn", "error"}; !slices.Contains(levels, config.Log.Level) {
		bad("log.level", "%q: want one of %v", config.Log.Level, levels)
	}
	if formats := []string{"auto", "text", "json"}; !slices.Contains(formats, config.Log.Format) {
		bad("log.format", "%q: want one of %v", config.Log.Format, formats)
	}
	return append(problems, validateReadiness(config.Readiness, known)...)
}

// mostOwnLabels is what a node has room for beside the agent's own.
const mostOwnLabels = 20

func validateLabels(labels []Label, known Known) []Error {
	var problems []Error
	bad := func(path, format string, args ...any) {
		problems = append(problems, Error{Path: "kubernetes.labels" + path, Message: fmt.Sprintf(format, args...)})
	}
	if len(labels) > mostOwnLabels {
		bad("", "%d labels: want at most %d", len(labels), mostOwnLabels)
		return problems
	}
	for i, label := range labels {
		at := fmt.Sprintf("[%d].", i)
		// The prefix counts towards the 63 letters that a name may have.
		if !ruleName.MatchString(label.Name) || len(label.Name) > 63-len("custom.") {
			bad(at+"name", "%q: want small letters, digits and dashes, at most 56", label.Name)
		} else if slices.ContainsFunc(labels[:i], func(l Label) bool { return l.Name == label.Name }) {
			bad(at+"name", "a second label %s", label.Name)
		}
		if err := known.Label(label.Expression); err != nil {
			bad(at+"expression", "%v", err)
		}
	}
	return problems
}

// validateTelemetry looks at the VMs, and what is served about them.
func validateTelemetry(telemetry Telemetry, known Known) []Error {
	var problems []Error
	bad := func(path, format string, args ...any) {
		problems = append(problems, Error{Path: "telemetry." + path, Message: fmt.Sprintf(format, args...)})
	}
	for i, uri := range telemetry.LibvirtURIs {
		if err := known.URI(uri); err != nil {
			bad(fmt.Sprintf("libvirtURIs[%d]", i), "%v", err)
		}
	}
	if telemetry.Kubelet != "" && !filepath.IsAbs(telemetry.Kubelet) {
		bad("kubelet", "%q: want an absolute path, or nothing", telemetry.Kubelet)
	}
	if telemetry.Budget < time.Millisecond || telemetry.Budget > time.Minute {
		bad("budget", "%v: want 1ms to 1m", telemetry.Budget)
	}
	if telemetry.CallTimeout < telemetry.Budget || telemetry.CallTimeout > 10*time.Minute {
		bad("callTimeout", "%v: want the budget (%v) to 10m", telemetry.CallTimeout, telemetry.Budget)
	}
	if telemetry.MaxAge < telemetry.Budget || telemetry.MaxAge > 10*time.Minute {
		bad("maxAge", "%v: want the budget (%v) to 10m", telemetry.MaxAge, telemetry.Budget)
	}
	for _, name := range slices.Sorted(maps.Keys(telemetry.Groups)) {
		if !slices.Contains(known.Groups, name) {
			bad("groups."+key(name), "unknown group%s", Suggest(name, known.Groups))
		}
	}
	for i, name := range telemetry.KVMStats {
		if !statName.MatchString(name) {
			bad(fmt.Sprintf("kvmStats[%d]", i), "%q: want a name as KVM writes it, such as halt_exits", name)
		}
	}
	for i, name := range telemetry.Compat {
		if !slices.Contains(known.Compats, name) {
			bad(fmt.Sprintf("compat[%d]", i), "%q: unknown exporter%s", name, Suggest(name, known.Compats))
		}
	}
	if telemetry.MaxSeriesPerVM < 0 {
		bad("maxSeriesPerVM", "%d: want at least 0", telemetry.MaxSeriesPerVM)
	}
	if telemetry.MaxSeries < 0 {
		bad("maxSeries", "%d: want at least 0", telemetry.MaxSeries)
	}
	return problems
}

var statName = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("want host:port or :port")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q: want 0 to 65535", port)
	}
	return nil
}
