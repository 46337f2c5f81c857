/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Per-connection state, and the decision what of each segment is copied. Attach files (one a
 * capture tier) call on_segment() and on_ending(); state is reached through connection_get() only.
 *
 * Two threads may use one socket at once, one reading and one writing. Each direction's fields have
 * one writer then; the shared ones (sequence, turn) are updated so that a lost race costs at most
 * some bytes copied for nothing: bytes of a new turn are never skipped for it, because a message
 * head that starts mid-turn is found by its first bytes (verdict.start) or by its size.
 */
#ifndef OTELAUTO_TURNS_H
#define OTELAUTO_TURNS_H

enum {
	STREAM_BUDGET = 256 << 10,  /* bytes of a connection copied while nothing is decided */
	FIRST_TURNS = 2,            /* these are copied generously whatever the verdict */
	FIRST_TURN_WANT = 8192,
	UNDECIDED_WANT = 2048,      /* of each turn, after the budget was spent without a verdict */
	DISORDER_JUMP = 1 << 20,    /* offset jump that makes an unknowable order visible as a hole */
};

enum connection_bit {
	CONNECTION_ANNOUNCED = 1,   /* the opening record was delivered */
	CONNECTION_SETTLED = 2,     /* a verdict was found */
	CONNECTION_RECEIVE_ENDED = 4,
	CONNECTION_SEND_ENDED = 8,
	CONNECTION_RESET = 16,      /* not ended in good order */
	CONNECTION_CLOSED = 32,
};

/* Zeros are the state of a new one. Charged to the service's socket (optmem_max): keep it small. */
struct connection {
	__u64 offset[2];            /* of the next byte, by direction */
	struct verdict verdict;
	__u32 next_tcp_sequence[2];
	__u32 captured[2];          /* bytes copied in the current turn */
	__u32 sequence;             /* of the next record */
	__u32 generation;           /* of the verdict */
	tgid_t tgid;
	tid_t tid;
	__u32 stream_used;          /* of STREAM_BUDGET */
	__u32 bits;                 /* enum connection_bit; set by mark() only */
	__u16 turns;                /* saturates */
	__u8 role;
	__u8 turn_of;               /* direction of the turn + 1; 0: there was none */
	__u8 started[2];            /* by direction: next_tcp_sequence is set; a byte each, for races */
	__u8 pad[2];
};

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_SK_STORAGE);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct connection);
} connections SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_HASH);
	MAP_ATTRIBUTE(max_entries, 4096);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct endpoint_key);
	MAP_TYPE(value, struct verdict);
} endpoint_verdicts SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_ATTRIBUTE(max_entries, 8192);
	MAP_TYPE(key, cookie_t);
	MAP_TYPE(value, struct verdict);
} connection_verdicts SEC(".maps");

INLINE struct connection *connection_get(struct sock *sk, __u64 flags)
{
	return bpf_sk_storage_get(&connections, sk, NULL, flags);
}

/* Set a bit; true if it was not set before. Both directions and softirqs share the word. */
INLINE bool mark(struct connection *c, enum connection_bit bit)
{
	return !(c->bits & bit) && !(__sync_fetch_and_or(&c->bits, bit) & bit);
}

/* ---- which sockets ---- */

INLINE bool carries_a_stream(struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	if (family == AF_INET || family == AF_INET6)
		return sk->sk_protocol == IPPROTO_TCP || sk->sk_protocol == IPPROTO_MPTCP;
	return family == AF_UNIX && sk->sk_type == SOCK_STREAM;
}

/* Sockets of the kernel's own (NFS, NBD) have no file; their bytes are not the process's. */
INLINE bool belongs_to_a_process(struct sock *sk)
{
	struct socket *socket = sk->sk_socket;

	return socket && socket->file;
}

/* ---- addresses and verdicts ---- */

INLINE void read_addresses(struct sock *sk, struct opening *to)
{
	struct sock_common *common = &sk->__sk_common;

	to->family = common->skc_family;
	to->local_port = common->skc_num;
	to->remote_port = __builtin_bswap16(common->skc_dport);
	to->netns = common->skc_net.net->ns.inum;
	if (to->family == AF_INET) {
		*(__u32 *)to->local = common->skc_rcv_saddr;
		*(__u32 *)to->remote = common->skc_daddr;
	} else if (to->family == AF_INET6) {
		bpf_probe_read_kernel(to->local, 16, &common->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(to->remote, 16, &common->skc_v6_daddr);
	}
}

/* Look the verdict up again: the connection's own, its local endpoint's, its remote endpoint's. */
INLINE void refresh_verdict(struct sock *sk, struct connection *c)
{
	cookie_t cookie = bpf_get_socket_cookie(sk);
	struct endpoint_key key = {};
	struct verdict *found = bpf_map_lookup_elem(&connection_verdicts, &cookie);
	struct sock_common *common = &sk->__sk_common;

	if (!found && common->skc_family != AF_UNIX) {
		key.netns = common->skc_net.net->ns.inum;
		key.port = common->skc_num;
		key.local = 1;
		found = bpf_map_lookup_elem(&endpoint_verdicts, &key);
		if (!found) {
			key.local = 0;
			key.port = __builtin_bswap16(common->skc_dport);
			if (common->skc_family == AF_INET)
				*(__u32 *)key.address = common->skc_daddr;
			else
				bpf_probe_read_kernel(key.address, 16, &common->skc_v6_daddr);
			found = bpf_map_lookup_elem(&endpoint_verdicts, &key);
		}
	}
	if (found) {
		c->verdict = *found;
		mark(c, CONNECTION_SETTLED);
	}
}

/* ---- one segment ---- */

struct segment_plan {
	__u64 length;
	__u64 wanted;
	struct user_bytes user;
	__u32 unread;              /* counter that names why there is no buffer; 0: there is */
	enum direction direction;
};

INLINE bool begins_message(struct connection *c, struct segment_plan *plan)
{
	__u32 significant = c->verdict.start_length[plan->direction & 1];
	__u64 address = plan->user.address, first = 0, pattern, mask;

	if (!significant || significant > 8 || plan->length < 8)
		return false;
	if (plan->user.count) {
		struct user_vector vector;

		if (bpf_probe_read_user(&vector, sizeof(vector), (void *)address))
			return false;
		address = vector.base;
		if (vector.length < 8)
			return false;
	}
	if (bpf_probe_read_user(&first, sizeof(first), (void *)address))
		return false;
	__builtin_memcpy(&pattern, c->verdict.start[plan->direction & 1], 8);
	mask = ~0ULL >> (64 - 8 * significant);
	return !((first ^ pattern) & mask);
}

/* How many bytes of this segment to copy (plan->wanted). */
INLINE void want_bytes(struct connection *c, struct segment_plan *plan)
{
	__u32 want, have = c->captured[plan->direction & 1];

	plan->wanted = plan->length;
	if (c->verdict.mode == MODE_STREAM) {
		if (c->bits & CONNECTION_SETTLED)
			return;
		if (c->stream_used + plan->length <= STREAM_BUDGET) {
			c->stream_used += plan->length;
			return;
		}
		c->verdict.mode = MODE_HEADS;
		c->verdict.want[0] = c->verdict.want[1] = UNDECIDED_WANT;
	}
	if (plan->length <= SMALL_SEGMENT)
		return;
	want = c->verdict.want[plan->direction & 1];
	if (c->turns <= FIRST_TURNS && want < FIRST_TURN_WANT)
		want = FIRST_TURN_WANT;
	if (have >= want && begins_message(c, plan))
		have = c->captured[plan->direction & 1] = 0;
	plan->wanted = have < want ? want - have : 0;
	if (plan->wanted > plan->length)
		plan->wanted = plan->length;
}

INLINE void copy_segment(struct workspace *w, struct segment_plan *plan)
{
	struct segment *s = &w->segment;
	__u32 vector_count = 0;

	s->captured = 0;
	if (plan->unread) {
		count(plan->unread, 1);
		count(BYTES_UNREAD, plan->length);
		s->flags |= FLAG_UNREAD;
		return;
	}
	if (plan->user.count)
		vector_count = read_vectors(w, &plan->user);
	if (plan->wanted) {
		__u64 limit = plan->wanted < CAPTURE_MAX ? plan->wanted : CAPTURE_MAX;

		s->captured = plan->user.count ? copy_vectors(w, vector_count, limit)
					       : copy_flat(w, plan->user.address, limit);
		if (s->captured < limit) {
			count(plan->user.count > VECTORS_MAX ? UNREAD_VECTORS : UNREAD_FAULT, 1);
			count(BYTES_UNREAD, limit - s->captured);
		}
		if (!s->captured)
			s->flags |= FLAG_UNREAD;
		else if (s->captured < plan->wanted)
			s->flags |= FLAG_TRUNCATED;
	}
	if (s->captured < plan->length && plan->length >= TAIL_SIZE) {
		bool got = plan->user.count
				   ? copy_vector_tail(w, vector_count, plan->length) != 0
				   : !bpf_probe_read_user(s->tail, TAIL_SIZE,
							  (void *)(plan->user.address +
								   plan->length - TAIL_SIZE));
		if (got)
			s->flags |= FLAG_TAIL;
	}
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
		first = direction == DIRECTION_SENT ? tcp->snd_una - (__u32)tcp->bytes_acked
						    : tcp->rcv_nxt - (__u32)tcp->bytes_received;
		if (i && first == last)
			break;
		READ_AGAIN();
	}
	return first;
}

/* A read that goes on to the end of the stream moves copied_seq past the peer's FIN, no byte. */
INLINE bool is_fin_read(struct sock *sk, struct tcp_sock *tcp, __u32 direction)
{
	return direction == DIRECTION_RECEIVED && sk->sk_shutdown & RCV_SHUTDOWN &&
	       tcp->copied_seq == tcp->rcv_nxt;
}

/*
 * Zero, or how far past the expected sequence number the segment starts: bytes no hook saw. A
 * direction's offsets start with its first segment. Bytes that passed before are not ours to know;
 * that they did pass is.
 */
INLINE __u32 check_tcp_sequence(struct connection *c, struct segment *s, struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u32 start, expected, gap, d = s->direction & 1;

	if (!tcp)
		return 0; /* AF_UNIX, MPTCP */
	start = (d == DIRECTION_SENT ? tcp->write_seq : tcp->copied_seq) - s->length;
	expected = c->started[d] ? c->next_tcp_sequence[d] : first_sequence(tcp, d);
	gap = start - expected;
	if (gap == 1 && is_fin_read(sk, tcp, d)) {
		start--;
		gap = 0;
	}
	if (!c->started[d]) {
		c->started[d] = 1;
		if (gap > (d == DIRECTION_SENT))
			s->flags |= FLAG_MIDSTREAM;
		gap = 0;
	}
	s->tcp_sequence = start;
	c->next_tcp_sequence[d] = start + s->length;
	return gap;
}

/* ---- connections ---- */

INLINE __u32 read_unix_path(struct sock *sk, __u8 *to)
{
	struct unix_sock *u = (struct unix_sock *)sk;
	struct unix_address *address = NULL;
	struct sock *peer = NULL;
	int length = 0;
	__u64 bytes;

	/* An accepted socket has its listener's address; a client's peer has it. */
	bpf_probe_read_kernel(&address, sizeof(address), &u->addr);
	if (!address) {
		bpf_probe_read_kernel(&peer, sizeof(peer), &u->peer);
		if (peer)
			bpf_probe_read_kernel(&address, sizeof(address),
					      &((struct unix_sock *)peer)->addr);
	}
	if (!address)
		return 0;
	bpf_probe_read_kernel(&length, sizeof(length), &address->len);
	bytes = (__u32)length;
	OPAQUE(bytes);
	if (bytes <= 2 || bytes > UNIX_PATH_MAX + 2)
		return 0;
	bytes -= 2; /* sun_family */
	OPAQUE(bytes);
	if (bytes > UNIX_PATH_MAX)
		return 0;
	return bpf_probe_read_kernel(to, bytes, address->name[0].sun_path) ? 0 : bytes;
}

/* The opening record; tried again with the next segment if the ring had no room. */
INLINE void announce(struct connection *c, struct sock *sk, struct workspace *w, ktime_ns now)
{
	struct opening *o = &w->opening;
	__u64 size = sizeof(*o);

	__builtin_memset(o, 0, sizeof(*o));
	o->kind = RECORD_OPENING;
	o->role = c->role;
	o->sequence = __sync_fetch_and_add(&c->sequence, 1);
	o->connection = bpf_get_socket_cookie(sk);
	o->time = now;
	o->tgid = c->tgid;
	o->tid = c->tid;
	o->protocol = sk->sk_protocol;
	o->inode = sk->sk_socket->file->f_inode->i_ino;
	read_addresses(sk, o);
	if (o->family == AF_UNIX) {
		o->path_length = read_unix_path(sk, w->path);
		size += o->path_length & 127;
	}
	if (!emit_record(w, size))
		__sync_fetch_and_and(&c->bits, ~CONNECTION_ANNOUNCED);
}

INLINE void fill_segment(struct segment *s, struct connection *c, struct sock *sk,
			 enum record_kind kind, ktime_ns now)
{
	s->kind = kind;
	s->sequence = __sync_fetch_and_add(&c->sequence, 1);
	s->connection = bpf_get_socket_cookie(sk);
	s->time = now;
	s->tgid = c->tgid;
	s->tid = c->tid;
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

INLINE void place_segment(struct connection *c, struct segment *s, struct sock *sk)
{
	__u32 d = s->direction & 1, gap = check_tcp_sequence(c, s, sk);

	s->unseen = gap;
	if (gap > 1U << 30) { /* went backwards: two threads in one direction, order unknown */
		c->offset[d] += DISORDER_JUMP;
		s->unseen = DISORDER_JUMP;
	} else if (gap) {
		c->offset[d] += gap;
		count(BYTES_UNSEEN, gap);
	}
	s->offset = c->offset[d];
	c->offset[d] += s->length;
}

/*
 * The slow path of a connection: at its first segment here, when another process uses it, and when
 * user space changed targets or verdicts. NULL if its bytes are not ours to see.
 */
INLINE struct connection *admit_connection(struct sock *sk, tgid_t tgid, __u32 generation)
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
	if (c->generation != generation) {
		c->generation = generation;
		refresh_verdict(sk, c);
	}
	return c;
}

/* `length` > 0 bytes passed on `sk`, in the context of the task that moved them. */
INLINE int on_segment(struct sock *sk, __u32 length, enum direction direction, __u32 unread)
{
	struct connection *c = connection_get(sk, 0);
	struct workspace *w = workspace_get(direction);
	struct shared_state *shared = shared_state();
	struct segment_plan plan = { .length = length, .unread = unread, .direction = direction };
	__u64 id = bpf_get_current_pid_tgid();
	tgid_t tgid = id >> 32;
	struct segment *s;
	ktime_ns now;

	if (!w || !shared)
		return 0;
	if (!c || c->tgid != tgid || c->generation != shared->generation)
		c = admit_connection(sk, tgid, shared->generation);
	if (!c)
		return 0;
	c->tid = id;
	s = &w->segment;
	now = bpf_ktime_get_boot_ns();
	if (mark(c, CONNECTION_ANNOUNCED))
		announce(c, sk, w, now);
	__builtin_memset(s, 0, sizeof(*s));
	s->direction = direction;
	s->length = length;
	place_segment(c, s, sk);
	if (!plan.unread)
		plan.unread = find_user_bytes(length, &plan.user);
	if (c->verdict.mode == MODE_NOTHING)
		return 0;
	if (enter_turn(c, direction))
		s->flags |= FLAG_TURN_START;
	want_bytes(c, &plan);
	copy_segment(w, &plan);
	c->captured[direction & 1] += s->captured;
	fill_segment(s, c, sk, RECORD_SEGMENT, now);
	emit_record(w, sizeof(*s) + (s->captured & (2 * CAPTURE_MAX - 1)));
	return 0;
}

/* A direction, or the whole connection, ended. May run in softirq, under any task. */
INLINE int on_ending(struct sock *sk, struct connection *c, __u32 flags)
{
	struct segment s = {};

	if (!(c->bits & CONNECTION_ANNOUNCED))
		return 0; /* no byte of it was reported */
	s.direction = flags & FLAG_RECEIVE_ENDED ? DIRECTION_RECEIVED : DIRECTION_SENT;
	s.flags = flags;
	s.offset = c->offset[s.direction & 1];
	fill_segment(&s, c, sk, RECORD_ENDING, bpf_ktime_get_boot_ns());
	emit_record(&s, sizeof(s));
	return 0;
}

#endif
