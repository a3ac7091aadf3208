// Package nodestack answers whether what stands around KVM on a node is ready
// for KubeVirt: container runtime, kubelet, CNI, storage and clock; and if
// not, why and what to do.
//
//	Collect(host) -> Facts -> Evaluate -> []Finding -> Report
//
// It shares readings, findings and profiles with package kvmcheck, and adds
// its findings to that package's report. Files are read through hostfs; what
// sockets, processes and system calls answer comes from [Live], so that a
// recording replays all of it. On a host without a kubelet one finding says
// so and the others are left out.
package nodestack
