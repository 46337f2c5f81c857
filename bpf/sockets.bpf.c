// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Capture tier A (kernel 6.3 or newer): the socket layer's own tracepoints. They cost system calls
 * that move no socket bytes nothing, and run after the copy with the socket at hand. The kernel
 * frees a connection's state with its socket.
 */
#include "kernel.h"
#include "helpers.h"
#include "abi.h"
#include "contract.h"
#include "targets.h"
#include "emit.h"
#include "user_bytes.h"
#include "copy.h"
#include "turns.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A call that moved nothing still ends a multi-message call's run over its slots. */
INLINE int on_nothing(struct sock *sk, int result, enum direction direction)
{
	struct connection *c;

	c = connection_get(sk, 0);
	if (!c || c->tgid != bpf_get_current_pid_tgid() >> 32)
		return 0;
	c->slot[direction & 1].slots = 0;
	if (result == 0 && direction == DIRECTION_RECEIVED && sk->sk_shutdown & RCV_SHUTDOWN &&
	    !(c->bits & CONNECTION_RECEIVE_ENDED)) {
		c->bits |= CONNECTION_RECEIVE_ENDED;
		return on_ending(sk, c, FLAG_RECEIVE_ENDED);
	}
	return 0;
}

SEC("tp_btf/sock_send_length")
int sock_send(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int result = context[1], flags = context[2];

	if (result <= 0)
		return on_nothing(sk, result, DIRECTION_SENT);
	return on_segment(sk, result, DIRECTION_SENT, flags & MSG_OOB ? UNREAD_OTHER_CALL : 0);
}

SEC("tp_btf/sock_recv_length")
int sock_recv(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int result = context[1], flags = context[2];
	__u32 unread = 0;

	if (flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	if (result <= 0)
		return on_nothing(sk, result, DIRECTION_RECEIVED);
	if (flags & MSG_TRUNC)
		unread = UNREAD_MESSAGE_TRUNC;
	else if (flags & MSG_OOB)
		unread = UNREAD_OTHER_CALL;
	return on_segment(sk, result, DIRECTION_RECEIVED, unread);
}

SEC("tp_btf/inet_sock_set_state")
int sock_state(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int state = (int)context[2];
	struct connection *c;

	if (state == TCP_SYN_SENT) { /* in the task that connects */
		if (!is_watched(bpf_get_current_pid_tgid() >> 32))
			return 0;
		c = connection_get(sk, BPF_SK_STORAGE_GET_F_CREATE);
		if (c)
			c->role = ROLE_CLIENT;
		return 0;
	}
	if (state != TCP_FIN_WAIT1 && state != TCP_LAST_ACK && state != TCP_CLOSE)
		return 0;
	c = connection_get(sk, 0);
	if (!c)
		return 0;
	if (state == TCP_CLOSE)
		return on_ending(sk, c, sk->sk_err ? FLAG_CLOSED | FLAG_RESET : FLAG_CLOSED);
	if (c->bits & CONNECTION_SEND_ENDED)
		return 0; /* FIN_WAIT1 by shutdown(), then again on the way to LAST_ACK */
	c->bits |= CONNECTION_SEND_ENDED;
	return on_ending(sk, c, FLAG_SEND_ENDED);
}
