// Package hostfs reads the host below one injected root: the live machine, the
// machine mounted into a container, or a recording of another machine. It writes
// single values into sysfs, of the first two.
//
// Paths are the host's own, absolute ("/sys/module/kvm"), and so are the paths
// in errors. Symbolic links are followed as on the host itself: an absolute
// target means the same root, and nothing above the root is ever reached.
package hostfs
