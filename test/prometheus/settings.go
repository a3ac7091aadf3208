package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
)

const settingsFile = "prometheus.yml"

// The part of Prometheus's settings that the bed uses, as JSON, which YAML
// readers read.
type (
	settings struct {
		Global struct {
			ScrapeInterval string `json:"scrape_interval"`
			ScrapeTimeout  string `json:"scrape_timeout"`
		} `json:"global"`
		Jobs []job `json:"scrape_configs"`
	}
	job struct {
		Name   string  `json:"job_name"`
		Groups []group `json:"static_configs"`
	}
	group struct {
		Targets []string `json:"targets"`
	}
)

func writeSettings(file string, targets []string) error {
	var text settings
	text.Global.ScrapeInterval, text.Global.ScrapeTimeout = "1s", "1s"
	text.Jobs = []job{{Name: "test", Groups: []group{{Targets: targets}}}}
	if targets == nil {
		text.Jobs = nil
	}
	data, err := json.Marshal(text)
	if err != nil {
		return fmt.Errorf("write the server's settings: %w", err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("write the server's settings: %w", err)
	}
	return nil
}
