// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Capture tier B with what a kernel as old as 5.10 has: tables instead of storage, plain updates. */
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 8 }; /* a CPU */
#define VECTORS_READ VECTORS_MAX_FUNCTIONS
#define PARTS_MAX 1

#include "plain.h"
#include "older.h"
#include "tier.h"
#include "functions.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The last that is heard of a socket: what is kept of it goes. */
SEC("fentry/inet_sock_destruct")
int inet_freed(__u64 *context)
{
	connection_forget((void *)context[0]);
	return 0;
}

SEC("fentry/unix_sock_destructor")
int unix_freed(__u64 *context)
{
	connection_forget((void *)context[0]);
	return 0;
}
