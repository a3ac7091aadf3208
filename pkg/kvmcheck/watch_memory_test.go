package kvmcheck_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestHugepageStateChangesWithWhatAFindingNeeds(t *testing.T) {
	const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
	for name, test := range map[string]struct {
		counter, value string
		want           string // the pool's line
	}{
		"as recorded":       {"nr_hugepages", "64", "64 pages, some free"},
		"more pages":        {"nr_hugepages", "65", "65 pages, some free"},
		"fewer free pages":  {"free_hugepages", "1", "64 pages, some free"},
		"no page free":      {"free_hugepages", "0", "64 pages, none free"},
		"a lying counter":   {"nr_hugepages", "many", "? pages, some free"},
		"another such":      {"nr_hugepages", "few", "? pages, some free"},
		"free is not known": {"free_hugepages", "", "64 pages, ? free"},
	} {
		t.Run(name, func(t *testing.T) {
			root, host := hosttest.OpenHost(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-kvm.tar.gz"))
			full, err := root.Resolve(pool + test.counter)
			if err == nil {
				err = os.WriteFile(full, []byte(test.value), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			const other = "/sys/kernel/mm/hugepages/hugepages-1048576kB: 0 pages, none free\n"
			const node = "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB: 0 pages, none free\n" +
				"/sys/devices/system/node/node0/hugepages/hugepages-2048kB: 64 pages, some free\n"
			want := other + filepath.Clean(pool) + ": " + test.want + "\n" + node
			if diff := cmp.Diff(want, kvmcheck.HugepageState(t.Context(), host)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHugepageStateOfUnreadablePoolsStays(t *testing.T) {
	root, host := hosttest.OpenHost(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-kvm.tar.gz"))
	for _, dir := range []string{"/sys/kernel/mm/hugepages", "/sys/devices/system/node"} {
		root.Recording().Faults["list "+dir] = "EIO"
	}
	if diff := cmp.Diff("/sys/kernel/mm/hugepages: ?\n", kvmcheck.HugepageState(t.Context(), host)); diff != "" {
		t.Error(diff)
	}
}
