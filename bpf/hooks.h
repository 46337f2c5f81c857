/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What both socket tiers do with what their hooks tell: calls, connects, states, ends of sockets. */
#ifndef OTELAUTO_HOOKS_H
#define OTELAUTO_HOOKS_H

/* The connection, if bytes of it have passed and the task at hand is watched. */
INLINE struct connection *known_connection(struct sock *sk)
{
	struct connection *c = connection_get(sk, 0);
	tgid_t tgid = bpf_get_current_pid_tgid() >> 32;

	return c && (c->tgid == tgid || is_watched(tgid)) ? c : NULL;
}

/* A call that moved nothing. It may have read the end of the stream. */
COLD int on_end_or_slot(struct sock *sk, int result, enum direction direction)
{
	struct connection *c = known_connection(sk);

	if (!c)
		return 0;
	pass_slot(result);
	if (result < 0 || direction == DIRECTION_SENT || !(FIELD(sk, sk_shutdown) & RCV_SHUTDOWN) ||
	    FIELD(sk, sk_receive_queue.qlen)) /* asked for 0 bytes while some wait */
		return 0;
	if (mark(c, CONNECTION_RECEIVE_ENDED))
		on_ending(c, FLAG_RECEIVE_ENDED);
	return 0;
}

/* Most often a socket that had nothing yet: that must cost nothing. */
INLINE int on_nothing(struct sock *sk, int result, enum direction direction)
{
	return result < 0 && !slots_in_use ? 0 : on_end_or_slot(sk, result, direction);
}

COLD int on_urgent(struct sock *sk, __u32 length)
{
	if (known_connection(sk)) {
		count(UNREAD_OTHER_CALL, 1);
		count(BYTES_UNREAD, length);
	}
	return 0;
}

/* A call with these `flags` (0 for a send) ended with `result`; `unread` as for on_segment(). */
INLINE int on_call(struct sock *sk, int result, int flags, enum direction direction, __u32 unread,
		   enum workspace_slot slot)
{
	if (flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	if (result <= 0)
		return on_nothing(sk, result, direction);
	if (flags & MSG_OOB) /* beside the stream: what is read next jumps over it */
		return on_urgent(sk, result);
	return on_segment(sk, result, direction, flags & MSG_TRUNC ? UNREAD_MESSAGE_TRUNC : unread,
			  slot);
}

INLINE int on_sent(struct sock *sk, int result, enum workspace_slot slot)
{
	return on_call(sk, result, 0, DIRECTION_SENT, 0, slot);
}

INLINE int on_received(struct sock *sk, int result, int flags, enum workspace_slot slot)
{
	return on_call(sk, result, flags, DIRECTION_RECEIVED, 0, slot);
}

INLINE int on_closed(struct sock *sk, struct connection *c)
{
	if (mark(c, CONNECTION_CLOSED))
		on_ending(c, c->bits & CONNECTION_RESET || FIELD(sk, sk_err)
					 ? FLAG_CLOSED | FLAG_RESET
					 : FLAG_CLOSED);
	return 0;
}

/* connect(), in the task that calls it. A socket may be connected again, by another connection. */
INLINE int on_connect(struct sock *sk)
{
	struct connection *c;

	if (!is_watched(bpf_get_current_pid_tgid() >> 32) || !belongs_to_a_process(sk))
		return 0;
	c = connection_get(sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	on_closed(sk, c);
	*c = (struct connection){
		.cookie = c->cookie,
		.role = ROLE_CLIENT,
		.sequence = c->sequence,
		.inode = c->inode,
	};
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int sock_state(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int before = (int)context[1], state = (int)context[2];
	struct connection *c;

	if (state == TCP_SYN_SENT)
		return on_connect(sk);
	if (state != TCP_FIN_WAIT1 && state != TCP_LAST_ACK && state != TCP_CLOSE)
		return 0;
	c = connection_get(sk, 0);
	if (!c)
		return 0;
	if (state != TCP_CLOSE) { /* FIN_WAIT1 by shutdown(), then again on the way to LAST_ACK */
		if (mark(c, CONNECTION_SEND_ENDED))
			on_ending(c, FLAG_SEND_ENDED);
		return 0;
	}
	if (before == TCP_ESTABLISHED || before == TCP_CLOSE_WAIT || FIELD(sk, sk_err))
		mark(c, CONNECTION_RESET);
	/* What waits in the queue may still be read: the last record comes with the socket's own end.
	 * MPTCP has no hook for that, but this state without an owner, by a reset, or once more. */
	if (FIELD(sk, sk_protocol) == IPPROTO_MPTCP &&
	    (before == TCP_CLOSE || c->bits & CONNECTION_RESET || !belongs_to_a_process(sk)))
		return on_closed(sk, c);
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int sock_gone(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	struct connection *c = connection_get(sk, 0);

	if (c)
		on_closed(sk, c);
	connection_forget(sk);
	return 0;
}

#endif
