package qemu

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseURI(t *testing.T) {
	for text, want := range map[string]uri{
		"qemu:///system":                                       {"system", ""},
		"qemu:///session":                                      {"session", ""},
		"qemu+unix:///system":                                  {"system", ""},
		"qemu+unix:///system?socket=/run/x":                    {"system", "/run/x"},
		"qemu+unix:///session?socket=%2Frun%2Fa%20b%2Fc%3Fd":   {"session", "/run/a b/c?d"},
		"QEMU:///system":                                       {"system", ""},
		"qemu:///system?socket=/var/run/libvirt/libvirt-sock":  {"system", "/var/run/libvirt/libvirt-sock"},
		"qemu+unix:///system?socket=/run/libvirt/virtqemud-ro": {"system", "/run/libvirt/virtqemud-ro"},
	} {
		if got, err := parseURI(text); err != nil || got != want {
			t.Errorf("%s: have %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "qemu", "qemu:", "qemu://", "qemu:///", "qemu:///System", "qemu:///system/x", "qemu://host/system", "qemu+ssh://host/system",
		"qemu+tcp:///system", "qemu+unix://me@/system", "test:///default", "xen:///system", "/run/libvirt/libvirt-sock", "qemu:///system?socket=",
		"qemu:///system?socket=run/x", "qemu:///system?socket=/a&socket=/b", "qemu:///system?mode=direct", "qemu:///system?socket=%zz",
		"qemu:///system?socket=/a%00b", "qemu:///system#x", "qemu:///%zz", "\x7f",
	} {
		if got, err := parseURI(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		} else if !strings.Contains(err.Error(), accepted) {
			t.Errorf("%q: error %q does not say what is accepted", text, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("qemu+unix:///system?socket=%2Frun%2Fx")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseURI(text)
		if err == nil && (u.driver() != "qemu:///system" && u.driver() != "qemu:///session" || u.socket != "" && u.socket[0] != '/') {
			t.Errorf("%q is taken for %+v", text, u)
		}
	})
}

func TestDiscover(t *testing.T) {
	for name, tc := range map[string]struct {
		files []string
		want  map[string][]string // sockets by name of the source
	}{
		"nothing":                      {nil, map[string][]string{}},
		"monolithic":                   {[]string{"/run/libvirt/libvirt-sock", "/run/libvirt/libvirt-sock-ro"}, map[string][]string{system: {"/run/libvirt/libvirt-sock-ro", "/run/libvirt/libvirt-sock"}}},
		"modular with its proxy":       {[]string{"/run/libvirt/libvirt-sock-ro", "/run/libvirt/virtqemud-sock"}, map[string][]string{system: {"/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock-ro"}}},
		"another daemon of libvirt's":  {[]string{"/run/libvirt/virtstoraged-sock"}, map[string][]string{}},
		"only in /var/run":             {[]string{"/var/run/libvirt/libvirt-sock"}, map[string][]string{system: {"/var/run/libvirt/libvirt-sock"}}},
		"sessions, and what is no one": {[]string{"/run/user/1000/libvirt/virtqemud-sock", "/run/user/1001/bus", "/run/user/x/libvirt/libvirt-sock"}, map[string][]string{"qemu:///session?uid=1000": {"/run/user/1000/libvirt/virtqemud-sock"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			for _, file := range tc.files {
				h.write(file, "")
			}
			got := make(map[string][]string)
			for _, found := range discover(h.root) {
				got[found.name] = found.sockets(h.root)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDialTakesAPathLongerThanAnAddress(t *testing.T) {
	h := newHost(t)
	d := startDaemon(t, h.dir, "/sock")
	long := strings.Repeat("/directory", 20)
	h.write(long+"/x", "")
	link := filepath.Join(h.dir, long, "sock")
	if err := os.Link(d.path, link); err != nil {
		t.Fatal(err)
	}
	conn, _, err := dial(t.Context(), h.root, target{socket: long + "/sock", owner: -1})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestDialSkipsASocketThatNobodyServes(t *testing.T) {
	h := newHost(t)
	stale := startDaemon(t, h.dir, "/run/libvirt/virtqemud-sock")
	stale.listener.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.stop()
	startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	conn, _, err := dial(t.Context(), h.root, systemTarget(h.root))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestDialErrorNamesTheHostsPath(t *testing.T) {
	h := newHost(t)
	_, _, err := dial(t.Context(), h.root, target{name: "x", socket: "/run/sock", owner: -1})
	if err == nil || reasonOf(err) != SocketMissing || !strings.Contains(err.Error(), " /run/sock:") || strings.Contains(err.Error(), h.dir) {
		t.Errorf("%v", err)
	}
}

func TestNewRefusesABadURI(t *testing.T) {
	h := newHost(t)
	if _, err := New(Options{Root: h.root, URIs: []string{system, "test:///default"}}); err == nil || !strings.Contains(err.Error(), "test:///default") {
		t.Errorf("error %v, want one that names the URI", err)
	}
}

func TestHowManyDomainsADaemonMayHave(t *testing.T) {
	for want, of := range map[int]target{1: {pod: podUID, owner: -1}, maxUserDomains: sessionTarget(1000), maxDomains: {dir: "/run/libvirt", owner: -1}} {
		if got := of.domains(); got != want {
			t.Errorf("%+v: %d, want %d", of, got, want)
		}
	}
}
