// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Processes that start, fork, end or begin to listen: numbers only, no names and no bytes. */
#include "kernel.h"
#include "helpers.h"
#include "abi.h"
#include "contract.h"
#include "targets.h"
#include "emit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 report_all_execs = 0; /* 1: the selector looks at executables */

/* Bit by port: a socket that begins to listen on it is worth an event. */
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_ARRAY);
	MAP_ATTRIBUTE(max_entries, PORT_WORDS);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
} wanted_ports SEC(".maps");

INLINE void report(enum process_event_kind kind, tgid_t tgid, tgid_t parent)
{
	struct process_event event = {
		.kind = kind,
		.tgid = tgid,
		.parent = parent,
		.time = bpf_ktime_get_boot_ns(),
	};

	emit_event(&event, false);
}

SEC("tp_btf/sched_process_exec")
int process_exec(__u64 *context)
{
	struct task_struct *task = (void *)context[0];
	tgid_t tgid = task->tgid;

	if (report_all_execs || is_watched(tgid))
		report(PROCESS_EXEC, tgid, 0);
	return 0;
}

/*
 * A child of a watched process is watched from its first instruction. A process id that was watched
 * before and is used again is not: an entry put too late for its process's end is removed here.
 */
SEC("tp_btf/sched_process_fork")
int process_fork(__u64 *context)
{
	struct task_struct *parent = (void *)context[0], *child = (void *)context[1];
	tgid_t from = parent->tgid, to = child->tgid;
	__u32 *state;

	if (from == to)
		return 0; /* a thread */
	state = bpf_map_lookup_elem(&targets, &from);
	if (!state)
		bpf_map_delete_elem(&targets, &to);
	else if (bpf_map_update_elem(&targets, &to, state, BPF_ANY))
		count(DROP_TARGET_REFUSED, 1);
	else if (*state == TARGET_WATCHED)
		report(PROCESS_FORK, to, from);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int process_exit(__u64 *context)
{
	struct task_struct *task = (void *)context[0];
	tgid_t tgid = task->tgid;
	bool watched;
	__u32 *state;

	if (task->signal->live.counter > 0)
		return 0; /* other threads go on */
	state = bpf_map_lookup_elem(&targets, &tgid);
	if (!state)
		return 0;
	watched = *state == TARGET_WATCHED;
	/* The last two threads may both come here: one of them deletes. */
	if (!bpf_map_delete_elem(&targets, &tgid) && watched)
		report(PROCESS_EXIT, tgid, 0);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int process_listen(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	struct process_event event = { .kind = PROCESS_LISTEN };
	__u32 word;
	__u64 *bits;

	if ((int)context[2] != TCP_LISTEN)
		return 0;
	event.port = sk->__sk_common.skc_num;
	word = event.port / 64;
	bits = bpf_map_lookup_elem(&wanted_ports, &word);
	if (!bits || !(*bits & 1ULL << event.port % 64))
		return 0;
	event.tgid = bpf_get_current_pid_tgid() >> 32;
	event.netns = sk->__sk_common.skc_net.net->ns.inum;
	event.time = bpf_ktime_get_boot_ns();
	emit_event(&event, true);
	return 0;
}
