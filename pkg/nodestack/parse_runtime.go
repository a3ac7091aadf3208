package nodestack

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
)

// parseSettings reads containerd's configuration as its Status tells it, in
// the key "config" of the verbose information.
func parseSettings(data []byte) (RuntimeSettings, error) {
	var config struct {
		Containerd struct {
			Snapshotter    string `json:"snapshotter"`
			DefaultRuntime string `json:"defaultRuntimeName"`
			Runtimes       map[string]struct {
				Snapshotter string `json:"snapshotter"`
				Options     struct {
					SystemdCgroup *bool `json:"SystemdCgroup"`
				} `json:"options"`
			} `json:"runtimes"`
		} `json:"containerd"`
		CNI struct {
			BinDir  string   `json:"binDir"`
			BinDirs []string `json:"binDirs"` // from containerd 2.1
			ConfDir string   `json:"confDir"`
		} `json:"cni"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return RuntimeSettings{}, fmt.Errorf("parse runtime configuration: %w", err)
	}
	settings := RuntimeSettings{Snapshotter: clip(config.Containerd.Snapshotter)}
	if runtime, found := config.Containerd.Runtimes[config.Containerd.DefaultRuntime]; found {
		if runtime.Snapshotter != "" {
			settings.Snapshotter = clip(runtime.Snapshotter)
		}
		systemd := runtime.Options.SystemdCgroup
		if systemd == nil {
			systemd = new(bool) // runc's default
		}
		settings.SystemdCgroup = systemd
	}
	if usable(config.CNI.ConfDir) {
		settings.CNIConfDir = path.Clean(config.CNI.ConfDir)
	}
	for _, dir := range append(config.CNI.BinDirs, config.CNI.BinDir) {
		if usable(dir) && !slices.Contains(settings.CNIBinDirs, path.Clean(dir)) {
			settings.CNIBinDirs = append(settings.CNIBinDirs, path.Clean(dir))
		}
	}
	return settings, nil
}

// usable reports whether a text is a path that may be looked at.
func usable(dir string) bool { return path.IsAbs(dir) && len(dir) <= maxFlag }
