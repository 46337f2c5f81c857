/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Capture tier B: the ends of the functions that move the bytes of streams, for kernels without the
 * socket layer's tracepoints. They run after the copy, in the caller's context, like those; a page
 * that sendfile() or splice() hands over has a function of its own there. Bytes that TLS in the
 * kernel or splice() from a socket move pass other functions: TCP's sequence numbers tell of them.
 */
#ifndef OTELAUTO_FUNCTIONS_H
#define OTELAUTO_FUNCTIONS_H

/* 1: the receiving functions have the parameter `nonblock` before `flags` (it went in 5.19). */
const volatile __u32 has_nonblock = 0;

INLINE int on_receive_end(__u64 *context, enum workspace_slot slot)
{
	if (has_nonblock)
		return on_received((void *)context[0], context[6], context[4], slot);
	return on_received((void *)context[0], context[5], context[3], slot);
}

SEC("fexit/tcp_sendmsg")
int tcp_send(__u64 *context)
{
	return on_sent((void *)context[0], context[3], SLOT_SEND);
}

SEC("fexit/tcp_recvmsg")
int tcp_recv(__u64 *context)
{
	return on_receive_end(context, SLOT_RECEIVE);
}

SEC("fexit/mptcp_sendmsg")
int mptcp_send(__u64 *context)
{
	return on_sent((void *)context[0], context[3], SLOT_MPTCP_SEND);
}

SEC("fexit/mptcp_recvmsg")
int mptcp_recv(__u64 *context)
{
	return on_receive_end(context, SLOT_MPTCP_RECEIVE);
}

SEC("fexit/unix_stream_sendmsg")
int unix_send(__u64 *context)
{
	struct socket *socket = (void *)context[0];

	return on_sent(socket->sk, context[3], SLOT_UNIX_SEND);
}

SEC("fexit/unix_stream_recvmsg")
int unix_recv(__u64 *context)
{
	struct socket *socket = (void *)context[0];

	return on_received(socket->sk, context[4], context[3], SLOT_UNIX_RECEIVE);
}

INLINE int on_page(struct sock *sk, int result, enum workspace_slot slot)
{
	if (result <= 0)
		return 0;
	return on_segment(sk, result, DIRECTION_SENT, UNREAD_OTHER_CALL, slot);
}

SEC("fexit/tcp_sendpage")
int tcp_send_page(__u64 *context)
{
	return on_page((void *)context[0], context[5], SLOT_SEND_PAGE);
}

SEC("fexit/unix_stream_sendpage")
int unix_send_page(__u64 *context)
{
	struct socket *socket = (void *)context[0];

	return on_page(socket->sk, context[5], SLOT_UNIX_SEND_PAGE);
}

#endif
