package qemu

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Definition is what a machine's XML says about it. It is made anew when the
// XML changes, and never changes itself: all readers share it.
type Definition struct {
	Machine      string // such as pc-q35-10.0, which says QEMU's version
	Architecture string
	OS           string // of the guest, as libosinfo's URL
	Flavor       string // OpenStack's
	IOThreads    int
	Disks        []DiskDevice
	Interfaces   []InterfaceDevice
	HostDevices  []string // PCI addresses that the guest has, VFs of interfaces too

	nova          bool // OpenStack's metadata is there, with:
	project, name string
	agent         Num    // as Agent of VM
	memoryPeriod  uint32 // seconds between the memory statistics of the guest; 0: there are none
}

// DiskDevice is one disk of a machine.
type DiskDevice struct {
	Target   string // in the guest, such as vda
	Kind     string // disk, cdrom, floppy or lun
	Bus      string
	Source   string // path, or PROTOCOL:NAME of a network's disk; empty: no medium
	IOThread int    // 0: none
	Alias    string // ua-… when a user gave it
}

// InterfaceDevice is one network interface of a machine.
type InterfaceDevice struct {
	Target string // device on the host; empty when the guest has the card itself
	MAC    string
	Model  string
	Kind   string // libvirt's type, such as bridge, direct or hostdev
	Bridge string // that it is plugged into; empty: none
	PCI    string // address on the host of the card that the guest has
	Alias  string // ua-… when a user gave it
}

const (
	// maxXML bounds the XML of a machine. With 200 devices it has 100 KiB.
	maxXML = 1 << 20
	// maxListed bounds each list of devices.
	maxListed = 256
	// agentChannel is what the guest agent's channel is called.
	agentChannel = "org.qemu.guest_agent.0"
	// novaSpace begins the XML name space of OpenStack's metadata, before its version.
	novaSpace = "http://openstack.org/xmlns/libvirt/nova/"
	// osinfoSpace is that of libosinfo.
	osinfoSpace = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
)

var errBadXML = errors.New("domain XML cannot be read")

// bounded is a list of elements of which the first 256 count.
type bounded[T any] []T

// UnmarshalXML is called for each element of the list.
func (b *bounded[T]) UnmarshalXML(decoder *xml.Decoder, start xml.StartElement) error {
	if len(*b) >= maxListed {
		return decoder.Skip()
	}
	var element T
	if err := decoder.DecodeElement(&element, &start); err != nil {
		return err
	}
	*b = append(*b, element)
	return nil
}

// The part of libvirt's domain XML that matters here.
type (
	domainXML struct {
		XMLName   xml.Name `xml:"domain"`
		IOThreads uint16   `xml:"iothreads"`
		OS        struct {
			Architecture string `xml:"arch,attr"`
			Machine      string `xml:"machine,attr"`
		} `xml:"os>type"`
		Metadata struct {
			Applications bounded[metadataXML] `xml:",any"`
		} `xml:"metadata"`
		Devices struct {
			Disks       bounded[diskXML]      `xml:"disk"`
			Interfaces  bounded[interfaceXML] `xml:"interface"`
			HostDevices bounded[hostDevXML]   `xml:"hostdev"`
			Channels    bounded[channelXML]   `xml:"channel"`
			Balloon     struct {
				Stats struct {
					Period uint32 `xml:"period,attr"`
				} `xml:"stats"`
			} `xml:"memballoon"`
		} `xml:"devices"`
	}
	// metadataXML is what one application noted: OpenStack or libosinfo.
	metadataXML struct {
		XMLName xml.Name
		Name    string  `xml:"name"`
		Project string  `xml:"owner>project"`
		Flavor  nameXML `xml:"flavor"`
		OS      struct {
			ID string `xml:"id,attr"`
		} `xml:"os"`
	}
	nameXML struct {
		Name string `xml:"name,attr"`
	}
	diskXML struct {
		Device string  `xml:"device,attr"`
		Alias  nameXML `xml:"alias"`
		Driver struct {
			IOThread uint16 `xml:"iothread,attr"`
		} `xml:"driver"`
		Source struct {
			File     string `xml:"file,attr"`
			Dev      string `xml:"dev,attr"`
			Dir      string `xml:"dir,attr"`
			Protocol string `xml:"protocol,attr"`
			Name     string `xml:"name,attr"`
			Pool     string `xml:"pool,attr"`
			Volume   string `xml:"volume,attr"`
		} `xml:"source"`
		Target struct {
			Dev string `xml:"dev,attr"`
			Bus string `xml:"bus,attr"`
		} `xml:"target"`
	}
	interfaceXML struct {
		Type  string  `xml:"type,attr"`
		Alias nameXML `xml:"alias"`
		MAC   struct {
			Address string `xml:"address,attr"`
		} `xml:"mac"`
		Target struct {
			Dev string `xml:"dev,attr"`
		} `xml:"target"`
		Model struct {
			Type string `xml:"type,attr"`
		} `xml:"model"`
		Source struct {
			Bridge string `xml:"bridge,attr"`
			PCI    pciXML `xml:"address"`
		} `xml:"source"`
	}
	hostDevXML struct {
		Type string `xml:"type,attr"`
		PCI  pciXML `xml:"source>address"`
	}
	pciXML struct {
		Domain   string `xml:"domain,attr"`
		Bus      string `xml:"bus,attr"`
		Slot     string `xml:"slot,attr"`
		Function string `xml:"function,attr"`
	}
	channelXML struct {
		Target struct {
			Name  string `xml:"name,attr"`
			State string `xml:"state,attr"`
		} `xml:"target"`
	}
)

// parseDefinition reads the XML of a domain (formatdomain of libvirt). Who
// wrote it may be hostile: an entity of its own or a broken character is an
// error, what is too long is cut, and of too many devices the first count.
func parseDefinition(data []byte) (*Definition, error) {
	if len(data) > maxXML {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", errBadXML, len(data), maxXML)
	}
	var domain domainXML
	if err := xml.Unmarshal(data, &domain); err != nil {
		return nil, fmt.Errorf("%w: %s", errBadXML, err.Error())
	}
	d := &Definition{
		Machine: boundName(domain.OS.Machine), Architecture: boundName(domain.OS.Architecture),
		IOThreads: int(domain.IOThreads), memoryPeriod: domain.Devices.Balloon.Stats.Period,
	}
	d.noteMetadata(domain.Metadata.Applications)
	for _, disk := range domain.Devices.Disks {
		d.Disks = append(d.Disks, disk.device())
	}
	for _, nic := range domain.Devices.Interfaces {
		device := nic.device()
		d.Interfaces = append(d.Interfaces, device)
		if device.PCI != "" {
			d.HostDevices = append(d.HostDevices, device.PCI)
		}
	}
	for _, device := range domain.Devices.HostDevices {
		if address := device.PCI.String(); device.Type == "pci" && address != "" {
			d.HostDevices = append(d.HostDevices, address)
		}
	}
	for _, channel := range domain.Devices.Channels {
		if channel.Target.Name == agentChannel {
			d.agent = agentState(channel.Target.State)
		}
	}
	return d, nil
}

func (d *Definition) noteMetadata(applications []metadataXML) {
	for _, app := range applications {
		switch {
		case strings.HasPrefix(app.XMLName.Space, novaSpace) && app.XMLName.Local == "instance":
			d.nova = true
			d.name, d.project = boundName(strings.TrimSpace(app.Name)), boundName(strings.TrimSpace(app.Project))
			d.Flavor = boundName(app.Flavor.Name)
		case app.XMLName.Space == osinfoSpace:
			d.OS = boundName(app.OS.ID)
		}
	}
}

// agentState reads the state of the guest agent's channel: whether something
// in the guest has opened it. A machine that does not run has none.
func agentState(state string) Num {
	switch state {
	case "connected":
		return Some(1)
	case "disconnected":
		return Some(0)
	}
	return Num{}
}

func (x diskXML) device() DiskDevice {
	source := x.Source.File + x.Source.Dev + x.Source.Dir
	switch {
	case x.Source.Protocol != "":
		source = x.Source.Protocol + ":" + x.Source.Name
	case x.Source.Volume != "":
		source = x.Source.Pool + "/" + x.Source.Volume
	}
	return DiskDevice{
		Target: boundName(x.Target.Dev), Kind: boundName(x.Device), Bus: boundName(x.Target.Bus),
		Source: boundName(source), IOThread: int(x.Driver.IOThread), Alias: boundName(x.Alias.Name),
	}
}

func (x interfaceXML) device() InterfaceDevice {
	nic := InterfaceDevice{
		Target: boundName(x.Target.Dev), MAC: boundName(x.MAC.Address), Model: boundName(x.Model.Type), Kind: boundName(x.Type),
		Alias: boundName(x.Alias.Name), Bridge: boundName(x.Source.Bridge),
	}
	if x.Type == "hostdev" {
		nic.PCI = x.Source.PCI.String()
	}
	return nic
}

// String returns the address as sysfs writes it, or nothing when it is none.
func (x pciXML) String() string {
	domain, err1 := strconv.ParseUint(x.Domain, 0, 16)
	bus, err2 := strconv.ParseUint(x.Bus, 0, 8)
	slot, err3 := strconv.ParseUint(x.Slot, 0, 5)
	function, err4 := strconv.ParseUint(x.Function, 0, 3)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return ""
	}
	return fmt.Sprintf("%04x:%02x:%02x.%d", domain, bus, slot, function)
}
