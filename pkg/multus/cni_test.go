package multus_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/multus"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// cniPlugins is where Debian's package containernetworking-plugins puts them.
const cniPlugins = "/usr/lib/cni"

// pod is a network namespace that plugins work on, from that of its host.
type pod struct {
	t          *testing.T
	host, self *hosttest.Space
}

func newPod(t *testing.T) pod {
	t.Helper()
	_, err := os.Stat(filepath.Join(cniPlugins, "macvlan"))
	hosttest.Need(t, hosttest.Runtime, err)
	p := pod{t, hosttest.NewSpace(t), hosttest.NewSpace(t)}
	p.host.IP("link add uplink0 type veth peer name uplink1")
	p.host.IP("link property add dev uplink0 altname storage")
	p.host.IP("link set uplink0 up mtu 1500")
	p.host.IP("link set uplink1 up")
	p.host.IP("link add br1 type bridge")
	return p
}

// call calls a plugin as Multus does, with a definition as it was rendered.
func (p pod) call(command string, object multus.Object) {
	p.t.Helper()
	var network struct {
		Type string
		Name string
	}
	if err := json.Unmarshal([]byte(object.Spec.Config), &network); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(cniPlugins, network.Type))
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=nodeagent-test", "CNI_NETNS=" + p.self.Path, "CNI_IFNAME=net1", "CNI_PATH=" + cniPlugins,
		"PATH=" + os.Getenv("PATH"),
	}
	cmd.Stdin = strings.NewReader(object.Spec.Config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	p.host.Inside(func() { err = cmd.Run() })
	if err != nil {
		p.t.Fatalf("%s %s of %s: %v\n%s", network.Type, command, object.Spec.Config, err, &out)
	}
}

// TestPluginsTakeWhatIsRendered gives definitions to the plugins that Debian
// has, on a kernel's links.
func TestPluginsTakeWhatIsRendered(t *testing.T) {
	policies := storage(t)
	policies[0].Spec.Attachments[6].VLAN = 0 // not every kernel has bridges that filter
	objects, err := multus.Attachments(policies)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) multus.Object {
		for _, object := range objects {
			if object.Metadata.Name == name {
				return object
			}
		}
		t.Fatalf("no definition %s", name)
		return multus.Object{}
	}
	t.Run("macvlan on an alternative name, static addresses", func(t *testing.T) {
		p := newPod(t)
		p.call("ADD", find("fixed"))
		link, addresses := p.self.IP("-d link show net1"), p.self.IP("addr show net1")
		if !strings.Contains(link, "mtu 1400") || !strings.Contains(link, "macvlan mode vepa") {
			t.Errorf("got %s", link)
		}
		if !strings.Contains(addresses, "10.9.0.2/24") || !strings.Contains(addresses, "fd00::2/64") {
			t.Errorf("got %s", addresses)
		}
		p.call("DEL", find("fixed"))
		if link, err := p.self.Try("ip link show net1"); err == nil {
			t.Errorf("it is still there: %s", link)
		}
	})
	t.Run("macvlan, host-local addresses", func(t *testing.T) {
		t.Cleanup(func() { _ = os.RemoveAll("/var/lib/cni/networks/local") })
		p := newPod(t)
		p.call("ADD", find("local"))
		if addresses := p.self.IP("addr show net1"); !strings.Contains(addresses, "10.10.0.5/24") {
			t.Errorf("got %s", addresses)
		}
		p.call("DEL", find("local"))
	})
	t.Run("bridge", func(t *testing.T) {
		p := newPod(t)
		p.call("ADD", find("office"))
		if ports := p.host.IP("link show master br1"); !strings.Contains(ports, "veth") {
			t.Errorf("got %s", ports)
		}
		p.call("DEL", find("office"))
	})
}
