/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Positions in multi-message calls by thread, where tasks have no storage for BPF. */
#ifndef OTELAUTO_SLOT_TABLE_H
#define OTELAUTO_SLOT_TABLE_H

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_ATTRIBUTE(max_entries, 4096);
	MAP_TYPE(key, __u64); /* tgid and tid */
	MAP_TYPE(value, struct slot_cursor);
} slot_cursors SEC(".maps");

INLINE struct slot_cursor *slot_cursor_get(void)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct slot_cursor *found = bpf_map_lookup_elem(&slot_cursors, &id), none = {};

	if (found)
		return found;
	bpf_map_update_elem(&slot_cursors, &id, &none, BPF_ANY);
	return bpf_map_lookup_elem(&slot_cursors, &id);
}

#define bpf_task_storage_get(map, task, value, flags) slot_cursor_get()

#endif
