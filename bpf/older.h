/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Stand-ins for what tracing programs got after 5.10: per-socket and per-task storage, the socket's
 * cookie, the task's registers, atomic operations that give the value before, and global functions
 * with pointers. The rest of the code does not know which it uses.
 */
#ifndef OTELAUTO_OLDER_H
#define OTELAUTO_OLDER_H

/* Verified with each caller, then. */
#undef GLOBAL
#define GLOBAL static __attribute__((noinline))

/*
 * Addition is atomic; what it gives back may be what another CPU's addition gives, too. The others
 * are plain: two threads in one connection at the same instant may both be told that a bit is new.
 * Then a record has its number twice, or comes twice, and the connection is given up as out of step.
 */
#define __sync_fetch_and_add(at, value)                                                            \
	({                                                                                         \
		__u32 before_ = *(volatile __u32 *)(at);                                           \
		ADD_32(at, value);                                                                 \
		before_;                                                                           \
	})
#define plain_update(at, new)                                                                      \
	({                                                                                         \
		typeof(*(at)) before_ = *(volatile typeof(*(at)) *)(at);                           \
		*(volatile typeof(*(at)) *)(at) = (new);                                           \
		before_;                                                                           \
	})
#define __sync_fetch_and_or(at, value) plain_update(at, before_ | (value))
#define __sync_fetch_and_and(at, value) plain_update(at, before_ & (value))
#define __sync_lock_test_and_set(at, value) plain_update(at, value)

/* ---- the task ---- */

enum { CPUS_MAX = 1024 };

/* Tracing programs of such a kernel are not preempted: one copy a CPU is enough. */
static struct pt_regs registers[CPUS_MAX];

INLINE struct task_struct *older_current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

INLINE bool is_compat_task(struct task_struct *task)
{
	__typeof__(task->thread_info.COMPAT_WORD) word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), &task->thread_info.COMPAT_WORD);
	return word & COMPAT_BIT;
}

INLINE __u64 task_ids(struct task_struct *task)
{
	(void)task;
	return bpf_get_current_pid_tgid();
}

/* Registers of the system call in progress: the top of the task's kernel stack. */
INLINE struct pt_regs *older_registers(struct task_struct *task)
{
	struct pt_regs *to = &registers[bpf_get_smp_processor_id() & (CPUS_MAX - 1)];
	void *stack = NULL;

	bpf_probe_read_kernel(&stack, sizeof(stack), &task->stack);
	if (bpf_probe_read_kernel(to, sizeof(*to), stack + THREAD_SIZE - sizeof(*to)))
		__builtin_memset(to, 0, sizeof(*to));
	return to;
}

#define bpf_get_current_task_btf() older_current_task()
#define bpf_task_pt_regs(task) older_registers(task)

/* ---- the socket ---- */

#define bpf_get_socket_cookie(sk) connection_id(sk)

#endif
