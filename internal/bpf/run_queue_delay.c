//go:build ignore

// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
//
// How long the virtual CPUs wait for a physical one, each time they wait.

#include "vm.h"

struct sched_info {
	unsigned long pcount;         // times the thread got a CPU
	unsigned long long run_delay; // nanoseconds it waited for one
} KERNEL;

struct task_struct {
	int pid;
	int tgid;
	int exit_state;
	char comm[16];
	struct sched_info sched_info;
} KERNEL;

// threads are the accounts of virtual CPUs when they last gave up a CPU. The
// map is allocated beforehand: the scheduler is no place to ask for memory.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32); // tid
	__type(value, struct account);
} threads SEC(".maps");

struct account {
	__u64 pcount;
	__u64 run_delay;
};

HISTOGRAMS(run_queue_delay);

// runs_vcpu looks at the name of the thread: "CPU 0/KVM", "CPU 0/TCG", or
// "ALL CPUs/TCG". It is the first thing asked, since for all but a few threads
// of the host it is the last.
static __always_inline int runs_vcpu(struct task_struct *task)
{
	__u32 name = *(const __u32 *)task->comm;

	return name == 0x20555043 /* "CPU " */ || name == 0x204c4c41 /* "ALL " */;
}

// The kernel keeps the time that a thread waited, over migrations, throttling
// and all. A wait is known when it is over and the thread leaves the CPU: it is
// what the account has grown by since the time before.
SEC("tp_btf/sched_switch")
int sched_switch(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	struct account now, *before;
	struct histogram *histogram;
	__u32 tgid, tid, *slot;

	if (!runs_vcpu(prev))
		return 0;
	tid = prev->pid;
	tgid = prev->tgid;
	slot = bpf_map_lookup_elem(&vms, &tgid);
	histogram = slot ? histogram_of(&run_queue_delay, *slot) : NULL;
	if (histogram) {
		now.pcount = prev->sched_info.pcount;
		now.run_delay = prev->sched_info.run_delay;
		before = bpf_map_lookup_elem(&threads, &tid);
		// A new thread starts from nothing. One that was new to us later,
		// or out of sight in between, has waited we know not how often.
		if (before && now.pcount == before->pcount + 1)
			histogram_add(histogram, now.run_delay - before->run_delay);
		else if (!before && now.pcount == 1)
			histogram_add(histogram, now.run_delay);
		if (before)
			*before = now;
		else
			bpf_map_update_elem(&threads, &tid, &now, BPF_ANY);
	}
	if (prev->exit_state)
		bpf_map_delete_elem(&threads, &tid);
	return 0;
}
