package nodestack

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// maxPlugins bounds the plugins of one network, delegates included.
const maxPlugins = 64

// pluginConf is the part of a CNI plugin's configuration that a check asks
// about (CNI specification, section 1), Multus' own fields included.
type pluginConf struct {
	Type string `json:"type"`
	MTU  int    `json:"mtu"`
	IPAM struct {
		Type string `json:"type"`
	} `json:"ipam"`
	Delegates      []json.RawMessage `json:"delegates"`
	ClusterNetwork string            `json:"clusterNetwork"`
}

// parseNetwork reads a network configuration: a list of plugins (.conflist) or
// a single one (.conf).
func parseNetwork(data []byte) (Network, error) {
	var list struct {
		Name    string            `json:"name"`
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return Network{}, fmt.Errorf("parse network: %w", err)
	}
	if list.Plugins == nil {
		list.Plugins = []json.RawMessage{data}
	}
	network := Network{Name: list.Name, Plugins: []Plugin{}}
	for _, raw := range list.Plugins {
		conf, err := parsePlugin(raw)
		if err != nil {
			return Network{}, err
		}
		network.Plugins = append(network.Plugins, conf.plugin())
		if conf.ClusterNetwork != "" {
			network.ClusterNetwork = conf.ClusterNetwork
		}
		for _, raw := range conf.Delegates {
			plugins, err := parseDelegate(raw)
			if err != nil {
				return Network{}, err
			}
			network.Delegates = append(network.Delegates, plugins...)
		}
		if len(network.Plugins)+len(network.Delegates) > maxPlugins {
			return Network{}, fmt.Errorf("parse network: more than %d plugins", maxPlugins)
		}
	}
	if len(network.Plugins) == 0 {
		return Network{}, errors.New("parse network: it has no plugin")
	}
	return network, nil
}

// parseDelegate reads what Multus calls: a network of its own, without Multus
// in it.
func parseDelegate(raw json.RawMessage) ([]Plugin, error) {
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("parse delegate: %w", err)
	}
	if list.Plugins == nil {
		list.Plugins = []json.RawMessage{raw}
	}
	var plugins []Plugin
	for _, raw := range list.Plugins {
		conf, err := parsePlugin(raw)
		if err != nil {
			return nil, err
		}
		plugins = append(plugins, conf.plugin())
	}
	return plugins, nil
}

// programName is a name that a runtime would start: never a path.
var programName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func parsePlugin(raw json.RawMessage) (pluginConf, error) {
	var conf pluginConf
	if err := json.Unmarshal(raw, &conf); err != nil {
		return conf, fmt.Errorf("parse plugin: %w", err)
	}
	if !programName.MatchString(conf.Type) {
		return conf, fmt.Errorf("parse plugin: type %.64q names no program", conf.Type)
	}
	if conf.IPAM.Type != "" && !programName.MatchString(conf.IPAM.Type) {
		return conf, fmt.Errorf("parse plugin: ipam type %.64q names no program", conf.IPAM.Type)
	}
	if conf.MTU < 0 || conf.MTU > 1<<20 {
		return conf, fmt.Errorf("parse plugin: mtu %d", conf.MTU)
	}
	return conf, nil
}

func (c pluginConf) plugin() Plugin { return Plugin{Type: c.Type, IPAM: c.IPAM.Type, MTU: c.MTU} }
