package libvirt

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// Domain is a virtual machine to define. The zero value of every field but
// Name is usable.
type Domain struct {
	Name      string // one word, unique in the bed
	KVM       bool   // the guest runs on /dev/kvm, not on QEMU's own processor
	VCPUs     int    // 1 when zero
	MemoryMiB int    // 32 when zero
	Disks     []Disk // one qcow2 disk when empty; the first holds the workload
	NICs      []NIC  // none when empty
	CDROM     bool   // an empty CD-ROM drive
	IOThreads int    // which the disks share
	Workload  Workload
	OnCrash   string // what libvirt does when the guest panics: destroy when empty
	Panic     bool   // pvpanic, through which a guest says that it did
	Title     string
	Metadata  string // XML, of a name space of its own
}

// Disk is a virtio disk on a file that takes no room until it is written.
type Disk struct {
	Format  string // qcow2 when empty, or raw
	SizeMiB int    // 8 when zero
}

// NIC is a network card on a tap.
type NIC struct {
	Tap   string // the tap's name; libvirt chooses one when empty
	MAC   string // derived from the domain's name when empty
	Model string // virtio when empty
}

// Define makes the domain's disks and makes it known to libvirtd, shut off.
func (h *Host) Define(ctx context.Context, domain Domain) error {
	domain = domain.filled()
	if err := h.makeDisks(ctx, domain); err != nil {
		return fmt.Errorf("make the disks of %s: %w", domain.Name, err)
	}
	if err := h.pod.own(filepath.Join(h.dir, imageDir)); err != nil {
		return err
	}
	text, err := domain.xml(filepath.Join(h.dir, imageDir))
	if err != nil {
		return fmt.Errorf("describe %s: %w", domain.Name, err)
	}
	file := filepath.Join(h.dir, imageDir, domain.Name+".xml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("describe %s: %w", domain.Name, err)
	}
	_, err = h.Virsh(ctx, "define", file)
	return err
}

// StartDomain defines the domain and starts it.
func (h *Host) StartDomain(ctx context.Context, domain Domain) error {
	if err := h.Define(ctx, domain); err != nil {
		return err
	}
	return h.Boot(ctx, domain.Name)
}

// StartDomains starts several domains, as many at once as there are processors.
func (h *Host) StartDomains(ctx context.Context, domains ...Domain) error {
	errs := make([]error, len(domains))
	slots := make(chan struct{}, runtime.NumCPU())
	var group sync.WaitGroup
	for i, domain := range domains {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = h.StartDomain(ctx, domain)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// Boot starts a domain that is defined and shut off.
func (h *Host) Boot(ctx context.Context, domain string) error {
	_, err := h.Virsh(ctx, "start", domain)
	return err
}

// filled is the domain with every field set.
func (d Domain) filled() Domain {
	d.VCPUs = max(d.VCPUs, 1)
	if d.MemoryMiB == 0 {
		d.MemoryMiB = 32
	}
	if len(d.Disks) == 0 {
		d.Disks = []Disk{{}}
	}
	disks, nics := make([]Disk, len(d.Disks)), make([]NIC, len(d.NICs))
	for i, disk := range d.Disks {
		if disk.Format == "" {
			disk.Format = "qcow2"
		}
		if disk.SizeMiB == 0 {
			disk.SizeMiB = 8
		}
		disks[i] = disk
	}
	for i, nic := range d.NICs {
		if nic.MAC == "" {
			nic.MAC = deriveMAC(d.Name, i).String()
		}
		if nic.Model == "" {
			nic.Model = "virtio"
		}
		nics[i] = nic
	}
	d.Disks, d.NICs = disks, nics
	return d
}

// deriveMAC is an address in QEMU's range that stays the same between runs.
func deriveMAC(domain string, nic int) net.HardwareAddr {
	hash := fnv.New32a()
	_, _ = fmt.Fprintf(hash, "%s %d", domain, nic)
	sum := hash.Sum(nil)
	return net.HardwareAddr{0x52, 0x54, 0x00, sum[1], sum[2], sum[3]}
}

// diskFile names the file of the domain's i-th disk.
func (d Domain) diskFile(i int) string {
	return fmt.Sprintf("%s-%d.%s", d.Name, i, d.Disks[i].Format)
}
