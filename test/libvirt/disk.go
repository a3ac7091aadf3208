package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeDisks makes the domain's disk files; the first holds its boot sector.
func (h *Host) makeDisks(ctx context.Context, domain Domain) error {
	var mac net.HardwareAddr
	if domain.Workload == DiskAndNet {
		mac = make(net.HardwareAddr, 6)
		if len(domain.NICs) > 0 {
			var err error
			if mac, err = net.ParseMAC(domain.NICs[0].MAC); err != nil {
				return err
			}
		}
	}
	sector, err := domain.Workload.bootSector(mac)
	if err != nil {
		return err
	}
	for i, disk := range domain.Disks {
		if i > 0 {
			sector = nil
		}
		if err := makeDisk(ctx, filepath.Join(h.dir, imageDir, domain.diskFile(i)), disk, sector); err != nil {
			return err
		}
	}
	return nil
}

// makeDisk makes one disk file that starts with the sector.
func makeDisk(ctx context.Context, file string, disk Disk, sector []byte) error {
	size := int64(disk.SizeMiB) << 20
	switch disk.Format {
	case "raw":
		return makeRaw(file, size, sector)
	case "qcow2":
		raw := file + ".raw"
		if err := makeRaw(raw, size, sector); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, file).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("make %s: %w: %s", file, err, strings.TrimSpace(string(out)))
		}
		return errors.Join(err, os.Remove(raw))
	}
	return fmt.Errorf("make %s: no disk format %q", file, disk.Format)
}

func makeRaw(file string, size int64, sector []byte) error {
	if err := os.WriteFile(file, sector, 0o600); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	if err := os.Truncate(file, size); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	return nil
}
