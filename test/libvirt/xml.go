package libvirt

import (
	"encoding/xml"
	"path/filepath"
)

// The part of libvirt's domain XML that the bed uses.
type (
	domainXML struct {
		XMLName   xml.Name   `xml:"domain"`
		Type      string     `xml:"type,attr"`
		Name      string     `xml:"name"`
		Title     string     `xml:"title,omitempty"`
		Metadata  *innerXML  `xml:"metadata"`
		Memory    memoryXML  `xml:"memory"`
		VCPUs     int        `xml:"vcpu"`
		IOThreads int        `xml:"iothreads,omitempty"`
		OS        osTypeXML  `xml:"os>type"`
		CPUMode   cpuXML     `xml:"cpu"`
		Features  *struct{}  `xml:"features>acpi"`
		OnCrash   string     `xml:"on_crash,omitempty"`
		Devices   devicesXML `xml:"devices"`
	}
	memoryXML struct {
		Unit string `xml:"unit,attr"`
		Size int    `xml:",chardata"`
	}
	osTypeXML struct {
		Arch    string `xml:"arch,attr"`
		Machine string `xml:"machine,attr"`
		Type    string `xml:",chardata"`
	}
	cpuXML struct {
		Mode  string `xml:"mode,attr"`
		Check string `xml:"check,attr,omitempty"`
		Model string `xml:"model"`
	}
	devicesXML struct {
		Controllers []controllerXML `xml:"controller"`
		Disks       []diskXML       `xml:"disk"`
		NICs        []nicXML        `xml:"interface"`
		Balloon     balloonXML      `xml:"memballoon"`
		Panic       *panicXML       `xml:"panic"`
	}
	controllerXML struct {
		Type  string `xml:"type,attr"`
		Model string `xml:"model,attr"`
	}
	diskXML struct {
		Type   string    `xml:"type,attr"`
		Device string    `xml:"device,attr"`
		Driver driverXML `xml:"driver"`
		Source *fileXML  `xml:"source"`
		Target targetXML `xml:"target"`
		Boot   *orderXML `xml:"boot"`
	}
	driverXML struct {
		Name     string `xml:"name,attr"`
		Type     string `xml:"type,attr,omitempty"`
		IOThread int    `xml:"iothread,attr,omitempty"`
	}
	fileXML struct {
		File string `xml:"file,attr"`
	}
	targetXML struct {
		Device string `xml:"dev,attr"`
		Bus    string `xml:"bus,attr,omitempty"`
	}
	orderXML struct {
		Order int `xml:"order,attr"`
	}
	nicXML struct {
		Type   string     `xml:"type,attr"`
		MAC    addressXML `xml:"mac"`
		Source *sourceXML `xml:"source"`
		Target *targetXML `xml:"target"`
		Model  modelXML   `xml:"model"`
		Driver *driverXML `xml:"driver"`
		ROM    enabledXML `xml:"rom"`
	}
	addressXML struct {
		Address string `xml:"address,attr"`
	}
	sourceXML struct {
		IP ipXML `xml:"ip"`
	}
	ipXML struct {
		Family  string `xml:"family,attr"`
		Address string `xml:"address,attr"`
		Prefix  int    `xml:"prefix,attr"`
	}
	modelXML struct {
		Type string `xml:"type,attr"`
	}
	enabledXML struct {
		Enabled string `xml:"enabled,attr"`
	}
	balloonXML struct {
		Model string    `xml:"model,attr"`
		Stats periodXML `xml:"stats"`
	}
	panicXML struct {
		Model string `xml:"model,attr"`
	}
	innerXML struct {
		Text string `xml:",innerxml"`
	}
	periodXML struct {
		Period int `xml:"period,attr"`
	}
)

// xml describes a filled domain whose disks are in the folder images.
func (d Domain) xml(images string) ([]byte, error) {
	text := domainXML{
		Type:      "qemu",
		Name:      d.Name,
		Title:     d.Title,
		OnCrash:   d.OnCrash,
		Memory:    memoryXML{Unit: "MiB", Size: d.MemoryMiB},
		VCPUs:     d.VCPUs,
		IOThreads: d.IOThreads,
		// Machine pc is the one whose virtio NICs have legacy registers.
		OS:       osTypeXML{Arch: "x86_64", Machine: "pc", Type: "hvm"},
		CPUMode:  cpuXML{Mode: "custom", Model: "qemu64"},
		Features: &struct{}{},
		Devices: devicesXML{
			Controllers: []controllerXML{{Type: "usb", Model: "none"}},
			Balloon:     balloonXML{Model: "virtio", Stats: periodXML{Period: 5}},
		},
	}
	if d.KVM {
		text.Type, text.CPUMode.Check = "kvm", "none"
	}
	if d.Metadata != "" {
		text.Metadata = &innerXML{d.Metadata}
	}
	if d.Panic {
		text.Devices.Panic = &panicXML{"isa"}
	}
	for i, disk := range d.Disks {
		text.Devices.Disks = append(text.Devices.Disks, d.diskXML(i, disk, images))
	}
	if d.CDROM {
		text.Devices.Disks = append(text.Devices.Disks, diskXML{
			Type: "file", Device: "cdrom", Driver: driverXML{Name: "qemu", Type: "raw"}, Target: targetXML{Device: "hda", Bus: "ide"},
		})
	}
	for i, nic := range d.NICs {
		text.Devices.NICs = append(text.Devices.NICs, d.nicXML(i, nic))
	}
	return xml.MarshalIndent(text, "", "  ")
}

func (d Domain) diskXML(i int, disk Disk, images string) diskXML {
	text := diskXML{
		Type:   "file",
		Device: "disk",
		Driver: driverXML{Name: "qemu", Type: disk.Format},
		Source: &fileXML{File: filepath.Join(images, d.diskFile(i))},
		Target: targetXML{Device: "vd" + string(rune('a'+i)), Bus: "virtio"},
		// The BIOS leaves out disks that are not in the boot order.
		Boot: &orderXML{Order: i + 1},
	}
	if d.IOThreads > 0 {
		text.Driver.IOThread = i%d.IOThreads + 1
	}
	return text
}

func (d Domain) nicXML(i int, nic NIC) nicXML {
	text := nicXML{
		Type:  "ethernet",
		MAC:   addressXML{Address: nic.MAC},
		Model: modelXML{Type: nic.Model},
		ROM:   enabledXML{Enabled: "no"},
	}
	if nic.Model == "virtio" {
		text.Driver = &driverXML{Name: "qemu"}
	}
	if nic.Tap != "" {
		text.Target = &targetXML{Device: nic.Tap}
	}
	if i == 0 && d.Workload == DiskAndNet {
		text.Source = &sourceXML{IP: ipXML{Family: "ipv4", Address: hostAddress, Prefix: 32}}
	}
	return text
}
