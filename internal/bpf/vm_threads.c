//go:build ignore

// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
//
// What the threads of VMs have used, all in one pass: what /proc tells in
// several files of each.

#include "vm.h"
#include <bpf/bpf_core_read.h>

struct sched_info {
	unsigned long pcount;
	unsigned long long run_delay;
} KERNEL;

struct sched_entity {
	__u64 sum_exec_runtime;
} KERNEL;

struct prev_cputime {
	__u64 utime;
	__u64 stime;
} KERNEL;

struct task_io_accounting {
	__u64 rchar;
	__u64 wchar;
	__u64 syscr;
	__u64 syscw;
	__u64 read_bytes;
	__u64 write_bytes;
	__u64 cancelled_write_bytes;
} KERNEL;

struct seqcount {
	unsigned int sequence;
} KERNEL;

struct seqcount_spinlock {
	struct seqcount seqcount;
} KERNEL;

struct seqlock {
	struct seqcount_spinlock seqcount;
} KERNEL;

struct signal_struct {
	int nr_threads;
	struct seqlock stats_lock; // taken for what follows
	__u64 utime;
	__u64 stime;
	unsigned long long sum_sched_runtime;
	struct prev_cputime prev_cputime;
	unsigned long min_flt;
	unsigned long maj_flt;
	struct task_io_accounting ioac;
} KERNEL;

typedef struct {
	long counter;
} atomic_long_t;

struct percpu_counter {
	__s64 count;
} KERNEL;

#define NR_MM_COUNTERS 4

struct mm_struct {
	struct percpu_counter rss_stat[NR_MM_COUNTERS]; // pages
	atomic_long_t hugetlb_usage;
} KERNEL;

// Before Linux 6.2.
struct mm_rss_stat {
	atomic_long_t count[NR_MM_COUNTERS];
} KERNEL;

struct mm_struct___before_6_2 {
	struct mm_rss_stat rss_stat;
} KERNEL;

enum vtime_state {
	VTIME_INACTIVE = 0,
};

struct vtime {
	enum vtime_state state;
} KERNEL;

struct file;

struct fdtable {
	unsigned int max_fds;
	struct file **fd; // by descriptor
} KERNEL;

struct files_struct {
	struct fdtable *fdt;
} KERNEL;

struct css_set; // the control groups that a thread is in, one of each hierarchy

struct upid {
	int nr;
} KERNEL;

struct pid {
	unsigned int level;
	struct upid numbers[1]; // one for each namespace, from the initial one down
} KERNEL;

struct task_struct {
	int pid;
	int tgid;
	struct pid *thread_pid;
	struct task_struct *group_leader;
	unsigned int flags;
	int exit_state;
	struct mm_struct *mm;
	char comm[16];
	struct files_struct *files;
	struct css_set *cgroups;
	struct signal_struct *signal;
	struct sched_entity se;
	struct sched_info sched_info;
	struct vtime vtime;
	__u64 start_boottime;
	__u64 utime;
	__u64 stime;
	struct prev_cputime prev_cputime;
	unsigned long nvcsw;
	unsigned long nivcsw;
	unsigned long min_flt;
	unsigned long maj_flt;
	struct task_io_accounting ioac;
} KERNEL;

#define PF_KTHREAD 0x00200000

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} KERNEL;

// What is written for each thread, for the main one followed by a struct
// process. Only padding-free structures: all of it is told.
struct account {
	__u64 runtime; // nanoseconds, as are the next four
	__u64 user;
	__u64 system;
	__u64 told_user;
	__u64 told_system;
	__u64 minor;
	__u64 major;
	__u64 io[7]; // struct task_io_accounting
};

struct thread {
	__u32 pid;
	__u32 tid;
	__u64 start; // nanoseconds since boot
	__u64 delay;
	__u64 waits;
	__u64 voluntary;
	__u64 involuntary;
	__u64 behind; // what it uses now is not in its account
	__u64 groups; // other control groups have another number
	char name[16];
	struct account used;
};

struct process {
	__u64 now;     // nanoseconds since boot
	__u64 threads; // there are
	__u64 torn;    // it changed meanwhile, or it ends
	__s64 pages[NR_MM_COUNTERS];
	__u64 huge; // pages
	__u64 files; // other open files have another number; 0: too many to tell
	struct account ended;
};

// take copies what struct task_struct and struct signal_struct have alike.
#define TAKE(to, from, ran)                                           \
	do {                                                          \
		(to)->runtime = (ran);                                \
		(to)->user = (from)->utime;                           \
		(to)->system = (from)->stime;                         \
		(to)->told_user = (from)->prev_cputime.utime;         \
		(to)->told_system = (from)->prev_cputime.stime;       \
		(to)->minor = (from)->min_flt;                        \
		(to)->major = (from)->maj_flt;                        \
		(to)->io[0] = (from)->ioac.rchar;                     \
		(to)->io[1] = (from)->ioac.wchar;                     \
		(to)->io[2] = (from)->ioac.syscr;                     \
		(to)->io[3] = (from)->ioac.syscw;                     \
		(to)->io[4] = (from)->ioac.read_bytes;                \
		(to)->io[5] = (from)->ioac.write_bytes;               \
		(to)->io[6] = (from)->ioac.cancelled_write_bytes;     \
	} while (0)

// take_memory takes each counter by its number: an index that is computed
// would go by the size that an element has here, not in the running kernel.
static __always_inline void take_memory(struct process *p, struct mm_struct *mm)
{
	if (bpf_core_type_exists(struct mm_rss_stat)) {
		struct mm_struct___before_6_2 *before = (void *)mm;

		// The verifier of that time does not follow the type in this array.
		bpf_core_read(p->pages, sizeof(p->pages), &before->rss_stat.count);
	} else {
		p->pages[0] = mm->rss_stat[0].count;
		p->pages[1] = mm->rss_stat[1].count;
		p->pages[2] = mm->rss_stat[2].count;
		p->pages[3] = mm->rss_stat[3].count;
	}
	p->huge = 0;
	if (bpf_core_field_exists(mm->hugetlb_usage))
		p->huge = mm->hugetlb_usage.counter;
}

// The first descriptors are looked at in pieces, as far as the table goes.
#define PIECE 8
#define PIECES 32

// files_of makes one number of where a process has which file open: what is
// opened, closed or put in the place of another changes it.
static __always_inline __u64 files_of(struct task_struct *task)
{
	struct fdtable *table;
	__u64 piece[PIECE], sum = 0;
	__u32 count, i, j;

	if (!task->files)
		return 0;
	table = task->files->fdt;
	count = table->max_fds;
	if (!count || count > PIECE * PIECES)
		return 0;
	for (i = 0; i < PIECES && i * PIECE < count; i++) {
		if (bpf_probe_read_kernel(piece, sizeof(piece), &table->fd[i * PIECE]))
			return 0;
		for (j = 0; j < PIECE; j++)
			sum = (sum ^ piece[j]) * 0x9e3779b97f4a7c15;
	}
	return sum | 1;
}

// number_of is a thread's number in the namespace of a level; 0: it has none.
static __always_inline __u32 number_of(struct task_struct *task, __u32 level)
{
	struct pid *pid = NULL;
	int nr = 0;

	bpf_core_read(&pid, sizeof(pid), &task->thread_pid);
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr));
	return nr;
}

SEC("iter/task")
int vm_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct seq_file *seq = ctx->meta->seq;
	struct signal_struct *signal;
	struct thread t;
	struct process p;
	__u32 pid, level, sequence;

	if (!task || task->flags & PF_KTHREAD)
		return 0;
	// The pass goes over the PID namespace of who asks, and those below.
	level = ((struct task_struct *)bpf_get_current_task_btf())->thread_pid->level;
	pid = level ? number_of(task->group_leader, level) : task->tgid;
	if (!bpf_map_lookup_elem(&vms, &pid))
		return 0;
	t.pid = pid;
	t.tid = level ? number_of(task, level) : task->pid;
	t.start = task->start_boottime;
	t.delay = task->sched_info.run_delay;
	t.waits = task->sched_info.pcount;
	t.voluntary = task->nvcsw;
	t.involuntary = task->nivcsw;
	// On a CPU without a tick, /proc adds what its account does not have yet.
	t.behind = 0;
	if (bpf_core_field_exists(task->vtime))
		t.behind = task->vtime.state != VTIME_INACTIVE;
	t.groups = 0;
	if (bpf_core_field_exists(task->cgroups))
		t.groups = (__u64)task->cgroups;
	bpf_core_read(t.name, sizeof(t.name), &task->comm);
	TAKE(&t.used, task, task->se.sum_exec_runtime);
	bpf_seq_write(seq, &t, sizeof(t));
	if (t.tid != t.pid)
		return 0;

	// A thread that ends adds to these while it holds the lock.
	signal = task->signal;
	sequence = signal->stats_lock.seqcount.seqcount.sequence;
	asm volatile("" ::: "memory"); // in this order
	TAKE(&p.ended, signal, signal->sum_sched_runtime);
	p.threads = signal->nr_threads;
	p.now = bpf_ktime_get_boot_ns();
	asm volatile("" ::: "memory");
	p.torn = task->exit_state || sequence & 1 || sequence != signal->stats_lock.seqcount.seqcount.sequence;
	take_memory(&p, task->mm);
	p.files = files_of(task);
	bpf_seq_write(seq, &p, sizeof(p));
	return 0;
}
