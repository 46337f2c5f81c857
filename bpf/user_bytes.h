/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where the user's bytes of the system call in progress are. The socket hooks run after the copy,
 * in the caller's context; the call's arguments are still in the registers saved on its stack.
 */
#ifndef OTELAUTO_USER_BYTES_H
#define OTELAUTO_USER_BYTES_H

/* A flat buffer (count 0) or an array of I/O vectors, all in user memory. */
struct user_bytes {
	__u64 address;
	__u64 count;
};

/*
 * recvmmsg and sendmmsg: each message passes the hook by itself, and nothing that the hook is given
 * says which one it is. So the thread's position in its call is followed: a call ends with its last
 * slot, with an error, or with a send that was cut short. Where that is not certain (a time limit,
 * more vectors than are read), the rest of the call is unread rather than read from a wrong slot.
 */
struct slot_cursor {
	__u64 slots;           /* array of the call in progress; 0: none */
	__u32 slot_count;
	__u32 next;            /* SLOT_LOST: not known */
};

enum { SLOT_LOST = 1 << 30 };

static volatile __u32 slots_in_use; /* 1: some thread has made such a call */

#ifndef OTELAUTO_OLDER_H
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_TASK_STORAGE);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct slot_cursor);
} slot_cursors SEC(".maps");

INLINE bool is_compat_task(struct task_struct *task)
{
	return task->thread_info.COMPAT_WORD & COMPAT_BIT;
}

/* tgid and tid, as bpf_get_current_pid_tgid() gives them. */
INLINE __u64 task_ids(struct task_struct *task)
{
	return (__u64)task->tgid << 32 | (__u32)task->pid;
}
#else
#include "slot_table.h"
#endif

/* The slot that the thread's call is at, and step on; SLOT_LOST if it is not known. */
INLINE __u32 take_slot(struct slot_cursor *cursor, struct pt_regs *regs)
{
	__u32 slot_count = CALL_ARGUMENT_3(regs), slot;

	slots_in_use = 1;
	if (cursor->slots != CALL_ARGUMENT_2(regs) || cursor->slot_count != slot_count ||
	    cursor->next == slot_count || slot_count == 1) {
		cursor->slots = CALL_ARGUMENT_2(regs);
		cursor->slot_count = slot_count;
		cursor->next = 0;
	}
	slot = cursor->next;
	if (slot != SLOT_LOST)
		cursor->next++;
	return slot;
}

/* Bytes that the vectors describe. A function of its own for the verifier. */
GLOBAL __u64 total_of_vectors(__u64 address, __u32 vector_count)
{
	struct user_vector vector;
	__u64 total = 0;

	for (__u32 i = 0; i < VECTORS_READ && i < vector_count; i++) {
		if (bpf_probe_read_user(&vector, sizeof(vector),
					(void *)(address + i * sizeof(vector))))
			return 0;
		total += vector.length;
	}
	return total;
}

/* The message of a multi-message call that just moved `length` bytes. A function of its own, too. */
GLOBAL_OF_POINTERS __u32 find_slot(struct user_bytes *to, __u64 length)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	struct slot_cursor *cursor;
	struct user_message message;
	bool sends = CALL_NUMBER(regs) == CALL_SENDMMSG;
	__u64 total;
	__u32 slot;

	if (!to || (!sends && CALL_ARGUMENT_5(regs))) /* the time limit may end the call after any message, unseen */
		return UNREAD_OTHER_CALL;
	cursor = bpf_task_storage_get(&slot_cursors, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cursor)
		return UNREAD_OTHER_CALL;
	slot = take_slot(cursor, regs);
	if (slot == SLOT_LOST)
		return UNREAD_OTHER_CALL;
	if (bpf_probe_read_user(&message, sizeof(message),
				(void *)(CALL_ARGUMENT_2(regs) + slot * sizeof(struct user_message_slot)))) {
		cursor->next = SLOT_LOST;
		return UNREAD_FAULT;
	}
	to->address = message.vectors;
	to->count = message.vector_count;
	total = total_of_vectors(message.vectors, message.vector_count);
	if (length > total)
		cursor->next = SLOT_LOST;
	else if (length < total && sends)
		cursor->slots = 0;
	return length > total && message.vector_count <= VECTORS_READ ? UNREAD_OTHER_CALL : 0;
}

INLINE bool is_call_in_progress(struct task_struct *task, struct pt_regs *regs)
{
	return !is_compat_task(task) && CALL_HAS_NOT_RETURNED(regs);
}

INLINE bool is_multi_message_call(void)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());

	return CALL_NUMBER(regs) == CALL_SENDMMSG || CALL_NUMBER(regs) == CALL_RECVMMSG;
}

/* A call that moved nothing: a message without bytes is a slot too, an error ends the run. */
INLINE void pass_slot(int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	struct slot_cursor *cursor;

	if (!is_multi_message_call() || !is_call_in_progress(task, regs))
		return;
	cursor = bpf_task_storage_get(&slot_cursors, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cursor)
		return;
	if (result < 0)
		cursor->slots = 0;
	else
		take_slot(cursor, regs);
}

/* The calls that are not a plain read or write. A function of its own for the verifier. */
GLOBAL_OF_POINTERS __u32 find_vectors(struct user_bytes *to, __u64 length)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct user_message message;

	if (!to)
		return UNREAD_OTHER_CALL;
	switch (CALL_NUMBER(regs)) {
	case CALL_READV:
	case CALL_WRITEV:
	case CALL_PREADV2:
	case CALL_PWRITEV2:
		to->address = CALL_ARGUMENT_2(regs);
		to->count = CALL_ARGUMENT_3(regs);
		return 0;
	case CALL_SENDMSG:
	case CALL_RECVMSG:
		if (bpf_probe_read_user(&message, sizeof(message), (void *)CALL_ARGUMENT_2(regs)))
			return UNREAD_FAULT;
		to->address = message.vectors;
		to->count = message.vector_count;
		return 0;
	case CALL_RECVMMSG:
	case CALL_SENDMMSG:
		return find_slot(to, length);
	default:
		return UNREAD_OTHER_CALL;
	}
}

/* Fill *to from the call in progress. Returns 0, or the counter that says why there is no buffer. */
INLINE __u32 find_user_bytes(struct task_struct *task, struct user_bytes *to, __u64 length)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);

	if (is_compat_task(task))
		return UNREAD_COMPAT_TASK;
	if (!is_call_in_progress(task, regs))
		return UNREAD_OTHER_CALL;
	switch (CALL_NUMBER(regs)) {
	case CALL_READ:
	case CALL_WRITE:
	case CALL_SENDTO:
	case CALL_RECVFROM:
		to->address = CALL_ARGUMENT_2(regs);
		return 0;
	default:
		return find_vectors(to, length);
	}
}

#endif
