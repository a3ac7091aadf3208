package peers

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// our says which of our checks answers a question of the peers.
type our struct {
	theirs, check string
	// word is how a finding of ours that answers several questions names this
	// one: without it in the message, the finding is not about it.
	word string
}

var ours = []our{
	{"hardware virtualization", "cpu/virtualization", ""},
	{"device /dev/kvm exists", "kvm/device", ""},
	{"device /dev/kvm is accessible", "kvm/device", ""},
	{"device /dev/vhost-net exists", "devices/vhost-net", ""},
	{"device /dev/net/tun exists", "devices/tun", ""},
	{"cgroup cpu controller support", "cgroup/controllers", `cpu`},
	{"cgroup cpuacct controller support", "cgroup/controllers", `cpuacct`},
	{"cgroup cpuset controller support", "cgroup/controllers", `cpuset`},
	{"cgroup memory controller support", "cgroup/controllers", `memory`},
	{"cgroup devices controller support", "cgroup/controllers", `devices`},
	{"cgroup blkio controller support", "cgroup/controllers", `blkio|io`},
	{"device assignment IOMMU support", "iommu/firmware", ""},
	{"IOMMU is enabled by kernel", "iommu/kernel", ""},
	{"secure guest support", "guests/confidential", ""},
	{"CPU extensions", "cpu/virtualization", ""},
	{"firmware", "firmware/virtualization", ""},
	{"verdict", "kvm/device", ""},
}

// runs is of a KVM that does without the CPU's virtualization, as one may in a VM.
const runs = "it goes by the CPU's flags; a guest ran, whatever they are"

// better lists where we say something else than a peer, and why ours is right.
var better = []struct {
	theirs, verdict string
	status          kvmcheck.Status
	reason          kvmcheck.Reason
	why             string
}{
	{"device /dev/kvm exists", "PASS", kvmcheck.NotReady, kvmcheck.DeviceUnusable, "the node exists, and opening it fails: there is no driver behind it"},
	{"device /dev/kvm is accessible", "PASS", kvmcheck.NotReady, kvmcheck.DeviceUnusable, "access(2) looks at the mode only, and not at the driver"},
	{"verdict", "PASS", kvmcheck.NotReady, kvmcheck.DeviceMissing, "its verdict is about CPU and firmware only: without the device no guest runs"},
	{"verdict", "PASS", kvmcheck.NotReady, kvmcheck.DeviceUnusable, "no guest runs on a node without a driver"},
	{"device /dev/net/tun exists", "PASS", kvmcheck.NotReady, kvmcheck.DeviceUnusable, "the node exists without its driver"},
	{"device /dev/net/tun exists", "PASS", kvmcheck.NotReady, kvmcheck.PermissionDenied, "the node exists, and this user may not open it"},
	{"device /dev/vhost-net exists", "PASS", kvmcheck.NotReady, kvmcheck.PermissionDenied, "the node exists, and this user may not open it"},
	{"device /dev/kvm exists", "PASS", kvmcheck.NotReady, kvmcheck.PermissionDenied, "the node exists, and this user may not open it"},
	{"device /dev/vhost-net exists", "PASS", kvmcheck.NotReady, kvmcheck.DeviceUnusable, "the node exists without its driver"},
	{"hardware virtualization", "FAIL", kvmcheck.Ready, "", runs},
	{"CPU extensions", "FAIL", kvmcheck.Ready, "", runs},
	{"verdict", "FAIL", kvmcheck.Ready, "", runs},
	{"device assignment IOMMU support", "WARN", kvmcheck.Ready, "", "it looks for the table of the CPU's vendor only, and not at all without a virtualization flag; the kernel takes what firmware describes"},
}

// compare puts theirs beside ours, for a person, and lists where ours is less.
func compare(answers []answer, findings []kvmcheck.Finding) (table string, less []string) {
	var out strings.Builder
	for _, theirs := range answers {
		fmt.Fprintf(&out, "%s: %s: %s %s\n", theirs.peer, theirs.check, theirs.verdict, theirs.detail)
		i := slices.IndexFunc(ours, func(o our) bool { return o.theirs == theirs.check })
		if i < 0 {
			less = append(less, fmt.Sprintf("%s: %s: nobody has said which of our checks answers that", theirs.peer, theirs.check))
			continue
		}
		j := slices.IndexFunc(findings, func(f kvmcheck.Finding) bool { return f.Key() == ours[i].check })
		if j < 0 {
			less = append(less, fmt.Sprintf("%s: %s: we have no finding %s", theirs.peer, theirs.check, ours[i].check))
			continue
		}
		finding := findings[j]
		fmt.Fprintf(&out, "    ours: %s: %s %s %s\n", finding.Key(), finding.Status, finding.Reason, finding.Message)
		if finding.Status != kvmcheck.Ready && (finding.Reason == "" || finding.Message == "" || finding.Remedy == "") {
			less = append(less, fmt.Sprintf("%s is %s without reason, message or remedy", finding.Key(), finding.Status))
		}
		if why, agreed := judge(theirs, ours[i], finding); !agreed {
			less = append(less, fmt.Sprintf("%s: %s: %s, and ours is %s %s", theirs.peer, theirs.check, theirs.verdict, finding.Status, finding.Reason))
		} else if why != "" {
			fmt.Fprintf(&out, "    ours is right: %s\n", why)
		}
	}
	return out.String(), less
}

// judge compares verdicts; where they differ, it says why ours is right.
func judge(theirs answer, our our, finding kvmcheck.Finding) (why string, agreed bool) {
	if (theirs.verdict == "PASS") == (finding.Status == kvmcheck.Ready || !our.isAbout(finding)) {
		return "", true
	}
	for _, b := range better {
		if b.theirs == theirs.check && b.verdict == theirs.verdict && b.status == finding.Status && b.reason == finding.Reason {
			return b.why, true
		}
	}
	return "", false
}

// isAbout is false for a controller that is missing, when it is not the one
// that the peer asks about.
func (o our) isAbout(finding kvmcheck.Finding) bool {
	if o.word == "" || finding.Reason != kvmcheck.ControllerMissing {
		return true
	}
	_, missing, _ := strings.Cut(finding.Message, " lacks ")
	return regexp.MustCompile(`(^|, )(` + o.word + `)(,|$)`).MatchString(missing)
}

func TestLessIsFound(t *testing.T) {
	ready := func(area, check string) kvmcheck.Finding {
		return kvmcheck.Finding{Area: area, Check: check, Status: kvmcheck.Ready}
	}
	missing := kvmcheck.Finding{
		Area: "cgroup", Check: "controllers", Status: kvmcheck.NotReady, Reason: kvmcheck.ControllerMissing,
		Message: "/x (version 2) lacks memory, io", Remedy: "boot",
	}
	bare := kvmcheck.Finding{Area: "devices", Check: "tun", Status: kvmcheck.NotReady, Reason: kvmcheck.DeviceMissing, Message: "no"}
	for name, test := range map[string]struct {
		check, verdict string
		ours           []kvmcheck.Finding
		less           []string
	}{
		"both are fine":                {"device /dev/net/tun exists", "PASS", []kvmcheck.Finding{ready("devices", "tun")}, nil},
		"ours does not see a fault":    {"device /dev/net/tun exists", "FAIL", []kvmcheck.Finding{ready("devices", "tun")}, []string{"peer: device /dev/net/tun exists: FAIL, and ours is Ready "}},
		"ours sees a fault of its own": {"device /dev/net/tun exists", "PASS", []kvmcheck.Finding{bare}, []string{"devices/tun is NotReady without reason, message or remedy", "peer: device /dev/net/tun exists: PASS, and ours is NotReady DeviceMissing"}},
		"ours says nothing":            {"device /dev/net/tun exists", "PASS", nil, []string{"peer: device /dev/net/tun exists: we have no finding devices/tun"}},
		"a question that is new":       {"phase of the moon", "PASS", nil, []string{"peer: phase of the moon: nobody has said which of our checks answers that"}},
		"the controller that lacks":    {"cgroup blkio controller support", "WARN", []kvmcheck.Finding{missing}, nil},
		"a controller that does not":   {"cgroup cpu controller support", "PASS", []kvmcheck.Finding{missing}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, less := compare([]answer{{"peer", test.check, test.verdict, ""}}, test.ours)
			if diff := cmp.Diff(test.less, less); diff != "" {
				t.Error(diff)
			}
		})
	}
}
