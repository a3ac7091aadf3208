package config

import "time"

// Config is the agent's configuration: one YAML document. The doc tag of each
// field is its reference; `nodeagent config` prints it.
type Config struct {
	Web       Web       `yaml:"web" doc:"The HTTP server for /metrics, /healthz, /readyz and /report."`
	Telemetry Telemetry `yaml:"telemetry" doc:"Which VMs are measured, and how long a scrape may wait for them."`
	Readiness Readiness `yaml:"readiness" doc:"The check of the host's virtualization readiness."`
	Log       Log       `yaml:"log" doc:"What is written to standard error."`
}

// Web configures the HTTP server.
type Web struct {
	ListenAddress string `yaml:"listenAddress" doc:"Address to listen on: host:port, or :port for all interfaces. Flag: --web.listen-address."`
}

// Telemetry configures where VMs are found and how patiently.
type Telemetry struct {
	LibvirtURIs []string      `yaml:"libvirtURIs" doc:"libvirt daemons to ask: qemu:///system, qemu:///session or qemu+unix:///system?socket=PATH. Empty: find local sockets. Flag: --libvirt-uri, repeatable."`
	Budget      time.Duration `yaml:"budget" doc:"The longest that a scrape waits for libvirt. Slower answers serve the next scrape."`
	CallTimeout time.Duration `yaml:"callTimeout" doc:"After this long a libvirt call is given up and its connection closed. At least the budget."`
	MaxAge      time.Duration `yaml:"maxAge" doc:"Answers older than this are not served any more. At least the budget."`
}

// Readiness configures the check.
type Readiness struct {
	Interval time.Duration `yaml:"interval" doc:"Time between two checks of the host."`
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
			LibvirtURIs: []string{},
			Budget:      500 * time.Millisecond,
			CallTimeout: 5 * time.Second,
			MaxAge:      time.Minute,
		},
		Readiness: Readiness{Interval: time.Minute},
		Log:       Log{Level: "info", Format: "auto"},
	}
}
