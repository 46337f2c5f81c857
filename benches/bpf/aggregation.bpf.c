// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Two ways of what follows the copy of an exchange's heads: hand them to user space, or aggregate
 * here. For benches/aggregation.py, which runs them by BPF_PROG_TEST_RUN; nothing is attached.
 *
 * The packet is the two sizes (16 bits each), the request head, the response head. Of HTTP only so
 * much is read as the histogram needs, for the plainest of exchanges: no pipelining, no state of
 * the connection. What is measured is the least that it could cost.
 */
#include "kernel.h"
#include "helpers.h"

enum { HEAD_MAX = 256, PATH_MAX = 64, BOUNDS = 15, SIZES = 4, RECORD_HEAD = 64 };

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct __sk_buff;
static long (*bpf_skb_load_bytes)(struct __sk_buff *skb, __u32 at, void *to,
				  __u32 size) = (void *)26;

struct scratch {
	__u8 front[RECORD_HEAD]; /* as large as that of the product's records */
	__u8 text[HEAD_MAX + 8]; /* a word may be read at the last byte */
	__u64 hash;
};

struct key {
	__u32 route;
	__u16 status;
	__u16 method;
};

struct cell {
	__u64 count;
	__u64 sum;
	__u64 buckets[BOUNDS + 1];
};

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_ATTRIBUTE(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct scratch);
} scratches SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_RINGBUF);
	MAP_ATTRIBUTE(max_entries, 4 << 20);
} records SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_ATTRIBUTE(max_entries, 16384);
	MAP_TYPE(key, __u64);
	MAP_TYPE(value, __u32);
} routes SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_HASH);
	MAP_ATTRIBUTE(max_entries, 10000);
	MAP_TYPE(key, struct key);
	MAP_TYPE(value, struct cell);
} cells SEC(".maps");

static const __u64 bounds_us[BOUNDS + 1] = { 0,	    5000,   10000,   25000,   50000,   75000,
					     100000,  250000, 500000,  750000,  1000000, 2500000,
					     5000000, 7500000, 10000000, ~0ULL };

INLINE struct scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

/* Copies the request (0) or the response (1), as a copy from the service's memory must be made. */
INLINE __u32 copy(struct __sk_buff *skb, struct scratch *to, __u32 which)
{
	__u16 sizes[2] = {};
	__u32 at = SIZES, size;

	bpf_skb_load_bytes(skb, 0, sizes, sizeof(sizes));
	if (which)
		at += sizes[0];
	size = sizes[which];
	OPAQUE(size);
	if (size < 1 || size > HEAD_MAX || bpf_skb_load_bytes(skb, at, to->text, size))
		return 0;
	return size;
}

SEC("tc")
int only_copy(struct __sk_buff *skb)
{
	struct scratch *to = scratch();
	__u64 began = bpf_ktime_get_boot_ns();

	if (!to || !copy(skb, to, 0) || !copy(skb, to, 1))
		return 0;
	return bpf_ktime_get_boot_ns() >= began;
}

INLINE bool hand(struct __sk_buff *skb, struct scratch *to, __u32 which)
{
	__u32 size = copy(skb, to, which);

	if (size < 1 || size > HEAD_MAX)
		return false;
	return !bpf_ringbuf_output(&records, to, RECORD_HEAD + size, BPF_RB_NO_WAKEUP);
}

SEC("tc")
int hand_over(struct __sk_buff *skb)
{
	struct scratch *to = scratch();
	__u64 began = bpf_ktime_get_boot_ns();

	if (!to || !hand(skb, to, 0) || !hand(skb, to, 1))
		return 0;
	return bpf_ktime_get_boot_ns() >= began;
}

/* FNV-1a of the path, its segments that begin with a digit as one character. */
INLINE __u64 path_hash(struct scratch *from, __u32 at)
{
	__u64 hash = 0xcbf29ce484222325;
	bool starts = false, number = false;

	for (__u32 i = 0; i < PATH_MAX; i++) {
		__u8 c = from->text[(at + i) & (HEAD_MAX - 1)];

		if (c == ' ' || c == '?')
			break;
		if (starts && c >= '0' && c <= '9') {
			number = true;
			c = '*';
		}
		starts = c == '/';
		if (starts)
			number = false;
		else if (number && c != '*')
			continue;
		hash = (hash ^ c) * 0x100000001b3;
	}
	return hash;
}

INLINE void bump(const struct key *key, __u64 taken_us)
{
	static const struct cell empty;
	struct cell *cell = bpf_map_lookup_elem(&cells, key);
	__u32 at = 0;

	if (!cell) {
		bpf_map_update_elem(&cells, key, &empty, BPF_NOEXIST);
		cell = bpf_map_lookup_elem(&cells, key);
		if (!cell)
			return;
	}
	for (__u32 step = 8; step; step /= 2)
		if (bounds_us[(at + step - 1) & BOUNDS] < taken_us)
			at += step;
	ADD_64(&cell->count, 1);
	ADD_64(&cell->sum, taken_us);
	ADD_64(&cell->buckets[at & BOUNDS], 1);
}

INLINE __u64 load_word(const struct scratch *from, __u32 at)
{
	__u64 word;

	__builtin_memcpy(&word, &from->text[at & (HEAD_MAX - 1)], sizeof(word));
	return word;
}

/* Where the line break of a Content-Length field is; 0: there is none. */
INLINE __u32 find_length(const struct scratch *from, __u32 size)
{
	for (__u32 at = 0; at < HEAD_MAX && at < size; at += 8) {
		__u64 breaks = load_word(from, at) ^ 0x0a0a0a0a0a0a0a0a;

		if (!((breaks - 0x0101010101010101) & ~breaks & 0x8080808080808080))
			continue;
		for (__u32 i = at; i < at + 8; i++)
			if (from->text[i] == '\n' &&
			    (load_word(from, i + 7) | 0x2020202020202020) == 0x6874676e656c2d74)
				return i; /* "t-length" */
	}
	return 0;
}

/* Content-Length: without it nobody knows where a message ends, so which bytes begin the next. */
INLINE __u64 read_length(const struct scratch *from, __u32 size)
{
	__u32 at = find_length(from, size);
	__u64 length = 0;

	for (__u32 i = 16; at && i < 26; i++) {
		__u8 c = from->text[(at + i) & (HEAD_MAX - 1)];

		if (c == '\r')
			break;
		if (c != ' ')
			length = length * 10 + (c - '0');
	}
	return length;
}

INLINE int observe(struct __sk_buff *skb, bool framed)
{
	struct scratch *from = scratch();
	__u64 hash, began = bpf_ktime_get_boot_ns();
	struct key key = {};
	__u32 *route, size, new = 1;

	if (!from || !(size = copy(skb, from, 0)))
		return 0;
	if (framed && read_length(from, size))
		return 0;
	key.method = from->text[0];
	for (__u32 i = 1; i < 8; i++)
		if (from->text[i] == ' ') {
			from->hash = i + 1;
			break;
		}
	hash = path_hash(from, from->hash);
	route = bpf_map_lookup_elem(&routes, &hash);
	if (!route)
		bpf_map_update_elem(&routes, &hash, &new, BPF_ANY);
	key.route = route ? *route : new;
	if (!(size = copy(skb, from, 1)))
		return 0;
	if (framed && !read_length(from, size))
		return 0;
	key.status = (from->text[9] - '0') * 100 + (from->text[10] - '0') * 10 + from->text[11] - '0';
	bump(&key, (bpf_ktime_get_boot_ns() - began) / 1000);
	return 1;
}

SEC("tc")
int aggregate(struct __sk_buff *skb)
{
	return observe(skb, false);
}

SEC("tc")
int aggregate_framed(struct __sk_buff *skb)
{
	return observe(skb, true);
}
