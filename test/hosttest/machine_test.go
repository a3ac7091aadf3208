package hosttest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smallMachine = `# a comment
system amd64 Linux 6.12.0
/sys/value = Y
/sys/empty =
/sys/link -> ../proc
/sys/unit{1-2}/
/sys/node{0-1}/id = {}
/proc/cpuinfo: each 0-1
	processor	: {}
	flags	: vmx
devices:
	{}
`

func TestParseMachine(t *testing.T) {
	got, err := parseMachine(smallMachine)
	if err != nil {
		t.Fatal(err)
	}
	want := &machine{
		arch: "amd64", kernel: "6.12.0", devices: "{}\n",
		files: map[string]string{
			"/sys/value": "Y\n", "/sys/empty": "\n", "/sys/node0/id": "0\n", "/sys/node1/id": "1\n",
			"/proc/cpuinfo": "processor\t: 0\nflags\t: vmx\nprocessor\t: 1\nflags\t: vmx\n",
		},
		links: map[string]string{"/sys/link": "../proc"},
		dirs:  []string{"/sys/unit1", "/sys/unit2"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(machine{})); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{
		"nothing":              "",
		"no system":            "devices:\n\t{}\n",
		"no devices":           "system amd64 Linux 6.12.0\n",
		"a line of no meaning": smallMachine + "sys/value Y\n",
		"an empty block":       smallMachine + "/proc/cmdline:\n",
		"text without a head":  smallMachine + "\n\tprocessor: 1\n",
	} {
		if _, err := parseMachine(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
