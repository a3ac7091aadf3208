package qemu

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
)

// message is the payload of an event.
func message(domain domainRef, numbers ...uint32) []byte {
	payload := appendDomain(binary.BigEndian.AppendUint32(nil, 7), &domain)
	for _, number := range numbers {
		payload = binary.BigEndian.AppendUint32(payload, number)
	}
	return payload
}

func TestDecodeEvent(t *testing.T) {
	web := domainRef{name: "web", uuid: [16]byte{15: 1}, number: inactive}
	for _, tt := range []struct {
		name    string
		proc    uint32
		numbers []uint32
		want    domainEvent
	}{
		{"defined", procLifecycle, []uint32{0, 0}, domainEvent{xml: true}},
		{"undefined", procLifecycle, []uint32{1, 0}, domainEvent{gone: true}},
		{"started", procLifecycle, []uint32{2, 0}, domainEvent{xml: true}},
		{"suspended", procLifecycle, []uint32{3, 0}, domainEvent{}},
		{"resumed", procLifecycle, []uint32{4, 0}, domainEvent{}},
		{"stopped", procLifecycle, []uint32{5, 0}, domainEvent{xml: true, agent: true}},
		{"unheard of", procLifecycle, []uint32{99, 0}, domainEvent{}},
		{"agent there", procAgentLifecycle, []uint32{1, 2}, domainEvent{agent: true, state: Some(1)}},
		{"agent gone", procAgentLifecycle, []uint32{2, 2}, domainEvent{agent: true, state: Some(0)}},
		{"agent unknown", procAgentLifecycle, []uint32{9, 2}, domainEvent{agent: true}},
		{"device added", procDeviceAdded, []uint32{0}, domainEvent{xml: true}},
		{"device removed", procDeviceRemoved, []uint32{0}, domainEvent{xml: true}},
		{"metadata", procMetadataChange, []uint32{2, 0}, domainEvent{xml: true}},
	} {
		tt.want.domain = web
		got, err := decodeEvent(tt.proc, message(web, tt.numbers...))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(domainEvent{}, domainRef{})); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	whole := message(web, 2)
	for n := range whole {
		if e, err := decodeEvent(procLifecycle, whole[:n]); err == nil {
			t.Errorf("%d of %d bytes: %+v", n, len(whole), e)
		}
	}
}

// TestGoLibvirtControlsTheFakeAsWeDo keeps the fake honest, and our calls.
func TestGoLibvirtControlsTheFakeAsWeDo(t *testing.T) {
	h := newHost(t)
	d := startDaemon(t, h.dir, "/sock")
	d.control.xml = map[string]string{"web": domainText}
	client := libvirt.NewWithDialer(dialer(d.path))
	if err := client.Connect(); err != nil {
		t.Fatal(err)
	}
	text, err := client.DomainGetXMLDesc(libvirt.Domain{Name: "web", ID: 1}, 0)
	if err != nil || text != domainText {
		t.Errorf("XML %q, %v", text, err)
	}
	if _, err := client.ConnectDomainEventCallbackRegisterAny(int32(libvirt.DomainEventIDLifecycle), nil); err != nil {
		t.Error(err)
	}
	l := line{daemon: &daemon{root: h.root, target: target{socket: "/sock", owner: -1}, life: t.Context()}}
	defer l.close()
	deadline := time.Now().Add(time.Minute)
	if err := l.connect(deadline); err != nil {
		t.Fatal(err)
	}
	if got, err := l.conn.definition(&domainRef{name: "web", number: 1}, deadline); err != nil || got.Machine != "pc-q35-10.0" {
		t.Errorf("%+v, %v", got, err)
	}
	var refused *callError
	if _, err := l.conn.definition(&domainRef{name: "none", number: 1}, deadline); !errors.As(err, &refused) || refused.code != libvirt.ErrNoDomain {
		t.Errorf("no such domain: %v", err)
	}
	if _, err := listen(l.conn, func(domainEvent) {}, deadline); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add(uint32(procLifecycle), message(domainRef{name: "web"}, 2, 0))
	f.Add(uint32(procAgentLifecycle), message(domainRef{name: "web"}, 1, 0))
	f.Fuzz(func(t *testing.T, proc uint32, data []byte) {
		if e, err := decodeEvent(proc, data); err == nil && len(e.domain.name) > len(data) {
			t.Errorf("%+v", e)
		}
	})
}
