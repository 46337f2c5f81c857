/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Capture tier C, for kernels that have neither the socket layer's tracepoints nor functions whose
 * ends can be traced: the end of every system call, where the call's registers still tell the buffer
 * and the descriptor leads to the socket.
 *
 * It costs every system call of the host the slow way out of the kernel. It comes later than the
 * other tiers: the socket's lock is released by then. It does not see what io_uring moves; TCP's
 * sequence numbers tell of that. A call for several messages is one segment, unread.
 */
#ifndef OTELAUTO_CALLS_H
#define OTELAUTO_CALLS_H

enum { /* x86-64, beside those of enum system_call */
	CALL_SENDFILE = 40,
	CALL_SPLICE = 275,
};

enum compat_call { /* i386 */
	COMPAT_READ = 3,
	COMPAT_WRITE = 4,
	COMPAT_SOCKETCALL = 102,
	COMPAT_READV = 145,
	COMPAT_WRITEV = 146,
	COMPAT_SENDTO = 369,
	COMPAT_SENDMSG = 370,
	COMPAT_RECVFROM = 371,
	COMPAT_RECVMSG = 372,
};

enum { /* of socketcall(2): SYS_* of <linux/net.h> */
	SOCKETCALL_SEND = 9,
	SOCKETCALL_RECV = 10,
	SOCKETCALL_SENDTO = 11,
	SOCKETCALL_RECVFROM = 12,
	SOCKETCALL_SENDMSG = 16,
	SOCKETCALL_RECVMSG = 17,
};

enum { MESSAGES_MAX = 64 }; /* of one call: their bytes are added up */

struct ended_call {
	__s64 result;          /* bytes moved, once keep_registers() has seen it */
	__u32 descriptor;
	int flags;             /* MSG_*; 0 of a send */
	enum direction direction;
	__u32 unread;          /* as for on_segment() */
	bool several;          /* messages: the result is their number */
	__u8 pad[7];
};

/* Fill *call; false if such a call moves no bytes of a stream. */
INLINE bool read_call(struct pt_regs *regs, struct ended_call *call)
{
	call->descriptor = regs->di;
	call->direction = DIRECTION_RECEIVED;
	switch (regs->orig_ax) {
	case CALL_READ:
	case CALL_READV:
	case CALL_PREADV2:
		return true;
	case CALL_RECVMMSG:
		call->several = true;
		call->flags = regs->r10;
		return true;
	case CALL_RECVFROM:
		call->flags = regs->r10;
		return true;
	case CALL_RECVMSG:
		call->flags = regs->dx;
		return true;
	}
	call->direction = DIRECTION_SENT;
	switch (regs->orig_ax) {
	case CALL_WRITE:
	case CALL_WRITEV:
	case CALL_PWRITEV2:
	case CALL_SENDTO:
	case CALL_SENDMSG:
		return true;
	case CALL_SENDMMSG:
		call->several = true;
		return true;
	case CALL_SPLICE:
		call->descriptor = regs->dx;
		call->unread = UNREAD_OTHER_CALL;
		return true;
	case CALL_SENDFILE:
		call->unread = UNREAD_OTHER_CALL;
		return true;
	}
	return false;
}

/* The same for a 32-bit caller, whose arguments are not read; its flags are not known. */
INLINE bool read_compat_call(struct pt_regs *regs, struct ended_call *call)
{
	__u32 number = regs->orig_ax, kind = regs->bx;

	call->descriptor = kind;
	call->unread = UNREAD_COMPAT_TASK;
	call->direction = DIRECTION_RECEIVED;
	if (number == COMPAT_SOCKETCALL) { /* the descriptor is the first of the arguments in memory */
		if (bpf_probe_read_user(&call->descriptor, sizeof(call->descriptor),
					(void *)(__u64)(__u32)regs->cx))
			return false;
		if (kind == SOCKETCALL_SEND || kind == SOCKETCALL_SENDTO ||
		    kind == SOCKETCALL_SENDMSG)
			call->direction = DIRECTION_SENT;
		return call->direction == DIRECTION_SENT || kind == SOCKETCALL_RECV ||
		       kind == SOCKETCALL_RECVFROM || kind == SOCKETCALL_RECVMSG;
	}
	if (number == COMPAT_WRITE || number == COMPAT_WRITEV || number == COMPAT_SENDTO ||
	    number == COMPAT_SENDMSG)
		call->direction = DIRECTION_SENT;
	return call->direction == DIRECTION_SENT || number == COMPAT_READ || number == COMPAT_READV ||
	       number == COMPAT_RECVFROM || number == COMPAT_RECVMSG;
}

/* The socket that the calling thread knows by that number; NULL if it is none. */
INLINE struct sock *socket_at(__u32 descriptor)
{
	struct task_struct *task = older_current_task();
	struct files_struct *files = FIELD(task, files);
	struct fdtable *table = FIELD(files, fdt);
	struct file **open = FIELD(table, fd), *file = NULL;
	struct inode *inode;
	struct socket *socket;

	if (descriptor >= FIELD(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), open + descriptor);
	if (!file)
		return NULL;
	inode = FIELD(file, f_inode);
	if ((FIELD(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = FIELD(file, private_data);
	return socket ? FIELD(socket, sk) : NULL;
}

/* TLS in the kernel and the like: what the process moves is not what the socket moves. */
INLINE bool has_upper_layer(struct sock *sk)
{
	struct inet_connection_sock *inet = (struct inet_connection_sock *)sk;

	return FIELD(sk, sk_protocol) == IPPROTO_TCP && FIELD(inet, icsk_ulp_ops);
}

/* Bytes of the first MESSAGES_MAX messages of a call that moved `count`. */
INLINE __u64 total_of_messages(__u64 slots, __u64 count)
{
	__u64 total = 0;

	for (__u32 i = 0; i < MESSAGES_MAX && i < count; i++) {
		struct user_message_slot *slot = (void *)slots;
		__u32 length = 0;

		bpf_probe_read_user(&length, sizeof(length), &slot[i].length);
		total += length;
	}
	return total;
}

/*
 * The registers as they were while the call was under way, for user_bytes.h. A call for one message
 * is one for the first of its array, which begins like a message.
 */
INLINE void keep_registers(struct pt_regs *regs, struct ended_call *call)
{
	struct pt_regs *kept = registers_here();

	kept->orig_ax = regs->orig_ax;
	kept->ax = -ENOSYS;
	kept->di = regs->di;
	kept->si = regs->si;
	kept->dx = regs->dx;
	if (!call->several)
		return;
	kept->orig_ax = call->direction == DIRECTION_SENT ? CALL_SENDMSG : CALL_RECVMSG;
	if (call->result > 1)
		call->unread = UNREAD_OTHER_CALL;
	call->result = total_of_messages(regs->si, call->result);
}

SEC("tp_btf/sys_exit")
int call_end(__u64 *context)
{
	struct pt_regs *regs = (void *)context[0];
	struct ended_call call = { .result = context[1] }, compat_call = call;
	bool known = read_call(regs, &call), compat = read_compat_call(regs, &compat_call);
	struct sock *sk;

	/* The cheap questions first: most calls are of no interest, and of others. */
	if (call.result < 0 || !(known || compat) || !is_watched(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (is_compat_task(older_current_task())) {
		call = compat_call;
		known = compat;
	}
	if (!known)
		return 0;
	sk = socket_at(call.descriptor);
	if (!sk || !carries_a_stream(sk) || has_upper_layer(sk))
		return 0;
	keep_registers(regs, &call);
	/* Two copies of it, each with a direction that the verifier knows. */
	if (call.direction == DIRECTION_SENT)
		return on_call(sk, call.result, 0, DIRECTION_SENT, call.unread, SLOT_SEND);
	return on_call(sk, call.result, call.flags, DIRECTION_RECEIVED, call.unread, SLOT_SEND);
}

#endif
