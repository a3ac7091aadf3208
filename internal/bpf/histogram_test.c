//go:build ignore

// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
//
// For the tests: which bucket a time falls into.

#include "vm.h"

SEC("syscall")
int bucket(__u64 *ns)
{
	return bucket_of(*ns);
}
