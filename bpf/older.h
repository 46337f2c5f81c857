/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Stand-ins for what some programs cannot have (those of 5.10, or with untyped sockets): per-socket and
 * per-task storage, the socket's cookie, the task's registers. The rest of the code does not know
 * which it uses.
 */
#ifndef OTELAUTO_OLDER_H
#define OTELAUTO_OLDER_H

/* ---- the task ---- */

enum { CPUS_MAX = 1024 };

/* Programs on tracepoints and functions are not preempted there: one copy a CPU is enough. */
static struct pt_regs registers[CPUS_MAX];

INLINE struct pt_regs *registers_here(void)
{
	return &registers[bpf_get_smp_processor_id() & (CPUS_MAX - 1)];
}

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
	struct pt_regs *to = registers_here();
	void *stack = NULL;

	bpf_probe_read_kernel(&stack, sizeof(stack), &task->stack);
	if (bpf_probe_read_kernel(to, sizeof(*to), stack + THREAD_SIZE - sizeof(*to)))
		__builtin_memset(to, 0, sizeof(*to));
	return to;
}

#define bpf_get_current_task_btf() older_current_task()
#ifndef bpf_task_pt_regs /* a tier may be given them */
#define bpf_task_pt_regs(task) older_registers(task)
#endif

/* ---- the socket ---- */

#define bpf_get_socket_cookie(sk) connection_id(sk)

#endif
