package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Known is what a configuration may name, and other packages know.
type Known struct {
	URI        func(string) error // judges a libvirt URI
	Expression func(string) error // judges a rule's expression
	Profiles   []string           // the built-in ones
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
	telemetry := config.Telemetry
	for i, uri := range telemetry.LibvirtURIs {
		if err := known.URI(uri); err != nil {
			bad(fmt.Sprintf("telemetry.libvirtURIs[%d]", i), "%v", err)
		}
	}
	if telemetry.Kubelet != "" && !filepath.IsAbs(telemetry.Kubelet) {
		bad("telemetry.kubelet", "%q: want an absolute path, or nothing", telemetry.Kubelet)
	}
	if telemetry.Budget < time.Millisecond || telemetry.Budget > time.Minute {
		bad("telemetry.budget", "%v: want 1ms to 1m", telemetry.Budget)
	}
	if telemetry.CallTimeout < telemetry.Budget || telemetry.CallTimeout > 10*time.Minute {
		bad("telemetry.callTimeout", "%v: want the budget (%v) to 10m", telemetry.CallTimeout, telemetry.Budget)
	}
	if telemetry.MaxAge < telemetry.Budget || telemetry.MaxAge > time.Hour {
		bad("telemetry.maxAge", "%v: want the budget (%v) to 1h", telemetry.MaxAge, telemetry.Budget)
	}
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
	if levels := []string{"debug", "info", "warn", "error"}; !slices.Contains(levels, config.Log.Level) {
		bad("log.level", "%q: want one of %v", config.Log.Level, levels)
	}
	if formats := []string{"auto", "text", "json"}; !slices.Contains(formats, config.Log.Format) {
		bad("log.format", "%q: want one of %v", config.Log.Format, formats)
	}
	return append(problems, validateReadiness(config.Readiness, known)...)
}

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
