/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Where a record is put together, and the copying of user bytes into it. */
#ifndef OTELAUTO_COPY_H
#define OTELAUTO_COPY_H

enum { TAIL_SIZE = 8, LOOK_EVERY = 16 };

/* One a data program; tier A has the first two. */
enum workspace_slot {
	SLOT_SEND = 0,
	SLOT_RECEIVE = 1,
	SLOT_SEND_PAGE = 2,
	SLOT_UNIX_SEND = 3,
	SLOT_UNIX_RECEIVE = 4,
	SLOT_UNIX_SEND_PAGE = 5,
	SLOT_MPTCP_SEND = 6,
	SLOT_MPTCP_RECEIVE = 7,
};

/* Loop state, kept in memory: the verifier then sees one state an iteration, not one a history. */
struct walk {
	volatile __u64 done;   /* bytes copied */
	volatile __u64 start;  /* where the vector at hand begins in the segment */
};

/*
 * Where a record is put together. One a CPU and data program: these may preempt each other, but none
 * runs twice at once on one CPU (the kernel counts such a miss).
 */
struct workspace {
	union {
		struct {
			struct opening opening;
			__u8 path[UNIX_PATH_MAX + 4];
		};
		struct {
			struct segment segment;
			__u8 payload[2 * CAPTURE_MAX]; /* twice: offset and length each < max */
		};
	};
	struct user_vector vectors[VECTORS_READ];
	struct walk walk;
	__u32 records; /* that were put together here; the ring is looked at every LOOK_EVERY */
	__u32 busy;    /* 1: taken by a program that another task's may preempt */
};

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_ARRAY);
	MAP_ATTRIBUTE(max_entries, WORKSPACES); /* set at load: as many a CPU */
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct workspace);
} workspaces SEC(".maps");

INLINE struct workspace *workspace_get(__u32 slot)
{
	__u32 key = bpf_get_smp_processor_id() * WORKSPACES + slot;

	return bpf_map_lookup_elem(&workspaces, &key);
}

INLINE __u32 copy_flat(struct workspace *w, __u64 address, __u64 wanted)
{
	OPAQUE(wanted);
	if (wanted > CAPTURE_MAX)
		wanted = CAPTURE_MAX;
	return bpf_probe_read_user(w->payload, wanted, (void *)address) ? 0 : wanted;
}

/* Read the vector array itself; returns how many vectors are at hand. */
INLINE __u32 read_vectors(struct workspace *w, const struct user_bytes *from)
{
	__u64 count = from->count;

	OPAQUE(count);
	if (count > VECTORS_READ)
		count = VECTORS_READ;
	if (bpf_probe_read_user(w->vectors, count * sizeof(struct user_vector),
				(void *)from->address))
		return 0;
	return count;
}

/*
 * Verifiers walk through a loop once an iteration, and those of some kernels (6.12) once a path, too:
 * half a million instructions. Of bpf_loop() they walk through what is repeated.
 */
struct loop {
	struct workspace *w;
	__u32 bytes; /* to copy; or that the segment has */
	__u32 skipped;
};
#ifdef HAS_LOOPS
#define REPEATED static __attribute__((noinline))
#define REPEAT(times, step, loop) bpf_loop(times, step, loop, 0)
#else
#define REPEATED INLINE
#define REPEAT(times, step, loop)                                                                  \
	for (__u32 i = 0; i < VECTORS_READ; i++)                                                   \
		if (i >= (times) || step(i, loop))                                                 \
			break;
#endif

/* Copy what is wanted of vector `i` behind what is there; 1: it was the last. */
REPEATED long copy_vector(__u64 i, struct loop *loop)
{
	struct workspace *w = loop->w;
	__u64 at = w->walk.done, from = w->walk.start, part, base;
	__u32 wanted = loop->bytes, skipped = loop->skipped;

	if (i >= VECTORS_READ || at >= wanted)
		return 1;
	part = w->vectors[i].length;
	base = w->vectors[i].base;
	w->walk.start = from + part;
	if (PARTS_MAX > 1 && from + part <= skipped)
		return 0;
	if (PARTS_MAX > 1 && from < skipped) {
		base += skipped - from;
		part -= skipped - from;
	}
	if (part > wanted - at)
		part = wanted - at;
	OPAQUE(part);
	if (part > CAPTURE_MAX)
		return 1;
	OPAQUE(at);
	at &= CAPTURE_MAX - 1;
	if (part && bpf_probe_read_user(w->payload + at, part, (void *)base))
		return 1;
	w->walk.done = at + part;
	return 0;
}

/*
 * Gather `wanted` bytes of the vectors behind the first `skipped` ones, CAPTURE_MAX at most; returns
 * how many were copied. A function of its own for the verifier: checked once, not once a path that
 * leads here.
 */
GLOBAL __u32 copy_vectors(__u32 slot, __u32 vector_count, __u32 wanted, __u32 skipped)
{
	struct loop loop = { .w = workspace_get(slot), .skipped = skipped };
	struct workspace *w = loop.w;

	OPAQUE(skipped); /* where nothing is, the verifier wants it passed all the same */
	if (!w)
		return 0;
	loop.bytes = wanted > CAPTURE_MAX ? CAPTURE_MAX : wanted;
	w->walk.done = 0;
	w->walk.start = 0;
	REPEAT(vector_count, copy_vector, &loop);
	return w->walk.done;
}

/* Copy what vector `i` has of the tail; 1: no vector behind it has more, or it cannot be read. */
REPEATED long copy_tail(__u64 i, struct loop *loop)
{
	struct workspace *w = loop->w;
	__u64 length = loop->bytes, window = length - TAIL_SIZE, from = w->walk.start, to, part, at;
	__u64 base, start = from;

	if (i >= VECTORS_READ || from >= length)
		return 1;
	base = w->vectors[i].base;
	to = from + w->vectors[i].length;
	w->walk.start = to;
	if (to > length)
		to = length;
	if (to <= window)
		return 0;
	if (from < window)
		from = window;
	part = to - from;
	at = from - window;
	OPAQUE(part);
	OPAQUE(at);
	if (!part || part > TAIL_SIZE || at >= TAIL_SIZE)
		return 0;
	/* The payload area lies behind the tail: what a wrong `part` could write stays inside. */
	if (bpf_probe_read_user(w->segment.tail + at, part, (void *)(base + from - start)))
		return 1;
	w->walk.done += part;
	return 0;
}

/* The last TAIL_SIZE bytes of a segment of `length` bytes that lies in vectors. */
GLOBAL __u32 copy_vector_tail(__u32 slot, __u32 vector_count, __u32 length)
{
	struct loop loop = { .w = workspace_get(slot), .bytes = length };
	struct workspace *w = loop.w;

	if (!w || length < TAIL_SIZE)
		return 0;
	w->walk.done = 0;
	w->walk.start = 0;
	REPEAT(vector_count, copy_tail, &loop);
	return w->walk.done == TAIL_SIZE;
}

#endif
