package qemu

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// accepted ends every message about a URI.
const accepted = "accepted are qemu:///system, qemu:///session and qemu+unix:///system?socket=/PATH (or session)"

// uri is a libvirt connection URI that names a local QEMU daemon.
type uri struct {
	mode   string // "system" or "session"
	socket string // the host's own absolute path; empty means the usual ones
}

// driver returns what the daemon itself wants to be asked for.
func (u uri) driver() string { return "qemu:///" + u.mode }

// CheckURI says whether a libvirt URI is one that can be read, and if not, why.
func CheckURI(text string) error {
	_, err := parseURI(text)
	return err
}

// parseURI reads a libvirt URI as users of virsh write it.
func parseURI(text string) (uri, error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return uri{}, fmt.Errorf("libvirt URI %q is malformed; %s", clip(text), accepted)
	}
	refuse := func(why string) (uri, error) {
		return uri{}, fmt.Errorf("libvirt URI %q: %s; %s", clip(text), why, accepted)
	}
	switch driver, transport, _ := strings.Cut(parsed.Scheme, "+"); {
	case driver != "qemu":
		return refuse("only the qemu driver is supported")
	case transport != "" && transport != "unix":
		return refuse("only local sockets are supported, not transport " + transport)
	case parsed.Host != "" || parsed.User != nil:
		return refuse("only this host is supported (three slashes)")
	case parsed.Fragment != "":
		return refuse("a fragment means nothing here")
	}
	u := uri{mode: strings.TrimPrefix(parsed.Path, "/")}
	if u.mode != "system" && u.mode != "session" {
		return refuse("the path must be /system or /session")
	}
	values, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return refuse("its query is malformed")
	}
	for key, value := range values {
		if key != "socket" || len(value) != 1 {
			return refuse("the only parameter is one socket")
		}
		u.socket = value[0]
		if !path.IsAbs(u.socket) || strings.ContainsRune(u.socket, 0) {
			return refuse("socket must be an absolute path")
		}
	}
	return u, nil
}

// clip keeps a message about foreign text short.
func clip(s string) string { return s[:min(len(s), 200)] }
