// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Capture tier A (kernel 6.3 or newer): the socket layer's own tracepoints. They cost system calls
 * that move no socket bytes nothing, and run after the copy with the socket at hand. The kernel
 * frees a connection's state with its socket.
 */
#define HAS_VIEWS
#define HAS_LOOPS
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 2 }; /* a CPU */
#define VECTORS_READ VECTORS_MAX
#define PARTS_MAX 32

#include "tier.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/sock_send_length")
int sock_send(__u64 *context)
{
	return on_sent((void *)context[0], context[1], SLOT_SEND);
}

SEC("tp_btf/sock_recv_length")
int sock_recv(__u64 *context)
{
	return on_received((void *)context[0], context[1], context[2], SLOT_RECEIVE);
}
