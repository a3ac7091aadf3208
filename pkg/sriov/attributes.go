package sriov

import (
	"strconv"
	"strings"
)

// vlan8021Q is the protocol of a VLAN tag unless another is named.
const vlan8021Q = "802.1Q"

// String lists the attributes that there are: "vlan 100 qos 3, trust on".
func (a Attributes) String() string {
	parts := make([]string, 0, 8)
	add := func(text string) { parts = append(parts, text) }
	if a.MAC != "" {
		add("mac " + a.MAC)
	}
	if a.VLAN != nil {
		text := "vlan " + strconv.Itoa(*a.VLAN)
		if a.QoS != nil && *a.QoS != 0 {
			text += " qos " + strconv.Itoa(*a.QoS)
		}
		if a.protocol() != vlan8021Q {
			text += " protocol " + a.VLANProtocol
		}
		add(text)
	}
	if a.MinTxRate != nil && *a.MinTxRate != 0 {
		add("minTxRate " + strconv.Itoa(*a.MinTxRate))
	}
	if a.MaxTxRate != nil {
		add("maxTxRate " + strconv.Itoa(*a.MaxTxRate))
	}
	if a.SpoofCheck != nil {
		add("spoofCheck " + onOff(*a.SpoofCheck))
	}
	if a.Trust != nil {
		add("trust " + onOff(*a.Trust))
	}
	if a.LinkState != "" {
		add("linkState " + a.LinkState)
	}
	return strings.Join(parts, ", ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// protocol is that of a tag; what no tag has does not matter.
func (a Attributes) protocol() string {
	if a.VLANProtocol == "" || a.VLAN == nil || *a.VLAN == 0 {
		return vlan8021Q
	}
	return a.VLANProtocol
}

// isZero reports whether there is no attribute.
func (a Attributes) isZero() bool { return a == Attributes{} }

// changed returns what has to be set so that what there is becomes what is
// wanted. What the driver does not tell has to be set. The parts of a tag are
// set together, and so are the two rates.
func changed(have, want Attributes) Attributes {
	change := want
	if strings.EqualFold(want.MAC, have.MAC) {
		change.MAC = ""
	}
	if same(want.VLAN, have.VLAN) && same(want.QoS, have.QoS) && (want.VLAN == nil || want.protocol() == have.protocol()) {
		change.VLAN, change.QoS, change.VLANProtocol = nil, nil, ""
	}
	if same(want.MinTxRate, have.MinTxRate) && same(want.MaxTxRate, have.MaxTxRate) {
		change.MinTxRate, change.MaxTxRate = nil, nil
	} else {
		change.MinTxRate, change.MaxTxRate = either(want.MinTxRate, have.MinTxRate), either(want.MaxTxRate, have.MaxTxRate)
	}
	if same(want.SpoofCheck, have.SpoofCheck) {
		change.SpoofCheck = nil
	}
	if same(want.Trust, have.Trust) {
		change.Trust = nil
	}
	if want.LinkState == have.LinkState {
		change.LinkState = ""
	}
	return change
}

// same reports whether a value is wanted by nobody, or is so already.
func same[T comparable](want, have *T) bool {
	return want == nil || have != nil && *want == *have
}

func either[T any](first, second *T) *T {
	if first != nil {
		return first
	}
	return second
}

// over returns the attributes with those of the change in their place.
func (a Attributes) over(change Attributes) Attributes {
	if change.MAC != "" {
		a.MAC = change.MAC
	}
	if change.VLAN != nil {
		a.VLAN, a.QoS, a.VLANProtocol = change.VLAN, change.QoS, change.VLANProtocol
	}
	a.MinTxRate = either(change.MinTxRate, a.MinTxRate)
	a.MaxTxRate = either(change.MaxTxRate, a.MaxTxRate)
	a.SpoofCheck = either(change.SpoofCheck, a.SpoofCheck)
	a.Trust = either(change.Trust, a.Trust)
	if change.LinkState != "" {
		a.LinkState = change.LinkState
	}
	return a
}
