package kvmcheck

import (
	"path"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const cgroupDir = "/sys/fs/cgroup"

// collectCgroup reads the controllers: from cgroup.controllers on version 2,
// from the mounted hierarchies on version 1 (Linux
// Documentation/admin-guide/cgroup-v2.rst).
func collectCgroup(root *hostfs.Root) CgroupFacts {
	source := path.Join(cgroupDir, "cgroup.controllers")
	text, err := root.ReadString(source)
	if err == nil {
		return CgroupFacts{Version: known(source, 2), Controllers: known(source, strings.Fields(text))}
	}
	if !hostfs.Absent(err) {
		return CgroupFacts{Version: unknown[int](source, err), Controllers: unknown[[]string](source, err)}
	}
	return collectCgroupV1(root)
}

func collectCgroupV1(root *hostfs.Root) CgroupFacts {
	names, err := root.ReadDir(cgroupDir)
	if hostfs.Absent(err) {
		return CgroupFacts{Version: known(cgroupDir, 0), Controllers: known(cgroupDir, []string{})}
	}
	if err != nil {
		return CgroupFacts{Version: unknown[int](cgroupDir, err), Controllers: unknown[[]string](cgroupDir, err)}
	}
	controllers := []string{}
	for _, name := range names {
		// A hierarchy is a directory that holds cgroup.procs; co-mounted
		// controllers ("cpu,cpuacct") have a link for each of them.
		mounted, err := root.Exists(path.Join(cgroupDir, name, "cgroup.procs"))
		if err != nil {
			return CgroupFacts{Version: known(cgroupDir, 1), Controllers: unknown[[]string](cgroupDir, err)}
		}
		if mounted && !strings.Contains(name, ",") {
			controllers = append(controllers, name)
		}
	}
	if len(controllers) == 0 {
		return CgroupFacts{Version: known(cgroupDir, 0), Controllers: known(cgroupDir, controllers)}
	}
	return CgroupFacts{Version: known(cgroupDir, 1), Controllers: known(cgroupDir, controllers)}
}
