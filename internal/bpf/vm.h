// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
//
// What every program has in common: the slot of a VM, and its histograms.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// The kernel lets only programs that say so read its structures.
char program_license[] SEC("license") = "Dual MIT/GPL";

// Kernel structures are declared as far as they are read; where a field is in
// the running kernel is settled when the program is loaded.
#define KERNEL __attribute__((preserve_access_index))

// slots is how many VMs there is room for; user space sets it.
const volatile __u32 slots = 1;

// vms are the processes of the VMs and their slots, which user space keeps.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32); // tgid
	__type(value, __u32);
} vms SEC(".maps");

// The buckets of a histogram: times up to 2^-20 s, up to 2^-19 s, ... up to
// 2^4 s, and longer ones.
#define BUCKETS 26

struct histogram {
	__u64 sum; // nanoseconds
	__u64 buckets[BUCKETS];
};

// A map of histograms is an array of rows, one for each CPU, of a histogram for
// each slot. So no two CPUs write to the same one, and user space, which maps
// the array into its memory, reads it without a system call.
#define HISTOGRAMS(name)                             \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_ARRAY);    \
		__uint(map_flags, BPF_F_MMAPABLE);   \
		__uint(max_entries, 1);              \
		__type(key, __u32);                  \
		__type(value, struct histogram);     \
	} name SEC(".maps")

static __always_inline struct histogram *histogram_of(void *map, __u32 slot)
{
	__u32 key = bpf_get_smp_processor_id() * slots + slot;

	return bpf_map_lookup_elem(map, &key);
}

// bucket_of scales to units of 2^-30 s (2^30 / 10^9 is 17592 / 2^14, less
// 1/90000), of which 2^10 are the first bound, and takes the logarithm.
static __always_inline __u32 bucket_of(__u64 ns)
{
	__u64 units = ns * 17592 >> 14, rest;
	__u32 bucket = 0;

	if (units <= 1 << 10)
		return 0;
	rest = (units - 1) >> 10;
	if (rest >> (BUCKETS - 2))
		return BUCKETS - 1;
	if (rest >> 16) {
		bucket = 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		bucket += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		bucket += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		bucket += 2;
		rest >>= 2;
	}
	return bucket + (rest >> 1) + 1;
}

// histogram_add needs no atomic operation: nothing else writes on this CPU.
static __always_inline void histogram_add(struct histogram *histogram, __u64 ns)
{
	__u32 bucket = bucket_of(ns);

	if (bucket >= BUCKETS) // never; the verifier cannot know
		return;
	histogram->sum += ns;
	histogram->buckets[bucket]++;
}
