// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Emits one record of each struct of the contract, each field with a value of its own. */
#include "kernel.h"
#include "helpers.h"
#include "abi.h"
#include "contract.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_RINGBUF);
	MAP_ATTRIBUTE(max_entries, 256 << 10);
} records SEC(".maps");

INLINE void fill(__u8 *to, __u32 size, __u8 from)
{
	for (__u32 i = 0; i < size; i++)
		to[i] = from + i;
}

INLINE void emit(void *record, __u64 size)
{
	bpf_ringbuf_output(&records, record, size, BPF_RB_NO_WAKEUP);
}

SEC("raw_tp/sys_enter")
int emit_each(void *context)
{
	struct opening opening = {
		.kind = RECORD_OPENING,
		.role = ROLE_SERVER,
		.family = 0x0102,
		.sequence = 0x03040506,
		.connection = 0x0708090a0b0c0d0e,
		.time = 0x0f10111213141516,
		.tgid = 0x1718191a, .tid = 0x1b1c1d1e,
		.netns = 0x1f202122,
		.local_port = 0x2324, .remote_port = 0x2526,
		.inode = 0x2728292a2b2c2d2e,
		.protocol = 0x2f30,
		.path_length = 0x3132,
		.plaintext = 0x33, .pad = { 0xff, 0xff, 0xff },
		.carrier = 0x3435363738393a3b,
	};
	struct segment segment = {
		.kind = RECORD_SEGMENT,
		.direction = DIRECTION_SENT,
		.flags = FLAG_TURN_START | FLAG_RESET,
		.sequence = 0x41424344,
		.connection = 0x45464748494a4b4c,
		.time = 0x4d4e4f5051525354,
		.offset = 0x55565758595a5b5c,
		.length = 0x5d5e5f60,
		.captured = 0x61626364,
		.tgid = 0x65666768, .tid = 0x696a6b6c,
		.tcp_sequence = 0x6d6e6f70,
		.unseen = 0xf1f2f3f4,
	};
	struct process_event event = {
		.kind = PROCESS_LISTEN,
		.pad = 0xff,
		.port = 0x7172,
		.tgid = 0x73747576,
		.parent = 0x7778797a,
		.netns = 0x7b7c7d7e,
		.time = 0xf0f1f2f3f4f5f6f7,
	};
	struct endpoint_key key = { .netns = 0x81828384, .port = 0x8586, .kind = 0x8788 };
	struct verdict verdict = {
		.mode = MODE_HEADS,
		.want = { 0x91929394, 0x95969798 },
		.start_length = { 0x999a9b9c, 0x9d9e9fa0 },
		.pad = 0xffffffff,
	};

	(void)context;
	fill(opening.local, sizeof(opening.local), 0xa0);
	fill(opening.remote, sizeof(opening.remote), 0xb0);
	fill(segment.tail, sizeof(segment.tail), 0xc0);
	fill(key.address, sizeof(key.address), 0xd0);
	fill(verdict.start[0], 8, 0xe0);
	fill(verdict.start[1], 8, 0xe8);
	emit(&opening, sizeof(opening));
	emit(&segment, sizeof(segment));
	emit(&event, sizeof(event));
	emit(&key, sizeof(key));
	emit(&verdict, sizeof(verdict));
	return 0;
}
