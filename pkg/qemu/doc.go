// Package qemu finds the virtual machines of a host and reads their numbers.
//
// A [Collector] knows every libvirt daemon with a local socket and every QEMU
// process. Each of them is a source, and what a source can tell is split into
// cost classes, because the price differs a thousandfold:
//
//   - kernel: /proc and control groups, need neither libvirt nor QEMU;
//   - light: libvirt's state and interface groups, which cost no QMP command,
//     for all machines in one call;
//   - monitor: cpu, balloon, vcpu and block, which cost several per machine
//     and hang when a QEMU hangs, for each machine in a call of its own;
//   - control: events, and the XML that they change, which says what a machine
//     is called and has. It is never read for a scrape.
//
// The stages, a file each: discover (which sockets), launcher and watch (those
// of KubeVirt's pods, which are not trusted), dial and call (a bounded
// exchange with a daemon), daemon (a connection that comes back), decode
// (reply to values), scan (the kernel class: which processes are QEMUs), and
// for each of them process (who it is), threads, stat, status, io, belongings
// (what it has for long), netdev (its taps), cgroup and quota; source (one
// reading in flight per source), monitor (machines asked a few at a time),
// control, events and xml (what machines are), collect (one scrape), identity
// (who is who), merge and join (one entry per machine).
//
// Nothing runs between scrapes, but for what waits to be told of a change. A daemon that hangs costs one goroutine and
// one connection, a QEMU that hangs a slot for the length of a deadline, and
// neither delays anybody else. All memory is used again: a scrape of the same
// machines allocates the same few objects however many they are.
package qemu
