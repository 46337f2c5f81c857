/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which processes are watched. Bytes of any other process are never read. */
#ifndef OTELAUTO_TARGETS_H
#define OTELAUTO_TARGETS_H

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_HASH);
	MAP_ATTRIBUTE(max_entries, 16384);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, tgid_t);
	MAP_TYPE(value, __u32); /* enum target_state */
} targets SEC(".maps");

const volatile __u32 system_wide = 0; /* 1: watch whatever is not TARGET_EXCLUDED */

INLINE bool is_watched(tgid_t tgid)
{
	__u32 *state = bpf_map_lookup_elem(&targets, &tgid);

	if (state)
		return *state == TARGET_WATCHED;
	return system_wide;
}

#endif
