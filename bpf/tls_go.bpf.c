// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Plaintext of Go's crypto/tls. Arguments and results are in registers (ABIInternal of Go 1.17 and
 * newer, amd64): ax, bx, cx hold the *tls.Conn, the buffer and its length, later the result; r14
 * holds the goroutine.
 *
 * A goroutine changes threads inside a call, and its stack may be moved to make it larger. So a call
 * is known by its goroutine and by how deep its frame lies below the top of the stack, which stays.
 * Returns are probed at the instructions themselves: a return probe would put an address into the
 * stack that Go's runtime does not know, and the program would die when it walks the stack.
 *
 * A read is what it returned. A write is what it was called with, once the goroutine sends a record
 * inside of it: crypto/tls writes all or fails for good. A write needs no probe at its end so, and
 * one that never sent anything is told from one in progress by the return address in its frame.
 */
#define HAS_VIEWS
#include "kernel.h"
#include "helpers.h"
#include "plaintext.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { WRITE_MAX = 1 << 30 };

struct goroutine_key {
	__u64 goroutine;
	tgid_t tgid;
	__u32 pad;
};

/* The call of crypto/tls that a goroutine is in. */
struct go_call {
	__u64 session;         /* the *tls.Conn */
	__u64 buffer;          /* its address; on_stack: how far below the top of the stack */
	__u64 size;
	__u64 depth;           /* of the frame, below the top of the stack */
	__u64 caller;          /* return address */
	__u64 handshake_depth; /* of a handshake inside; 0: none is going on */
	__u32 call;            /* enum tls_call */
	__u8 on_stack;
	__u8 touched;          /* a record passed inside it */
	__u8 ended;            /* the end of the stream was read inside it */
	__u8 pad;
};

struct go_stack { /* the first two words of runtime.g: the bounds of its stack */
	__u64 low;
	__u64 high;
};

/* A goroutine waits in a read as long as a connection is idle, and nothing tells of its end. */
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_HASH);
	MAP_ATTRIBUTE(max_entries, 65536);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct goroutine_key);
	MAP_TYPE(value, struct go_call);
} go_calls SEC(".maps");

INLINE bool read_stack(struct go_stack *to, __u64 goroutine)
{
	if (!bpf_probe_read_user(to, sizeof(*to), (void *)goroutine))
		return true;
	count(UNREAD_FAULT, 1);
	return false;
}

/* Whether the goroutine, with its stack pointer there, is inside the call. */
INLINE bool is_inside(const struct go_call *c, const struct go_stack *stack, __u64 pointer)
{
	__u64 caller = 0;

	return stack->high - pointer > c->depth && pointer > stack->low &&
	       !bpf_probe_read_user(&caller, sizeof(caller), (void *)(stack->high - c->depth)) &&
	       caller == c->caller;
}

INLINE __u64 buffer_of(const struct go_call *c, const struct go_stack *stack)
{
	return c->on_stack ? stack->high - c->buffer : c->buffer;
}

/* ---- calls ---- */

/*
 * A call inside another one: of a Conn that carries the other Conn's records, which stays unread, or
 * the handshake that a Conn's first call makes. One that comes after records is a renegotiation.
 */
INLINE void enter_inside(struct go_call *outer, __u32 call, __u64 session, tgid_t tgid, __u64 depth)
{
	struct session *s;

	if (call != TLS_HANDSHAKE)
		return;
	if (session != outer->session) {
		end_session(session, tgid);
		return;
	}
	outer->handshake_depth = depth;
	if (outer->touched)
		return;
	end_session(session, tgid);
	s = session_get(session, tgid);
	if (s)
		s->greeted = 1;
}

/* There is no room to remember a read: its bytes will be a hole. */
INLINE void lose_call(const struct go_call *c, tgid_t tgid)
{
	struct session *s = session_find(c->session, tgid);

	count(DROP_STATE_REFUSED, 1);
	if (s)
		s->connection.offset[c->call == TLS_READ ? DIRECTION_RECEIVED : DIRECTION_SENT] +=
			DISORDER_JUMP;
}

INLINE int on_enter(struct pt_regs *context, __u32 what, struct goroutine_key key)
{
	struct go_call call = { .call = what, .session = context->ax };
	__u64 pointer = context->sp;
	struct go_stack stack;
	struct go_call *outer;
	struct session *s;

	if (!is_watched(key.tgid))
		return 0;
	if (what == TLS_FREE) {
		end_session(call.session, key.tgid);
		return 0;
	}
	if (!read_stack(&stack, key.goroutine))
		return 0;
	call.depth = stack.high - pointer;
	outer = bpf_map_lookup_elem(&go_calls, &key);
	if (outer && is_inside(outer, &stack, pointer)) {
		enter_inside(outer, what, call.session, key.tgid, call.depth);
		return 0;
	}
	if (what == TLS_HANDSHAKE) {
		end_session(call.session, key.tgid);
		s = session_get(call.session, key.tgid);
		if (s)
			s->greeted = 1;
	} else {
		call.buffer = context->bx;
		call.size = context->cx;
		if (!call.size)
			return 0;
		call.on_stack = call.buffer >= stack.low && call.buffer < stack.high;
		if (call.on_stack)
			call.buffer = stack.high - call.buffer;
	}
	bpf_probe_read_user(&call.caller, sizeof(call.caller), (void *)pointer);
	if (bpf_map_update_elem(&go_calls, &key, &call, BPF_ANY))
		lose_call(&call, key.tgid);
	return 0;
}

INLINE void end_read(const struct go_call *c, const struct go_stack *stack, __s64 returned, tgid_t tgid)
{
	struct session *s;

	if (returned > 0) {
		s = session_get(c->session, tgid);
		if (s)
			on_plaintext(s, buffer_of(c, stack), returned, DIRECTION_RECEIVED);
	} else if (c->ended) {
		s = session_find(c->session, tgid);
		if (s && mark(&s->connection, CONNECTION_RECEIVE_ENDED))
			on_ending(&s->connection, FLAG_RECEIVE_ENDED);
	}
}

/* At a return instruction of a read or a handshake. */
INLINE int on_leave(struct pt_regs *context, __u32 call, struct goroutine_key key)
{
	struct go_call *found = bpf_map_lookup_elem(&go_calls, &key), done;
	__s64 returned = context->ax;
	struct go_stack stack;
	__u64 depth;

	if (!found || !read_stack(&stack, key.goroutine))
		return 0;
	depth = stack.high - context->sp;
	if (call == TLS_HANDSHAKE && depth == found->handshake_depth)
		found->handshake_depth = 0;
	if (found->call != call || found->depth != depth)
		return 0;
	done = *found;
	bpf_map_delete_elem(&go_calls, &key);
	if (call == TLS_READ)
		end_read(&done, &stack, returned, key.tgid);
	return 0;
}

/* One program: a process then has one link, which is made and taken away in half the time. */
SEC("uprobe")
int go_call(struct pt_regs *context)
{
	struct goroutine_key key = { .goroutine = context->r14,
				     .tgid = bpf_get_current_pid_tgid() >> 32 };
	__u32 what = bpf_get_attach_cookie(context);

	if (what & TLS_LEAVES)
		return on_leave(context, what - TLS_LEAVES, key);
	return on_enter(context, what, key);
}

/* ---- sockets ---- */

/* The call that the goroutine is in that makes the system call in progress; NULL: none. */
INLINE struct go_call *call_in_progress(struct goroutine_key *key, struct go_stack *stack)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct go_call *found;

	key->goroutine = regs->r14;
	key->tgid = bpf_get_current_pid_tgid() >> 32;
	found = bpf_map_lookup_elem(&go_calls, key);
	if (!found || !read_stack(stack, key->goroutine) || !is_inside(found, stack, regs->sp))
		return NULL;
	return found;
}

/* Read the header of the record that passes, and take the socket for the session's. */
INLINE struct session *on_record(struct go_call *c, struct sock *sk, __u64 length, tgid_t tgid,
				 struct record_header *h)
{
	__u64 address = first_bytes(&length);
	struct session *s;

	if (!address || length < RECORD_HEADER || !read_header(h, address))
		return NULL;
	c->touched = 1;
	s = session_get(c->session, tgid);
	if (s)
		own_socket(s, sk, h);
	return s;
}

SEC("tp_btf/sock_recv_length")
int go_received(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int result = context[1], flags = context[2];
	struct goroutine_key key = {};
	struct record_header h = {};
	struct go_stack stack;
	struct go_call *c;

	if (result < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB | MSG_TRUNC))
		return 0;
	c = call_in_progress(&key, &stack);
	if (!c)
		return 0;
	if (!result)
		c->ended = 1;
	else if (may_carry_tls(sk, result))
		on_record(c, sk, result, key.tgid, &h);
	return 0;
}

SEC("tp_btf/sock_send_length")
int go_sent(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int result = context[1];
	struct goroutine_key key = {};
	struct record_header h = {};
	struct go_stack stack;
	struct go_call *c, done;
	struct session *s;

	if (!may_carry_tls(sk, result))
		return 0;
	c = call_in_progress(&key, &stack);
	if (!c)
		return 0;
	s = on_record(c, sk, result, key.tgid, &h);
	if (!s || c->call != TLS_WRITE || c->handshake_depth || h.bytes[0] != CONTENT_DATA)
		return 0;
	done = *c;
	bpf_map_delete_elem(&go_calls, &key);
	on_plaintext(s, buffer_of(&done, &stack), done.size < WRITE_MAX ? done.size : WRITE_MAX,
		     DIRECTION_SENT);
	return 0;
}
