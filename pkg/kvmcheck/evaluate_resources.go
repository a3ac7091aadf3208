package kvmcheck

import (
	"fmt"
	"slices"
	"strings"
)

// evaluateCgroup wants the controllers with which VMs are limited: on version
// 2 devices and CPU accounting are part of the core.
func evaluateCgroup(facts Facts) Finding {
	const area, check = "cgroup", "controllers"
	version, controllers := facts.Cgroup.Version, facts.Cgroup.Controllers
	if !version.Known {
		return undecided(area, check, version.Err)
	}
	if !controllers.Known {
		return undecided(area, check, controllers.Err)
	}
	want := []string{"cpu", "cpuset", "memory", "io"}
	if version.Value == 1 {
		want = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "blkio"}
	}
	var missing []string
	for _, controller := range want {
		if !slices.Contains(controllers.Value, controller) {
			missing = append(missing, controller)
		}
	}
	switch {
	case version.Value == 0:
		return lacking(area, check, CgroupNotMounted, "no cgroup hierarchy at "+cgroupDir,
			"mount -t cgroup2 none "+cgroupDir+"; in a container: mount the host's "+cgroupDir)
	case len(missing) > 0:
		return lacking(area, check, ControllerMissing,
			fmt.Sprintf("%s (version %d) lacks %s", controllers.Source, version.Value, strings.Join(missing, ", ")),
			"boot a kernel with these controllers, and without cgroup_disable= on its command line")
	default:
		return found(area, check, fmt.Sprintf("version %d: %s", version.Value, strings.Join(want, ", ")))
	}
}
