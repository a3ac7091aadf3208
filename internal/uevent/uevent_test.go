package uevent

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func message(parts ...string) []byte { return []byte(strings.Join(parts, "\x00") + "\x00") }

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		in   []byte
		want Event
	}{
		"a module comes": {
			message("add@/module/kvm_amd", "ACTION=add", "DEVPATH=/module/kvm_amd", "SUBSYSTEM=module", "SEQNUM=1201"),
			Event{Action: "add", Path: "/module/kvm_amd", Subsystem: "module"},
		},
		"a device node goes": {
			message("remove@/devices/virtual/misc/kvm", "ACTION=remove", "DEVPATH=/devices/virtual/misc/kvm", "SUBSYSTEM=misc", "MAJOR=10", "MINOR=232", "DEVNAME=kvm", "SEQNUM=7"),
			Event{Action: "remove", Path: "/devices/virtual/misc/kvm", Subsystem: "misc", Device: "kvm"},
		},
		"a path with the separator in it": {
			message("add@/devices/a@b", "SUBSYSTEM=pci"),
			Event{Action: "add", Path: "/devices/a@b", Subsystem: "pci"},
		},
		"a variable without a value": {
			message("add@/devices/x", "SUBSYSTEM=pci", "DEVNAME"),
			Event{Action: "add", Path: "/devices/x", Subsystem: "pci"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string][]byte{
		"nothing":              {},
		"what udev sends":      message("libudev", "\xfe\xed\xca\xfe"),
		"no action":            message("@/module/kvm", "SUBSYSTEM=module"),
		"no path":              message("add@", "SUBSYSTEM=module"),
		"no subsystem":         message("add@/module/kvm", "ACTION=add"),
		"a cut header":         []byte("add@/module/kvm"),
		"more than the bounds": append(message("add@/module/kvm", "SUBSYSTEM=module"), make([]byte, maxMessage)...),
	} {
		t.Run(name, func(t *testing.T) {
			if event, err := parse(in); err == nil {
				t.Errorf("got %+v", event)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message("add@/module/kvm_amd", "ACTION=add", "SUBSYSTEM=module"))
	f.Add(message("remove@/devices/virtual/misc/kvm", "SUBSYSTEM=misc", "DEVNAME=kvm"))
	f.Add([]byte("libudev\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		event, err := parse(in)
		if err != nil {
			return
		}
		if event.Action == "" || event.Path == "" || event.Subsystem == "" {
			t.Errorf("an event without what names it: %+v", event)
		}
		if size := len(event.Action) + len(event.Path) + len(event.Subsystem) + len(event.Device); size > len(in) {
			t.Errorf("%d bytes out of %d", size, len(in))
		}
	})
}

// TestSocketHearsTheKernel asks the kernel to announce a device again.
func TestSocketHearsTheKernel(t *testing.T) {
	socket, err := Listen()
	if errors.Is(err, ErrNamespace) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/sys/devices/virtual/mem/null/uevent", []byte("change"), 0o200); err != nil {
		_ = socket.Close()
		t.Skip(err) // an ordinary user, or a read-only /sys
	}
	want := Event{Action: "change", Path: "/devices/virtual/mem/null", Subsystem: "mem", Device: "null"}
	for {
		event, err := socket.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if event == want {
			break
		}
	}
	waiting := make(chan error)
	go func() {
		for {
			if _, err := socket.Receive(); err != nil {
				waiting <- err
				return
			}
		}
	}()
	if err := socket.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
