/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Records to the rings, without a wake-up for each, and every loss counted by its reason. */
#ifndef OTELAUTO_EMIT_H
#define OTELAUTO_EMIT_H

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_ATTRIBUTE(max_entries, COUNTER_COUNT);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
} counters SEC(".maps");

INLINE void count(__u32 reason, __u64 amount)
{
	__u64 *slot = bpf_map_lookup_elem(&counters, &reason);

	if (slot)
		ADD_64(slot, amount); /* a softirq's program may interrupt us here */
}

/* The data ring. A consumer on a timer drains it; crossing wake_at wakes it, once. */
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_RINGBUF);
	MAP_ATTRIBUTE(max_entries, 4 << 20);
} records SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_RINGBUF);
	MAP_ATTRIBUTE(max_entries, 256 << 10);
} events SEC(".maps");

/*
 * Written by both sides: a map of its own, which user space maps into its memory.
 * generation: targets or verdicts changed, connections look theirs up again; never 0.
 * wake_pending: a wake-up is on its way; the consumer clears it after a drain, so that a slow
 * consumer does not make each record pay.
 * sleeping: the consumer has no timer that is worth waiting for; what comes first clears it and
 * wakes the consumer.
 */
struct shared_state {
	__u32 generation;
	__u32 wake_pending;
	__u32 sleeping;
};

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_ARRAY);
	MAP_ATTRIBUTE(max_entries, 1);
	MAP_ATTRIBUTE(map_flags, BPF_F_MMAPABLE);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct shared_state);
} shared SEC(".maps");

const volatile __u64 wake_at = 1 << 20; /* bytes waiting in the data ring */

INLINE struct shared_state *shared_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&shared, &zero);
}

/* Two programs at once may both find it asleep: one wake-up too many, which costs less than a lock. */
INLINE bool ends_sleep(struct shared_state *state)
{
	if (!state || !state->sleeping)
		return false;
	state->sleeping = 0;
	return true;
}

/*
 * Submit one record of the data ring; counted as produced whether it fits or not. To look how full
 * the ring is costs as much as a clock reading, so `look` is given now and then only.
 */
COLD bool is_filling(struct shared_state *state)
{
	return bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) > wake_at && state &&
	       !__sync_lock_test_and_set(&state->wake_pending, 1);
}

INLINE bool emit_record(void *record, __u64 size, bool look)
{
	struct shared_state *state = shared_state();
	__u64 flags = BPF_RB_NO_WAKEUP;

	count(RECORDS_PRODUCED, 1);
	if (ends_sleep(state) || (look && is_filling(state)))
		flags = BPF_RB_FORCE_WAKEUP;
	if (!bpf_ringbuf_output(&records, record, size, flags))
		return true;
	count(DROP_RING_FULL, 1);
	return false;
}

/* Submit one process event; `wakeup` if discovery should not wait for the consumer's next turn. */
INLINE void emit_event(struct process_event *event, bool wakeup)
{
	if (ends_sleep(shared_state()))
		wakeup = true;
	count(EVENTS_PRODUCED, 1);
	if (bpf_ringbuf_output(&events, event, sizeof(*event),
			       wakeup ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP))
		count(DROP_EVENT_RING_FULL, 1);
}

#endif
