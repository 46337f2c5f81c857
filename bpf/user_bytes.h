/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where the user's bytes of the system call in progress are. The socket hooks run after the copy,
 * in the caller's context; the call's arguments are still in the registers saved on its stack.
 */
#ifndef OTELAUTO_USER_BYTES_H
#define OTELAUTO_USER_BYTES_H

enum system_call { /* x86-64 */
	CALL_READ = 0,
	CALL_WRITE = 1,
	CALL_READV = 19,
	CALL_WRITEV = 20,
	CALL_SENDTO = 44,
	CALL_RECVFROM = 45,
	CALL_SENDMSG = 46,
	CALL_RECVMSG = 47,
	CALL_RECVMMSG = 299,
	CALL_SENDMMSG = 307,
	CALL_PREADV2 = 327,
	CALL_PWRITEV2 = 328,
};

/* A flat buffer (count 0) or an array of I/O vectors, all in user memory. */
struct user_bytes {
	__u64 address;
	__u64 count;
};

/* Position in a recvmmsg or sendmmsg: each of its messages passes the hook by itself. */
struct slot_cursor {
	__u64 slots;
	__u32 next;
	__u32 pad;
};

/* The next message of a multi-message call; false if its header cannot be read. */
INLINE bool next_slot(struct slot_cursor *cursor, __u64 slots, __u64 slot_count, struct user_bytes *to)
{
	struct user_message message;

	if (cursor->slots != slots || cursor->next >= slot_count) {
		cursor->slots = slots;
		cursor->next = 0;
	}
	slots += (__u64)cursor->next * sizeof(struct user_message_slot);
	cursor->next++;
	if (bpf_probe_read_user(&message, sizeof(message), (void *)slots))
		return false;
	to->address = message.vectors;
	to->count = message.vector_count;
	return true;
}

/*
 * Fill *to from the call in progress. Returns 0, or the counter that names why there is no buffer.
 *
 * Until the call returns, ax holds -ENOSYS (entry code of arch/x86); anything else is work that the
 * kernel runs on the way out (io_uring completions), whose bytes the registers do not describe.
 */
INLINE __u32 find_user_bytes(struct slot_cursor *cursor, struct user_bytes *to)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	struct user_message message;

	if (task->thread_info.status & TS_COMPAT)
		return UNREAD_COMPAT_TASK;
	if ((__s64)regs->ax != -ENOSYS)
		return UNREAD_OTHER_CALL;
	to->address = regs->si;
	to->count = 0;
	switch (regs->orig_ax) {
	case CALL_READ:
	case CALL_WRITE:
	case CALL_SENDTO:
	case CALL_RECVFROM:
		return 0;
	case CALL_READV:
	case CALL_WRITEV:
	case CALL_PREADV2:
	case CALL_PWRITEV2:
		to->count = regs->dx;
		return 0;
	case CALL_SENDMSG:
	case CALL_RECVMSG:
		if (bpf_probe_read_user(&message, sizeof(message), (void *)regs->si))
			return UNREAD_FAULT;
		to->address = message.vectors;
		to->count = message.vector_count;
		return 0;
	case CALL_RECVMMSG:
	case CALL_SENDMMSG:
		return next_slot(cursor, regs->si, regs->dx, to) ? 0 : UNREAD_FAULT;
	default:
		return UNREAD_OTHER_CALL;
	}
}

#endif
