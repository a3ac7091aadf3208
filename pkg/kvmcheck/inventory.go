package kvmcheck

import (
	"errors"
	"fmt"
	"path"

	"github.com/jaypipes/ghw"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	pciDevices = "/sys/bus/pci/devices"
	dmiDir     = "/sys/class/dmi/id"
	ghwUnknown = "unknown" // ghw's word for every value it could not read
)

func ghwOptions(root *hostfs.Root) []any {
	return []any{
		ghw.WithChroot(root.Dir()),
		ghw.WithDisableTools(),    // no program is ever started
		ghw.WithDisableTopology(), // NUMA is read in collectNUMA; docs/design/inventory.md says why
		ghw.WithDisableWarnings(), // what is missing becomes a fact
	}
}

// collectProduct reads the machine's name from DMI or the device tree.
func collectProduct(root *hostfs.Root) Reading[Product] {
	info, err := guard(root, dmiDir, func() (*ghw.ProductInfo, error) { return ghw.Product(ghwOptions(root)...) })
	if err != nil {
		return unknown[Product](dmiDir, err)
	}
	if info.Vendor == ghwUnknown && info.Name == ghwUnknown {
		return unknown[Product](dmiDir, errors.New("neither DMI nor the device tree names this machine"))
	}
	product := Product{Vendor: info.Vendor, Name: info.Name}
	if product.Vendor == ghwUnknown {
		product.Vendor = ""
	}
	if product.Name == ghwUnknown {
		product.Name = ""
	}
	return known(dmiDir, product)
}

// collectPCI lists the PCI devices. ghw gives an empty list when it cannot
// read one of them, so the count is checked against the directory.
func collectPCI(root *hostfs.Root) Reading[[]PCIDevice] {
	addresses, err := root.ReadDir(pciDevices)
	if hostfs.Absent(err) {
		return known(pciDevices, []PCIDevice{}) // a machine without PCI
	}
	if err != nil {
		return unknown[[]PCIDevice](pciDevices, err)
	}
	info, err := guard(root, pciDevices, func() (*ghw.PCIInfo, error) { return ghw.PCI(ghwOptions(root)...) })
	if err != nil {
		return unknown[[]PCIDevice](pciDevices, err)
	}
	if len(info.Devices) != len(addresses) {
		return unknown[[]PCIDevice](pciDevices, unreadablePCI(root, addresses))
	}
	devices := make([]PCIDevice, 0, len(info.Devices))
	for _, device := range info.Devices {
		devices = append(devices, PCIDevice{
			Address:    device.Address,
			Vendor:     device.Vendor.ID,
			Device:     device.Product.ID,
			Class:      device.Class.ID + device.Subclass.ID,
			Driver:     device.Driver,
			IOMMUGroup: device.IOMMUGroup,
		})
	}
	return known(pciDevices, devices)
}

// unreadablePCI finds the device that ghw stopped at.
func unreadablePCI(root *hostfs.Root, addresses []string) error {
	for _, address := range addresses {
		name := path.Join(pciDevices, address, "modalias")
		text, err := root.ReadString(name)
		if err != nil {
			return err
		}
		if text == "" {
			return fmt.Errorf("parse %s: it is empty", name)
		}
	}
	return errors.New("a device's name or modalias cannot be parsed")
}

// guard turns a panic over a lying file into an error, and bounds what reads
// past hostfs as hostfs bounds its own reads.
func guard[T any](root *hostfs.Root, dir string, call func() (T, error)) (T, error) {
	return hostfs.Within(root, "take stock of", dir, func() (result T, err error) {
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("read inventory: %v", cause)
			}
		}()
		return call()
	})
}

// recordInventory reads through root what ghw reads past it, so that a
// recording holds it. Errors are recorded too.
func recordInventory(root *hostfs.Root) {
	for _, name := range []string{"product_family", "product_name", "product_version", "sys_vendor"} {
		_, _ = root.ReadFile(path.Join(dmiDir, name))
	}
	for _, name := range []string{"model", "compatible"} {
		_, _ = root.ReadFile(path.Join("/sys/firmware/devicetree/base", name))
	}
	addresses, _ := root.ReadDir(pciDevices)
	for _, address := range addresses {
		dir := path.Join(pciDevices, address)
		for _, name := range []string{"modalias", "revision"} {
			_, _ = root.ReadFile(path.Join(dir, name))
		}
		for _, name := range []string{"driver", "iommu_group"} {
			_, _ = root.Exists(path.Join(dir, name)) // the link's end
			_, _ = root.ReadLink(path.Join(dir, name))
		}
	}
}
