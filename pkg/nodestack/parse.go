package nodestack

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// parseMountinfo reads /proc/PID/mountinfo (Linux
// Documentation/filesystems/proc.rst, section 3.5):
//
//	36 35 98:0 /root /mount\040point rw,noatime shared:1 - ext3 /dev/root rw
func parseMountinfo(data []byte) ([]Mount, error) {
	mounts := []Mount{}
	for line := range strings.Lines(string(data)) {
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, about := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 6 || len(about) < 1 {
			return nil, fmt.Errorf("no mount in the line %.100q", line)
		}
		mounts = append(mounts, Mount{
			Point:  unescape(fields[4]),
			Type:   about[0],
			Shared: slices.ContainsFunc(fields[6:], func(f string) bool { return strings.HasPrefix(f, "shared:") }),
		})
	}
	if len(mounts) == 0 {
		return nil, errors.New("it lists no mount")
	}
	return mounts, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// kubeletFlags are the flags of a kubelet that say where things are.
var kubeletFlags = []string{"root-dir", "config", "container-runtime-endpoint", "cgroup-driver"}

// maxFlag bounds a flag's value; a path has 4095 bytes at most.
const maxFlag = 4096

// parseFlags reads known flags, "--name=value" or "--name value", out of
// /proc/PID/cmdline, whose arguments end in NUL.
func parseFlags(cmdline []byte) map[string]string {
	flags := map[string]string{}
	args := strings.Split(string(cmdline), "\x00")
	for i, arg := range args {
		name, value, assigned := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || !slices.Contains(kubeletFlags, name) {
			continue
		}
		if !assigned && i+1 < len(args) {
			value = args[i+1]
		}
		if value != "" && len(value) <= maxFlag {
			flags[name] = value
		}
	}
	return flags
}

// process is what /proc/PID/status says about who runs.
type process struct {
	uid    int
	nested bool // it lives in a PID namespace below the one of /proc
}

// parseStatus reads the lines Uid and NSpid of /proc/PID/status.
func parseStatus(data []byte) (process, error) {
	result := process{uid: -1}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch name {
		case "Uid":
			if len(fields) == 0 {
				return result, errors.New("the line Uid is empty")
			}
			uid, err := strconv.Atoi(fields[0])
			if err != nil {
				return result, fmt.Errorf("the line Uid holds %.32q", fields[0])
			}
			result.uid = uid
		case "NSpid":
			result.nested = len(fields) > 1
		}
	}
	if result.uid < 0 {
		return result, errors.New("it has no line Uid")
	}
	return result, nil
}

// parseKubeletConfig reads a KubeletConfiguration, YAML or JSON.
func parseKubeletConfig(data []byte) (KubeletConfig, error) {
	var config KubeletConfig
	if err := yaml.Unmarshal(data, &config); err != nil {
		return KubeletConfig{}, fmt.Errorf("parse KubeletConfiguration: %w", err)
	}
	return config, nil
}

// parseCheckpoint counts the healthy devices of each resource in the device
// manager's checkpoint.
func parseCheckpoint(data []byte) (map[string]int, error) {
	var checkpoint struct {
		Data *struct {
			RegisteredDevices map[string][]string
		}
	}
	if err := json.Unmarshal(data, &checkpoint); err != nil {
		return nil, fmt.Errorf("parse checkpoint: %w", err)
	}
	if checkpoint.Data == nil {
		return nil, errors.New("parse checkpoint: it has no Data")
	}
	counts := make(map[string]int)
	for resource, devices := range checkpoint.Data.RegisteredDevices {
		counts[resource] = len(devices)
	}
	return counts, nil
}

// parseModuleList reads which of the wanted modules modules.dep or
// modules.builtin names, in lines such as "kernel/drivers/md/dm-crypt.ko.xz: …".
func parseModuleList(data []byte, wanted []string) []string {
	found := []string{}
	for line := range bytes.Lines(data) {
		file, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		name, _, isModule := strings.Cut(path.Base(string(file)), ".ko")
		name = strings.ReplaceAll(name, "-", "_")
		if isModule && slices.Contains(wanted, name) {
			found = append(found, name)
		}
	}
	return found
}

// parseBlacklist reports whether multipath.conf(5) has a section blacklist
// that holds something.
func parseBlacklist(data []byte) bool {
	inside, held := false, false
	for line := range strings.Lines(string(data)) {
		if i := strings.IndexAny(line, "#!"); i >= 0 && !strings.Contains(line[:i], `"`) {
			line = line[:i]
		}
		line = strings.TrimSpace(line)
		rest, opens := strings.CutPrefix(line, "blacklist")
		switch {
		case !inside && opens && strings.HasPrefix(strings.TrimSpace(rest), "{"):
			inside = true
			line = strings.TrimSpace(strings.TrimSpace(rest)[1:])
		case !inside:
			continue
		}
		for _, entry := range []string{"devnode", "wwid", "property", "protocol", "device"} {
			held = held || strings.HasPrefix(line, entry)
		}
		if line == "}" {
			inside = false
		}
	}
	return held
}

// agentChannel is the name of the guest agent's virtio-serial port.
const agentChannel = "org.qemu.guest_agent.0"

// parseDomain reads a running domain's name and the state of its guest-agent
// channel out of libvirt's status file.
func parseDomain(data []byte) (Domain, error) {
	var status struct {
		XMLName xml.Name `xml:"domstatus"`
		Domain  struct {
			Name     string `xml:"name"`
			Channels []struct {
				Target struct {
					Name  string `xml:"name,attr"`
					State string `xml:"state,attr"`
				} `xml:"target"`
			} `xml:"devices>channel"`
		} `xml:"domain"`
	}
	decoder := xml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&status); err != nil && !errors.Is(err, io.EOF) {
		return Domain{}, fmt.Errorf("parse domain status: %w", err)
	}
	if status.Domain.Name == "" {
		return Domain{}, errors.New("parse domain status: it names no domain")
	}
	domain := Domain{Name: status.Domain.Name}
	for _, channel := range status.Domain.Channels {
		if channel.Target.Name != agentChannel {
			continue
		}
		domain.Agent = channel.Target.State
		if domain.Agent == "" {
			domain.Agent = "disconnected" // libvirt leaves out what it has not heard of
		}
	}
	return domain, nil
}
