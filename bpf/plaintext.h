/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What every kind of TLS library has: records of plaintext, and the look at the session's socket. */
#ifndef OTELAUTO_PLAINTEXT_H
#define OTELAUTO_PLAINTEXT_H

enum { WORKSPACES = 4 }; /* a CPU; a task in a probe may be preempted by another's */
#define VECTORS_READ VECTORS_MAX_FUNCTIONS
#define PARTS_MAX 32

#include "abi.h"
#include "contract.h"
#include "targets.h"
#include "emit.h"
#include "user_bytes.h"
#include "copy.h"
#include "connection.h"
#include "turns.h"
#include "sessions.h"

/* ---- records ---- */

INLINE struct workspace *take_workspace(void)
{
	for (__u32 slot = 0; slot < WORKSPACES; slot++) {
		struct workspace *w = workspace_get(slot);

		if (w && !__sync_lock_test_and_set(&w->busy, 1))
			return w;
	}
	return NULL;
}

/* The opening record; tried again with the next bytes if the ring had no room. */
INLINE void announce_session(struct session *s, tid_t tid, ktime_ns now)
{
	struct connection *c = &s->connection;
	struct opening o = {
		.kind = RECORD_OPENING,
		.role = s->place.role,
		.family = s->place.family,
		.connection = c->cookie,
		.time = now,
		.tgid = c->tgid,
		.tid = tid,
		.netns = s->place.netns,
		.local_port = s->place.local_port,
		.remote_port = s->place.remote_port,
		.inode = s->place.inode,
		.protocol = s->place.protocol,
		.plaintext = 1,
		.carrier = s->place.cookie,
	};

	__builtin_memcpy(o.local, s->place.local, 16);
	__builtin_memcpy(o.remote, s->place.remote, 16);
	o.sequence = __sync_fetch_and_add(&c->sequence, 1);
	if (!emit_record(&o, sizeof(o), false))
		__sync_fetch_and_and(&c->bits, ~CONNECTION_ANNOUNCED);
}

/* The session's own verdict, else that of the endpoint of its socket, as for a socket. */
INLINE void refresh_session(struct session *s, __u32 generation)
{
	struct connection *c = &s->connection;
	struct endpoint_key key = { .netns = s->place.netns, .port = s->place.local_port,
				    .kind = ENDPOINT_LOCAL };
	struct verdict *found = bpf_map_lookup_elem(&connection_verdicts, &c->cookie);

	c->generation = generation;
	if (!found && s->place.cookie && s->place.family != AF_UNIX) {
		found = bpf_map_lookup_elem(&endpoint_verdicts, &key);
		if (!found) {
			key.kind = ENDPOINT_REMOTE;
			key.port = s->place.remote_port;
			__builtin_memcpy(key.address, s->place.remote, 16);
			found = bpf_map_lookup_elem(&endpoint_verdicts, &key);
		}
	}
	if (found) {
		c->verdict = *found;
		mark(c, CONNECTION_SETTLED);
	}
}

/* `length` > 0 bytes of plaintext were read or written; they lie at `address`. */
INLINE void on_plaintext(struct session *s, __u64 address, __u32 length, enum direction direction)
{
	struct shared_state *shared = shared_state();
	struct connection *c = &s->connection;
	struct segment_plan plan = { .length = length, .direction = direction };
	__u32 d = direction & 1, flags = 0;
	ktime_ns now = bpf_ktime_get_boot_ns();
	tid_t tid = bpf_get_current_pid_tgid();
	struct workspace *w;
	__u64 offset;

	c->tid = tid;
	if (shared && c->generation != shared->generation)
		refresh_session(s, shared->generation);
	if (mark(c, CONNECTION_ANNOUNCED))
		announce_session(s, tid, now);
	offset = c->offset[d];
	c->offset[d] += length;
	if (!c->started[d]) {
		c->started[d] = 1;
		flags = s->greeted ? 0 : FLAG_MIDSTREAM;
	}
	if (c->verdict.mode == MODE_NOTHING)
		return;
	plan.user.address = address;
	if (!offset)
		look_at_beginning(c, &plan);
	if (enter_turn(c, direction))
		flags |= FLAG_TURN_START;
	w = take_workspace();
	if (!w) { /* the jump of the offset tells */
		count(UNREAD_PLAINTEXT_BUSY, 1);
		count(BYTES_UNREAD, length);
		return;
	}
	__builtin_memset(&w->segment, 0, sizeof(w->segment));
	w->segment.direction = direction;
	w->segment.flags = flags;
	w->segment.length = length;
	w->segment.offset = offset;
	want_bytes(c, &plan);
	copy_segment(w, &plan);
	c->captured[d] += w->segment.captured;
	emit_segment(w, c, &plan, length, tid, now);
	w->busy = 0;
}

/* ---- sockets ---- */

/* Where the bytes of the socket call in progress lie: the first vector; 0 if that is not told. */
INLINE __u64 first_bytes(__u64 *length)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct user_bytes user = {};
	struct user_vector vector;

	if (is_multi_message_call() || find_user_bytes(task, &user, *length))
		return 0;
	READ_AGAIN(); /* or one instruction loads from the registers and from the stack */
	if (!user.count)
		return user.address;
	if (bpf_probe_read_user(&vector, sizeof(vector), (void *)user.address))
		return 0;
	if (*length > vector.length)
		*length = vector.length;
	return vector.base;
}

INLINE bool may_carry_tls(struct sock *sk, int result)
{
	return result > 0 && is_watched(bpf_get_current_pid_tgid() >> 32) &&
	       carries_a_stream(sk) && belongs_to_a_process(sk);
}

/* A record passed on `sk` inside one of the session's own calls: its socket. */
INLINE void own_socket(struct session *s, struct sock *sk, const struct record_header *h)
{
	struct place place;

	if (h->bytes[0] == CONTENT_HANDSHAKE && !s->connection.offset[0] &&
	    !s->connection.offset[1])
		s->greeted = 1;
	if (s->owns_socket && s->place.cookie == bpf_get_socket_cookie(sk))
		return;
	read_place(sk, &place);
	bind_session(s, &place);
	s->owns_socket = 1;
}

/* The end of a session, if there is one at that address. */
INLINE void end_session(__u64 session, tgid_t tgid)
{
	struct session_key key = { .session = session, .tgid = tgid };
	struct session *s = bpf_map_lookup_elem(&sessions, &key);

	if (!s)
		return;
	if (mark(&s->connection, CONNECTION_CLOSED))
		on_ending(&s->connection, FLAG_CLOSED);
	bpf_map_delete_elem(&sessions, &key);
}

#endif
