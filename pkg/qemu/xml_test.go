package qemu

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// domainText is a domain as libvirt shows a running one.
const domainText = `<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>default_vm1</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <metadata>
    <kubevirt xmlns="http://kubevirt.io"><uid>abc</uid><name>no name of a machine</name></kubevirt>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>1048576</memory>
  <vcpu placement='static'>2</vcpu>
  <iothreads>2</iothreads>
  <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' iothread='1'/>
      <source file='/images/root &amp; more.qcow2' index='2'/>
      <backingStore type='file'><format type='raw'/><source file='/images/base.raw'/></backingStore>
      <target dev='vda' bus='virtio'/>
      <serial>s-1</serial>
      <alias name='ua-rootdisk'/>
    </disk>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='pool/image'><host name='10.0.0.1' port='6789'/></source>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='block' device='disk'><source dev='/dev/data'/><target dev='sda' bus='scsi'/></disk>
    <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='sdb' bus='scsi'/></disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>
    <interface type='bridge'>
      <mac address='52:54:00:aa:bb:cc'/><source bridge='br0'/><target dev='vnet3'/><model type='virtio'/><alias name='ua-default'/>
    </interface>
    <interface type='hostdev' managed='yes'>
      <mac address='52:54:00:aa:bb:cd'/>
      <source><address type='pci' domain='0x0000' bus='0x06' slot='0x10' function='0x2'/></source>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </interface>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0001' bus='0xaf' slot='0x00' function='0x7'/></source>
      <address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb'><source><address bus='1' device='3'/></source></hostdev>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <channel type='unix'><target type='virtio' name='org.other' state='disconnected'/></channel>
  </devices>
  <qemu:commandline><qemu:arg value='-x'/></qemu:commandline>
</domain>
`

// novaText is what OpenStack notes.
const novaText = `<domain type='kvm'><name>instance-00000001</name><metadata>
  <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
    <nova:package version="29.0.0"/>
    <nova:name>web "1" &lt;x&gt;</nova:name>
    <nova:flavor name="m1.small"><nova:memory>2048</nova:memory></nova:flavor>
    <nova:owner><nova:user uuid="u">somebody</nova:user><nova:project uuid="p">admin</nova:project></nova:owner>
  </nova:instance></metadata></domain>`

func TestParseDefinition(t *testing.T) {
	got, err := parseDefinition([]byte(domainText))
	if err != nil {
		t.Fatal(err)
	}
	want := &Definition{
		Machine: "pc-q35-10.0", Architecture: "x86_64", OS: "http://debian.org/debian/12", IOThreads: 2,
		Disks: []DiskDevice{
			{Target: "vda", Kind: "disk", Bus: "virtio", Source: "/images/root & more.qcow2", IOThread: 1, Alias: "ua-rootdisk"},
			{Target: "vdb", Kind: "disk", Bus: "virtio", Source: "rbd:pool/image"},
			{Target: "sda", Kind: "disk", Bus: "scsi", Source: "/dev/data"},
			{Target: "sdb", Kind: "disk", Bus: "scsi", Source: "p/v"},
			{Target: "hda", Kind: "cdrom", Bus: "ide"},
		},
		Interfaces: []InterfaceDevice{
			{Target: "vnet3", MAC: "52:54:00:aa:bb:cc", Model: "virtio", Kind: "bridge", Bridge: "br0", Alias: "ua-default"},
			{MAC: "52:54:00:aa:bb:cd", Kind: "hostdev", PCI: "0000:06:10.2"},
		},
		HostDevices: []string{"0000:06:10.2", "0001:af:00.7"},
		agent:       Some(1),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Definition{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseDefinitionOfOpenStack(t *testing.T) {
	got, err := parseDefinition([]byte(novaText))
	if err != nil {
		t.Fatal(err)
	}
	want := &Definition{Flavor: "m1.small", nova: true, project: "admin", name: `web "1" <x>`}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Definition{})); diff != "" {
		t.Error(diff)
	}
	// The same words in another name space mean something else.
	other := strings.Replace(novaText, "http://openstack.org", "http://example.org", 1)
	if got, err := parseDefinition([]byte(other)); err != nil || got.nova {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseDefinitionRefusesHostileXML(t *testing.T) {
	bomb := `<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><domain><name>&b;</name></domain>`
	file := `<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/shadow">]><domain><os><type machine="&a;"/></os></domain>`
	for name, text := range map[string]string{
		"nothing":          "",
		"no XML":           "\x00\x01",
		"another document": "<network/>",
		"cut":              domainText[:len(domainText)/2],
		"entity bomb":      bomb,
		"external entity":  file,
		"invalid UTF-8":    "<domain><metadata>\xff</metadata></domain>",
		"another encoding": `<?xml version="1.0" encoding="utf-16"?><domain/>`,
		"deep":             strings.Repeat("<domain>", 20000),
		"large":            "<domain>" + strings.Repeat(" ", maxXML) + "</domain>",
		"wild number":      "<domain><iothreads>99999999999999999999</iothreads></domain>",
	} {
		if got, err := parseDefinition([]byte(text)); !errors.Is(err, errBadXML) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestParseDefinitionBoundsWhatItKeeps(t *testing.T) {
	var text strings.Builder
	text.WriteString("<domain><devices>")
	for i := range 1000 {
		_, _ = fmt.Fprintf(&text, "<disk><target dev='d%d'/></disk><interface><target dev='%s'/></interface>", i, strings.Repeat("n", 300))
	}
	text.WriteString("</devices></domain>")
	got, err := parseDefinition([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	checkBounds(t, got)
	if len(got.Disks) != maxListed || got.Disks[maxListed-1].Target != "d255" {
		t.Errorf("%d disks", len(got.Disks))
	}
}

func checkBounds(t *testing.T, d *Definition) {
	t.Helper()
	if len(d.Disks) > maxListed || len(d.Interfaces) > maxListed || len(d.HostDevices) > 2*maxListed {
		t.Errorf("%d disks, %d interfaces, %d devices", len(d.Disks), len(d.Interfaces), len(d.HostDevices))
	}
	texts := append([]string{d.Machine, d.Architecture, d.OS, d.Flavor, d.project, d.name}, d.HostDevices...)
	for _, disk := range d.Disks {
		texts = append(texts, disk.Target, disk.Kind, disk.Bus, disk.Source, disk.Alias)
	}
	for _, nic := range d.Interfaces {
		texts = append(texts, nic.Target, nic.MAC, nic.Model, nic.Kind, nic.PCI, nic.Alias)
	}
	for _, text := range texts {
		if len(text) > maxName || !utf8.ValidString(text) {
			t.Errorf("%q", text)
		}
	}
}

func FuzzParseDefinition(f *testing.F) {
	f.Add([]byte(domainText))
	f.Add([]byte(novaText))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDefinition(data)
		if err != nil {
			return
		}
		checkBounds(t, d)
		if again, err := parseDefinition(data); err != nil || !cmp.Equal(d, again, cmp.AllowUnexported(Definition{}), cmpopts.EquateEmpty()) {
			t.Errorf("read twice: %v", err)
		}
	})
}
