package hostnet

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// attribute writes one attribute as the kernel does.
func attribute(kind uint16, value ...byte) []byte {
	data := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	data = append(binary.NativeEndian.AppendUint16(data, kind), value...)
	return append(data, make([]byte, -len(data)&(unix.NLA_ALIGNTO-1))...)
}

// vfAnswer is RTM_NEWLINK of a PF whose VFs have these counters, in the order
// of the kernel's attributes (0 to 5, 7 and 8). On machines that want it, the
// kernel puts padding (6) before a number that would not be aligned.
func vfAnswer(padded bool, vfs ...[8]uint64) []byte {
	var list []byte
	for index, numbers := range vfs {
		var stats []byte
		for i, number := range numbers {
			kind := uint16(i)
			if i >= unix.IFLA_VF_STATS_PAD {
				kind++
			}
			if padded {
				stats = append(stats, attribute(unix.IFLA_VF_STATS_PAD)...)
			}
			stats = append(stats, attribute(kind, binary.NativeEndian.AppendUint64(nil, number)...)...)
		}
		mac := append(binary.NativeEndian.AppendUint32(nil, uint32(index)), make([]byte, 32)...)
		list = append(list, attribute(unix.IFLA_VF_INFO, slices.Concat(attribute(unix.IFLA_VF_MAC, mac...), attribute(unix.IFLA_VF_STATS, stats...))...)...)
	}
	return slices.Concat(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_IFNAME, []byte("eth0\x00")...), attribute(unix.IFLA_VFINFO_LIST, list...))
}

func TestVFCountersAreReadAsTheKernelWritesThem(t *testing.T) {
	for _, padded := range []bool{false, true} {
		got := parseVFCounters(vfAnswer(padded, [8]uint64{1, 2, 3, 4, 5, 6, 7, 8}, [8]uint64{}, [8]uint64{1 << 63}))
		want := map[int]VFCounters{
			0: {RxPackets: 1, TxPackets: 2, RxBytes: 3, TxBytes: 4, Broadcast: 5, Multicast: 6, RxDropped: 7, TxDropped: 8},
			1: {},
			2: {RxPackets: 1 << 63},
		}
		if diff := cmp.Diff(want, got); diff != "" || !counts(got) {
			t.Errorf("padded %v: %s", padded, diff)
		}
	}
	if counts(parseVFCounters(vfAnswer(false, [8]uint64{}, [8]uint64{}))) {
		t.Error("a driver that tells zeros of all VFs is said to count")
	}
}

func FuzzParseVFCounters(f *testing.F) {
	f.Add(vfAnswer(false, [8]uint64{1, 2, 3, 4, 5, 6, 7, 8}, [8]uint64{}))
	f.Add(vfAnswer(true, [8]uint64{1})[:100])
	f.Fuzz(func(t *testing.T, data []byte) {
		for index := range parseVFCounters(data) {
			if index < 0 {
				t.Errorf("VF %d", index)
			}
		}
	})
}

// TestVFCountersOnTheKernel compares with ip, on a PF that has VFs.
func TestVFCountersOnTheKernel(t *testing.T) {
	pf := os.Getenv("NODEAGENT_HOSTNET_PF")
	if pf == "" {
		t.Skip("NODEAGENT_HOSTNET_PF names no PF: the tests of package test/vm run this one in a machine of theirs")
	}
	var links []struct {
		VFs []struct {
			VF    int
			Stats map[string]map[string]uint64
		} `json:"vfinfo_list"`
	}
	out, err := exec.Command("ip", "-json", "-stats", "link", "show", pf).Output()
	if err == nil {
		err = json.Unmarshal(out, &links)
	}
	if err != nil || len(links) != 1 || len(links[0].VFs) != 7 {
		t.Fatalf("%v: %s", err, out)
	}
	want := make(map[int]VFCounters)
	for _, vf := range links[0].VFs {
		rx, tx := vf.Stats["rx"], vf.Stats["tx"]
		want[vf.VF] = VFCounters{
			RxPackets: rx["packets"], RxBytes: rx["bytes"], RxDropped: rx["dropped"], Multicast: rx["multicast"], Broadcast: rx["broadcast"],
			TxPackets: tx["packets"], TxBytes: tx["bytes"], TxDropped: tx["dropped"],
		}
	}
	answer, err := askVFs(pf)
	if err != nil {
		t.Fatal(err)
	}
	got := parseVFCounters(answer)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ip says otherwise: %s\n%s", diff, out)
	}
	told, err := ReadVFCounters(pf)
	if err != nil || counts(got) != (told != nil) {
		t.Errorf("%v, %v", told, err)
	}
	t.Logf("VFs %v; the driver counts: %v\n%s", slices.Sorted(maps.Keys(got)), counts(got), out)
	if _, err := ReadVFCounters("none"); err == nil {
		t.Error("no error for a link that is not there")
	}
}
