// Package bpf loads small programs into the kernel. One measures what no file in
// /proc tells, a distribution: it counts in the kernel, by VM, and a scrape reads
// memory that is shared with the kernel. One tells in a pass over all threads
// what /proc tells in several files of each. Each program is optional: one that
// the kernel does not take has a reason, and the agent goes on without it.
//
// Nothing is pinned. The kernel drops everything when the process ends, however
// it ends.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -output-stem run_queue_delay -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" runQueueDelay run_queue_delay.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -output-stem vm_threads -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" vmThreads vm_threads.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -output-stem histogram -output-suffix _test -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" histogramTest histogram_test.c
