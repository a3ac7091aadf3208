package libvirt

import (
	"bytes"
	"net"
	"testing"
)

func TestBootSectors(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}
	for _, workload := range []Workload{Idle, Busy, DiskAndNet} {
		t.Run(workload.String(), func(t *testing.T) {
			sector, err := workload.bootSector(mac)
			if err != nil {
				t.Fatal(err)
			}
			if len(sector) != sectorSize || !bytes.HasSuffix(sector, []byte{0x55, 0xAA}) {
				t.Errorf("not a boot sector: %d bytes, ending % X", len(sector), sector[len(sector)-2:])
			}
			if workload == DiskAndNet && bytes.Count(sector, mac) != 2 {
				t.Error("the frame is not from the NIC")
			}
		})
	}
	if _, err := Workload(99).bootSector(mac); err == nil {
		t.Error("a workload without a program has a sector")
	}
}

func TestAssemble(t *testing.T) {
	got, err := assemble([]instruction{
		at("start"),
		address("mov si, data", "data", 0xBE),
		near("jz end", "end", 0x0F, 0x84),
		near("jmp start", "start", 0xE9),
		at("end"),
		op("hlt", 0xF4),
		at("data"),
		op("data", 0x2A),
	})
	if err != nil {
		t.Fatal(err)
	}
	// As GNU as makes it of the same program, with the long form of the jumps.
	want := []byte{0xBE, 0x0B, 0x7C, 0x0F, 0x84, 0x03, 0x00, 0xE9, 0xF6, 0xFF, 0xF4, 0x2A}
	if !bytes.HasPrefix(got, want) {
		t.Errorf("assembled % X, want % X", got[:len(want)], want)
	}
}

func TestAssembleRefuses(t *testing.T) {
	for name, program := range map[string][]instruction{
		"a jump to nowhere":  {near("jmp nowhere", "nowhere", 0xE9)},
		"too long a program": {op("data", make([]byte, sectorSize-1)...)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := assemble(program); err == nil {
				t.Error("no error")
			}
		})
	}
}
