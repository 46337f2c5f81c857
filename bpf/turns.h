/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The decision what of each segment is copied, and the records. Attach files (one a capture tier)
 * call on_segment() and on_ending(); state is reached through connection_get() only.
 *
 * Two threads may use one socket at once, one reading and one writing. Each direction's fields have
 * one writer then; the shared ones are the record number (atomic), the turn and the last caller. A
 * lost race for the turn may start one too many (bytes copied for nothing) or none where one begins.
 * Then, as behind a body that the service reads late, a message head is found by its first bytes
 * (verdict.start) where these are known. Where they are not, the first LATER_WANT bytes of every
 * segment are copied: a request head that lies further in, or is longer, is cut.
 */
#ifndef OTELAUTO_TURNS_H
#define OTELAUTO_TURNS_H

enum {
	FIRST_TURNS = 2,            /* these are copied generously whatever the verdict */
	FIRST_TURN_WANT = 8192,
	UNDECIDED_WANT = 16384,     /* of each turn, while there is no verdict */
	LATER_WANT = 1024,          /* of a later segment of a turn, where heads cannot be told */
	DISORDER_JUMP = 1 << 20,    /* offset jump that makes an unknowable order visible as a hole */
};

/* ---- one segment ---- */

/*
 * Numbers that branches depend on are 4 bytes, and not at a multiple of 8, where verifiers follow what
 * is stored on a stack: before 6.8 (commit 41f6f64e6999) they forget, when a function that is called
 * reads it by a pointer, that they relied on it, take another value for seen, and drop its branches.
 */
struct segment_plan {
	struct user_bytes user;
	enum direction direction;
	__u32 length;
	enum workspace_slot slot;
	__u32 wanted;
	__u32 vector_count;        /* of those read into the workspace */
	__u32 unread;              /* counter that names why there is no buffer; 0: there is */
};

/* Whether a message may begin with the segment. Of vectors only the first one is looked at. */
INLINE bool begins_message(struct connection *c, struct segment_plan *plan)
{
	__u64 significant = c->verdict.start_length[plan->direction & 1];
	__u64 address = plan->user.address, first[2] = {}, length, pattern, mask;

	if (plan->user.count) {
		struct user_vector vector;

		if (bpf_probe_read_user(&vector, sizeof(vector), (void *)address))
			return false;
		address = vector.base;
		if (significant > vector.length)
			significant = vector.length;
		if (!significant)
			return true;
	}
	if (!significant || significant > 8)
		return false;
	length = significant;
	OPAQUE(length);
	length &= 15; /* verifiers before 5.14 forget the bound of a value that was spilled */
	if (bpf_probe_read_user(first, length, (void *)address))
		return false;
	__builtin_memcpy(&pattern, c->verdict.start[plan->direction & 1], 8);
	mask = ~0ULL >> (64 - 8 * significant);
	return !((first[0] ^ pattern) & mask);
}

/* The first bytes of a direction may decide at once what a verdict would decide a drain later. */
COLD void look_at_beginning(struct connection *c, struct segment_plan *plan)
{
	struct endpoint_key key = { .kind = ENDPOINT_BEGINNING };
	__u64 address = plan->user.address;
	struct verdict *found;

	if (plan->user.count) {
		struct user_vector vector;

		if (bpf_probe_read_user(&vector, sizeof(vector), (void *)address) ||
		    vector.length < BEGINNING_SIZE)
			return;
		address = vector.base;
	}
	if (plan->length < BEGINNING_SIZE ||
	    bpf_probe_read_user(key.address, BEGINNING_SIZE, (void *)address))
		return;
	found = bpf_map_lookup_elem(&endpoint_verdicts, &key);
	if (found) {
		c->verdict = *found;
		mark(c, CONNECTION_SETTLED);
	}
}

/*
 * How many bytes of this segment to copy (plan->wanted). A message head may begin in the middle of a
 * turn, behind a body that the service read late: it is found by its first bytes where these are
 * known; where they are not, the beginning of every segment is copied.
 */
COLD void want_of_large(struct connection *c, struct segment_plan *plan)
{
	bool settled = c->bits & CONNECTION_SETTLED;
	__u32 d = plan->direction & 1, later = settled ? LATER_WANT : SMALL_SEGMENT;
	__u32 want = settled ? c->verdict.want[d] : UNDECIDED_WANT, left;

	if (settled && c->verdict.mode == MODE_STREAM)
		return;
	if (c->turns <= FIRST_TURNS && want < FIRST_TURN_WANT)
		want = FIRST_TURN_WANT;
	left = c->captured[d] < want ? want - c->captured[d] : 0;
	if (left < plan->length && settled && c->verdict.start_length[d]) {
		if (begins_message(c, plan)) {
			c->captured[d] = 0;
			left = want;
		}
	} else if (left < later) {
		left = want < later ? want : later;
	}
	if (plan->wanted > left)
		plan->wanted = left;
}

INLINE void want_bytes(struct connection *c, struct segment_plan *plan)
{
	plan->wanted = plan->length;
	if (plan->length > SMALL_SEGMENT)
		want_of_large(c, plan);
}

/* Vectors, a part of the segment, or bytes that cannot be read. */
COLD void copy_carefully(struct workspace *w, struct segment_plan *plan)
{
	struct segment *s = &w->segment;
	s->captured = 0;
	if (plan->unread) {
		count(plan->unread, 1);
		count(BYTES_UNREAD, plan->length);
		s->flags |= FLAG_UNREAD;
		return;
	}
	if (plan->user.count)
		plan->vector_count = read_vectors(w, &plan->user);
	if (plan->wanted) {
		__u64 limit = plan->wanted < CAPTURE_MAX ? plan->wanted : CAPTURE_MAX;

		s->captured = plan->user.count ? copy_vectors(plan->slot, plan->vector_count, limit, 0)
					       : copy_flat(w, plan->user.address, limit);
		if (s->captured < limit) {
			count(plan->user.count > VECTORS_READ ? UNREAD_VECTORS : UNREAD_FAULT, 1);
			count(BYTES_UNREAD, limit - s->captured);
		}
		if (!s->captured)
			s->flags |= FLAG_UNREAD;
		else if (s->captured < plan->wanted)
			s->flags |= FLAG_TRUNCATED;
	}
	if (s->captured < plan->length && plan->length >= TAIL_SIZE) {
		bool got = plan->user.count
				   ? copy_vector_tail(plan->slot, plan->vector_count, plan->length) != 0
				   : !bpf_probe_read_user(s->tail, TAIL_SIZE,
							  (void *)(plan->user.address +
								   plan->length - TAIL_SIZE));
		if (got)
			s->flags |= FLAG_TAIL;
	}
}

INLINE void copy_segment(struct workspace *w, struct segment_plan *plan)
{
	bool plain = !plan->unread && !plan->user.count;

	if (plain && plan->wanted == plan->length && plan->length <= CAPTURE_MAX) {
		w->segment.captured = copy_flat(w, plan->user.address, plan->length);
		if (w->segment.captured)
			return;
	}
	copy_carefully(w, plan);
}

/* ---- TCP sequence numbers ---- */

/*
 * The sequence number that the first byte of a direction had (a sender's SYN may count: one less).
 * It is the difference of two that move, and a softirq elsewhere may be moving them: read it until
 * it stands still.
 */
INLINE __u32 first_sequence(struct tcp_sock *tcp, __u32 direction)
{
	__u32 first = 0, last = 0;

	for (int i = 0; i < 4; i++) {
		last = first;
		first = direction == DIRECTION_SENT ? FIELD(tcp, snd_una) - (__u32)FIELD(tcp, bytes_acked)
						    : FIELD(tcp, rcv_nxt) - (__u32)FIELD(tcp, bytes_received);
		if (i && first == last)
			break;
		READ_AGAIN();
	}
	return first;
}

/* A read that goes on to the end of the stream moves copied_seq past the peer's FIN, no byte. */
INLINE bool is_fin_read(struct sock *sk, struct tcp_sock *tcp, __u32 direction)
{
	return direction == DIRECTION_RECEIVED && FIELD(sk, sk_shutdown) & RCV_SHUTDOWN &&
	       FIELD(tcp, copied_seq) == FIELD(tcp, rcv_nxt);
}

/*
 * The segment is not where the one before it ended, or is its direction's first. Zero, or how far past
 * the expected sequence number it starts: bytes no hook saw. A direction's offsets start with its
 * first segment. Bytes that passed before are not ours to know; that they did pass is.
 */
INLINE __u32 find_gap(struct connection *c, struct segment *s, struct sock *sk, struct tcp_sock *tcp)
{
	__u32 d = s->direction & 1, start = s->tcp_sequence;
	__u32 expected = c->started[d] ? c->next_tcp_sequence[d] : first_sequence(tcp, d);
	__u32 gap = start - expected;

	if (gap == 1 && is_fin_read(sk, tcp, d)) {
		s->tcp_sequence = start - 1;
		gap = 0;
	}
	if (!c->started[d]) {
		c->started[d] = 1;
		if (gap > (d == DIRECTION_SENT))
			s->flags |= FLAG_MIDSTREAM;
		gap = 0;
	}
	return gap;
}

COLD void place_after_gap(struct connection *c, struct segment *s, struct sock *sk)
{
	struct tcp_sock *tcp = tcp_sock_of(sk);
	__u32 d = s->direction & 1, gap = tcp ? find_gap(c, s, sk, tcp) : 0;

	s->unseen = gap;
	if (gap > 1U << 30) { /* went backwards: two threads in one direction, order unknown */
		c->offset[d] += DISORDER_JUMP;
		s->unseen = DISORDER_JUMP;
	} else if (gap) {
		c->offset[d] += gap;
		count(BYTES_UNSEEN, gap);
	}
}

/* Give the segment its offset, and its sequence number if it has one (AF_UNIX, MPTCP: none). */
INLINE void place_segment(struct connection *c, struct segment *s, struct sock *sk)
{
	struct tcp_sock *tcp = tcp_sock_of(sk);
	__u32 d = s->direction & 1;

	if (tcp) {
		s->tcp_sequence = (d == DIRECTION_SENT ? FIELD(tcp, write_seq)
						       : FIELD(tcp, copied_seq)) -
				  s->length;
		if (!c->started[d] || s->tcp_sequence != c->next_tcp_sequence[d])
			place_after_gap(c, s, sk);
		c->next_tcp_sequence[d] = s->tcp_sequence + s->length;
	}
	s->offset = c->offset[d];
	c->offset[d] += s->length;
}

/* ---- connections ---- */

INLINE void fill_segment(struct segment *s, struct connection *c, enum record_kind kind, tid_t tid,
			 ktime_ns now)
{
	s->kind = kind;
	s->sequence = __sync_fetch_and_add(&c->sequence, 1);
	s->connection = c->cookie;
	s->time = now;
	s->tgid = c->tgid;
	s->tid = tid;
}

/* Turn bookkeeping; true if this segment starts one. */
INLINE bool enter_turn(struct connection *c, enum direction direction)
{
	if (c->turn_of == direction + 1)
		return false;
	c->turn_of = direction + 1;
	c->captured[direction & 1] = 0;
	if (c->turns <= FIRST_TURNS)
		c->turns++;
	return true;
}

/*
 * The slow path of a connection: at its first segment here, when another process uses it, and when
 * user space changed targets or verdicts. NULL if its bytes are not ours to see.
 */
COLD struct connection *admit_connection(struct sock *sk, tgid_t tgid, __u32 generation)
{
	struct connection *c;

	if (!is_watched(tgid) || !carries_a_stream(sk) || !belongs_to_a_process(sk))
		return NULL;
	c = connection_get(sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(DROP_STATE_REFUSED, 1);
		return NULL;
	}
	c->tgid = tgid;
	c->cookie = bpf_get_socket_cookie(sk);
	if (c->generation != generation) {
		c->generation = generation;
		refresh_verdict(sk, c);
	}
	return c;
}

/*
 * The rest of a segment of which a record holds the first CAPTURE_MAX bytes: a record for each
 * further CAPTURE_MAX bytes. What is beyond PARTS_MAX of them is in the last one's length.
 */
COLD void emit_parts(struct workspace *w, struct connection *c, struct segment_plan *plan, tid_t tid,
		     ktime_ns now)
{
	struct segment *s = &w->segment;

	for (__u32 part = 1; part < PARTS_MAX; part++) {
		__u32 done = part * CAPTURE_MAX, left;

		if (done >= plan->length)
			break;
		left = plan->length - done;
		s->offset += CAPTURE_MAX;
		if (s->tcp_sequence)
			s->tcp_sequence += CAPTURE_MAX;
		s->unseen = 0;
		s->flags = 0;
		s->captured = plan->user.count
				      ? copy_vectors(plan->slot, plan->vector_count, left, done)
				      : copy_flat(w, plan->user.address + done, left);
		s->length = left;
		if (left > CAPTURE_MAX && s->captured == CAPTURE_MAX && part < PARTS_MAX - 1)
			s->length = CAPTURE_MAX;
		else if (s->captured < left)
			s->flags = FLAG_TRUNCATED;
		fill_segment(s, c, RECORD_SEGMENT, tid, now);
		emit_record(w, sizeof(*s) + (s->captured & (2 * CAPTURE_MAX - 1)), false);
		if (s->length != CAPTURE_MAX)
			break;
	}
}

/* Emit what was copied of a segment, and where all of a connection is wanted the rest of it, too. */
INLINE void emit_segment(struct workspace *w, struct connection *c, struct segment_plan *plan,
			 __u32 length, tid_t tid, ktime_ns now)
{
	struct segment *s = &w->segment;
	bool in_parts;

	in_parts = s->captured == CAPTURE_MAX && length > CAPTURE_MAX &&
		   PARTS_MAX > 1 && c->bits & CONNECTION_SETTLED &&
		   c->verdict.mode == MODE_STREAM;
	if (in_parts) {
		s->length = CAPTURE_MAX;
		s->flags &= ~(FLAG_TRUNCATED | FLAG_TAIL);
		__builtin_memset(s->tail, 0, sizeof(s->tail));
	}
	fill_segment(s, c, RECORD_SEGMENT, tid, now);
	emit_record(w, sizeof(*s) + (s->captured & (2 * CAPTURE_MAX - 1)),
		    w->records++ % LOOK_EVERY == 0);
	if (in_parts)
		emit_parts(w, c, plan, tid, now);
}

/* `length` > 0 bytes passed on `sk`, in the context of the task that moved them. */
INLINE int on_segment(struct sock *sk, __u32 length, enum direction direction, __u32 unread,
		      enum workspace_slot slot)
{
	struct connection *c = connection_get(sk, 0);
	struct workspace *w = workspace_get(slot);
	struct shared_state *shared = shared_state();
	struct segment_plan plan = {
		.length = length, .unread = unread, .direction = direction, .slot = slot
	};
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 ids = task_ids(task);
	tgid_t tgid = ids >> 32;
	tid_t tid = ids;
	struct segment *s;
	ktime_ns now;

	if (!w || !shared)
		return 0;
	if (!c || c->tgid != tgid || c->generation != shared->generation)
		c = admit_connection(sk, tgid, shared->generation);
	if (!c)
		return 0;
	c->tid = tid;
	s = &w->segment;
	now = bpf_ktime_get_boot_ns();
	if (mark(c, CONNECTION_ANNOUNCED))
		announce(c, sk, w, now);
	__builtin_memset(s, 0, sizeof(*s));
	s->direction = direction;
	s->length = length;
	place_segment(c, s, sk);
	if (c->verdict.mode == MODE_NOTHING) {
		if (!plan.unread && is_multi_message_call())
			find_user_bytes(task, &plan.user, length); /* for its slot cursor */
		return 0;
	}
	if (!plan.unread)
		plan.unread = find_user_bytes(task, &plan.user, length);
	if (!s->offset && !plan.unread)
		look_at_beginning(c, &plan);
	if (enter_turn(c, direction))
		s->flags |= FLAG_TURN_START;
	want_bytes(c, &plan);
	copy_segment(w, &plan);
	c->captured[direction & 1] += s->captured;
	emit_segment(w, c, &plan, length, tid, now);
	return 0;
}

/* A direction, or the whole connection, ended. May run in softirq, under any task. */
INLINE int on_ending(struct connection *c, __u32 flags)
{
	struct segment s = {};

	if (!(c->bits & CONNECTION_ANNOUNCED))
		return 0; /* no byte of it was reported */
	s.direction = flags & FLAG_RECEIVE_ENDED ? DIRECTION_RECEIVED : DIRECTION_SENT;
	s.flags = flags;
	s.offset = c->offset[s.direction & 1];
	fill_segment(&s, c, RECORD_ENDING, c->tid, bpf_ktime_get_boot_ns());
	emit_record(&s, sizeof(s), false);
	return 0;
}

#endif
