// Package telemetry holds what the agent, as it is shipped, tells of real
// virtual machines against what libvirt, the kernel and Debian's exporter tell:
// in good days, and while QEMUs, libvirt, sockets and scrapers misbehave.
//
// All tests look at /metrics only. Those that need just some machines share
// one bed of them.
package telemetry
