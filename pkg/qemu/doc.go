// Package qemu finds the virtual machines of a host and reads their numbers.
//
// A [Collector] knows every libvirt daemon with a local socket and every QEMU
// process. Each of them is a source, and what a source can tell is split into
// cost classes, because the price differs a thousandfold:
//
//   - kernel: /proc, needs neither libvirt nor QEMU;
//   - light: libvirt's state and interface groups, which cost no QMP command;
//   - monitor: cpu, balloon, vcpu and block, which cost several per machine
//     and hang when a QEMU hangs.
//
// The stages, a file each: discover (which sockets), dial and call (a bounded
// exchange with a daemon), decode (reply to values), process (/proc to
// values), source (one reading in flight per source and class), collect (one
// scrape), merge (one entry per machine).
//
// Nothing runs between scrapes. A daemon that hangs costs one goroutine and
// one connection, and delays nobody.
package qemu
