// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Plaintext of TLS: probes on the functions of a library that read and write it, in watched processes
 * only. Its bytes go to the ring like a socket's, as a connection of their own.
 *
 * What a call moved is what it returned: a write that is tried again, or accepted in part, counts for
 * what was accepted, once. Two programs see the sockets meanwhile, to prove which one carries it. They
 * are attached from the first call on, and pass over threads that never made one: until then plaintext
 * costs nothing more, and later hardly anything.
 */
#define HAS_VIEWS
#include "kernel.h"
#include "helpers.h"

#include "plaintext.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Whether user space was told that the library is called. It begins anew when it leaves the sockets. */
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_ARRAY);
	MAP_ATTRIBUTE(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} tls_called SEC(".maps");

/* ---- calls ---- */

INLINE void tell_first_call(tgid_t tgid)
{
	struct process_event event = { .kind = PROCESS_TLS, .tgid = tgid };
	__u32 zero = 0, *told = bpf_map_lookup_elem(&tls_called, &zero);

	if (!told || *told || __sync_lock_test_and_set(told, 1))
		return;
	event.time = bpf_ktime_get_boot_ns();
	emit_event(&event, true);
}

INLINE bool is_read(__u32 call)
{
	return call == TLS_READ || call == TLS_READ_OUT;
}

/*
 * What a thread received last may be this session's: a handshake message that comes with a session's
 * first calls is evidence, before there is plaintext to compare lengths with.
 */
INLINE void greet(struct session *s, struct tls_thread *t)
{
	if (!t->fresh || !t->hello || t->taker != t->session || s->connection.offset[0] || s->connection.offset[1])
		return;
	t->hello = 0;
	s->greeted = 1;
	take_evidence(s, &t->received);
}

SEC("uprobe")
int tls_enter(struct pt_regs *context)
{
	tgid_t tgid = bpf_get_current_pid_tgid() >> 32;
	__u32 call = bpf_get_attach_cookie(context);
	__u64 stack = context->sp, session = context->di;
	struct tls_thread *t;
	struct session *s;

	if (!is_watched(tgid))
		return 0;
	if (call == TLS_FREE) {
		end_session(session, tgid);
		return 0;
	}
	tell_first_call(tgid);
	t = tls_thread_get(BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t) {
		count(DROP_STATE_REFUSED, 1);
		return 0;
	}
	if (t->call && stack < t->stack && t->stack - stack < SAME_STACK)
		return 0; /* inside another: that one's bytes count */
	if (t->call && stack > t->stack + SAME_STACK) /* on another stack: its return is not ours */
		count(UNREAD_PLAINTEXT_CALL, 1);
	t->call = call;
	t->session = session;
	t->buffer = context->si;
	t->size = context->dx;
	t->result = context->cx;
	t->stack = stack;
	t->touched = 0;
	t->ended = 0;
	t->slept = call == TLS_HANDSHAKE ? bpf_get_current_task_btf()->nvcsw : 0;
	if (!t->claimed) {
		t->claimed = 1;
		t->taker = session;
	}
	if (t->hello || call == TLS_HANDSHAKE) {
		s = session_get(session, tgid);
		if (s)
			greet(s, t);
	}
	return 0;
}

/* Bytes that the call moved, by what it returned. */
INLINE __u32 moved(struct tls_thread *t, __u32 call, __s32 returned)
{
	__u64 bytes = 0;

	if (returned <= 0)
		return 0;
	if (call == TLS_READ || call == TLS_WRITE)
		return returned;
	if (bpf_probe_read_user(&bytes, sizeof(bytes), (void *)t->result))
		count(UNREAD_FAULT, 1);
	return bytes;
}

/* Plaintext was read from ciphertext that the thread had received itself, as it seems. */
INLINE void compare_frames(struct session *s, struct tls_thread *t, __u32 length)
{
	if (!t->fresh || t->taker != t->session)
		return;
	for (int i = 0; i < FRAMES_MAX; i++) {
		if (t->frames[i] && implies(length, t->frames[i])) {
			t->frames[i] = 0;
			take_evidence(s, &t->received);
			return;
		}
	}
}

/* Plaintext was written to a library that gave its ciphertext back: a socket call will follow. */
INLINE void keep_written(struct tls_thread *t, __u32 length)
{
	if (!t->written) {
		t->written = length;
		t->writer = t->session;
	} else if (t->writer != t->session) {
		t->writer = 0;
	}
}

/*
 * A handshake that is not done yet, or had to wait for the peer, is really one: of a session that is
 * established the function returns at once, having nothing to do.
 */
INLINE void on_handshake(struct tls_thread *t, __s32 returned, tgid_t tgid)
{
	struct session *s;

	if (returned >= 0 && bpf_get_current_task_btf()->nvcsw == t->slept)
		return;
	s = session_find(t->session, tgid);
	if (s && !s->connection.offset[0] && !s->connection.offset[1])
		s->greeted = 1;
}

SEC("uretprobe")
int tls_return(struct pt_regs *context)
{
	struct tls_thread *t = tls_thread_get(0);
	tgid_t tgid = bpf_get_current_pid_tgid() >> 32;
	struct session *s;
	__s32 returned = context->ax;
	__u32 call, length;

	if (!t || !t->call || context->sp != t->stack + 8)
		return 0;
	call = t->call;
	t->call = 0;
	if (call == TLS_HANDSHAKE) {
		on_handshake(t, returned, tgid);
		return 0;
	}
	length = moved(t, call, returned);
	if (!length) {
		bool over = call == TLS_READ ? !returned : call == TLS_READ_OUT && t->ended;

		s = over ? session_find(t->session, tgid) : NULL;
		if (s && mark(&s->connection, CONNECTION_RECEIVE_ENDED))
			on_ending(&s->connection, FLAG_RECEIVE_ENDED);
		return 0;
	}
	s = session_get(t->session, tgid);
	if (!s)
		return 0;
	if (is_read(call)) {
		if (!t->touched)
			compare_frames(s, t, length);
	} else if (!t->touched) {
		keep_written(t, length);
	}
	on_plaintext(s, t->buffer, length,
		     is_read(call) ? DIRECTION_RECEIVED : DIRECTION_SENT);
	return 0;
}

/* ---- sockets: those of threads that have made a TLS call ---- */

/* A record passed on `sk` while the thread is in a TLS call: the session's socket. */
INLINE void on_inner_call(struct tls_thread *t, struct sock *sk, const struct record_header *h)
{
	struct session *s = session_get(t->session, bpf_get_current_pid_tgid() >> 32);

	t->touched = 1;
	if (s)
		own_socket(s, sk, h);
}

/* Look at the records that `length` received bytes begin with. False: they begin with none. */
INLINE bool keep_frames(struct tls_thread *t, __u64 address, __u64 length)
{
	struct record_header h = {};
	bool any = false;

	for (int i = 0; i < FRAMES_MAX; i++) {
		t->frames[i] = 0;
		if (length < RECORD_HEADER || !read_header(&h, address)) {
			length = 0;
			continue;
		}
		any = true;
		if (h.bytes[0] == CONTENT_HANDSHAKE)
			t->hello = 1;
		else if (h.bytes[0] == CONTENT_DATA)
			t->frames[i] = record_length(&h);
		address += RECORD_HEADER + record_length(&h);
		length = length > RECORD_HEADER + record_length(&h)
				 ? length - RECORD_HEADER - record_length(&h)
				 : 0;
	}
	return any;
}

SEC("tp_btf/sock_recv_length")
int tls_received(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int result = context[1], flags = context[2];
	__u64 length = result, address;
	struct tls_thread *t = tls_thread_get(0);
	struct record_header h = {};
	bool again;

	if (!t || flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB | MSG_TRUNC))
		return 0;
	if (!result) {
		if (t->call)
			t->ended = 1;
		return 0;
	}
	if (!may_carry_tls(sk, result))
		return 0;
	address = first_bytes(&length);
	if (t->call) {
		t->touched = 1;
		if (address && length >= RECORD_HEADER && read_header(&h, address))
			on_inner_call(t, sk, &h);
		return 0;
	}
	again = t->received.cookie == bpf_get_socket_cookie(sk);
	t->hello = 0;
	/* Two sockets read before a TLS call: which one is that call's nobody knows. */
	t->fresh = (t->claimed || again || !t->received.cookie) && address;
	t->claimed = 0;
	if (!keep_frames(t, address, length)) {
		t->fresh = 0;
		t->claimed = 1;
	}
	if (!again)
		read_place(sk, &t->received);
	return 0;
}

SEC("tp_btf/sock_send_length")
int tls_sent(__u64 *context)
{
	struct sock *sk = (void *)context[0];
	int result = context[1];
	__u64 length = result, address;
	struct tls_thread *t = tls_thread_get(0);
	struct record_header h = {};
	struct session *s;
	__u32 written;

	if (!t || (!t->call && !t->written) || !may_carry_tls(sk, result))
		return 0;
	written = t->written;
	t->written = 0;
	address = first_bytes(&length);
	if (t->call)
		t->touched = 1;
	if (!address || length < RECORD_HEADER || !read_header(&h, address))
		return 0;
	if (t->call) {
		on_inner_call(t, sk, &h);
		return 0;
	}
	if (written > PLAINTEXT_MAX)
		written = PLAINTEXT_MAX;
	s = t->writer ? session_find(t->writer, bpf_get_current_pid_tgid() >> 32) : NULL;
	if (s && h.bytes[0] == CONTENT_DATA && implies(written, record_length(&h)) &&
	    !s->owns_socket && s->place.cookie != bpf_get_socket_cookie(sk)) {
		struct place place;

		read_place(sk, &place);
		take_evidence(s, &place);
	}
	return 0;
}
