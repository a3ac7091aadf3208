package sriov_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/sriov"
	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestPFsOfARecordedMachine(t *testing.T) {
	root, _ := hosttest.OpenHost(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-numa-sriov.tar.gz"))
	pfs, err := sriov.PFs(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(pfs) != 2 {
		t.Fatalf("got %d PFs", len(pfs))
	}
	for node, pf := range pfs {
		if pf.TotalVFs != 7 || pf.NumVFs != []int{7, 3}[node] || pf.Driver != "igb" || *pf.NUMANode != node || len(pf.Netdevs) != 1 {
			t.Errorf("got %+v", pf)
		}
		for index, vf := range pf.VFs {
			if vf.Index != index || vf.Address <= pf.Address || vf.IOMMUGroup == nil || vf.Driver == "" {
				t.Errorf("got %+v", vf)
			}
		}
	}
}

func TestUnreadablePFIsNamedAndHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"0000:01:00.0/sriov_totalvfs": "8\n", "0000:01:00.0/sriov_numvfs": "0\n", "0000:01:00.0/numa_node": "-1\n",
		"0000:02:00.0/sriov_totalvfs": "many\n",
		"0000:03:00.0/sriov_totalvfs": "70000\n",
		"0000:04:00.0/sriov_totalvfs": "8\n", "0000:04:00.0/sriov_numvfs": "1\n", "0000:04:00.0/virtfnX": "",
		"0000:05:00.0/class": "0x020000\n",
	} {
		full := filepath.Join(dir, "sys/bus/pci/devices", name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pfs, err := sriov.PFs(root)
	if diff := cmp.Diff([]sriov.PF{{Address: "0000:01:00.0", TotalVFs: 8}}, pfs); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{
		`read PF 0000:02:00.0: parse /sys/bus/pci/devices/0000:02:00.0/sriov_totalvfs: want an unsigned number, have "many\n"`,
		"read PF 0000:03:00.0: parse /sys/bus/pci/devices/0000:03:00.0/sriov_totalvfs: 70000 VFs, the most is 65535",
		"read PF 0000:04:00.0: parse /sys/bus/pci/devices/0000:04:00.0/virtfnX: want a VF index after virtfn",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

func TestMachineWithoutPCIHasNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sys/kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if pfs, err := sriov.PFs(root); len(pfs) != 0 || err != nil {
		t.Errorf("got %v, %v", pfs, err)
	}
}
