/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * TLS sessions by process and address of the library's object, the TLS call that a thread is in, and
 * the proof of which socket carries a session.
 *
 * A library that owns its socket calls it inside the TLS call, on the same thread: a record there is
 * proof. One that is handed ciphertext and gives it back leaves evidence only: a thread receives from
 * one socket, and from no other before it calls the library, for one session first; or it writes for
 * one session, and for no other before it sends; and the length of the record on the socket is the
 * one that the plaintext implies. Two such in a row are proof, a handshake message counting as one;
 * where they contradicted each other before, more. Until then there is no peer.
 */
#ifndef OTELAUTO_SESSIONS_H
#define OTELAUTO_SESSIONS_H

enum {
	FRAMES_MAX = 4,             /* records looked at of one receive */
	RECORD_HEADER = 5,          /* RFC 8446, section 5.1 */
	RECORD_MAX = 16384 + 2048,  /* RFC 5246, section 6.2.3 */
	PLAINTEXT_MAX = 16384,
	EVIDENCE_NEEDED = 2,
	EVIDENCE_NEEDED_MAX = 64,
	SAME_STACK = 1 << 15,       /* bytes between the frames of a call and of one inside it */
};

enum { CONTENT_HANDSHAKE = 22, CONTENT_DATA = 23 };

/* A socket as an opening record describes it. */
struct place {
	cookie_t cookie;
	__u64 inode;
	__u32 netns;
	__u16 family;
	__u16 protocol;
	port_host local_port;
	port_host remote_port;
	__u8 role;
	__u8 pad[3];
	__u8 local[16];
	__u8 remote[16];
};

struct session_key {
	__u64 session;
	tgid_t tgid;
	__u32 pad;
};

struct session {
	struct connection connection; /* of the plaintext */
	struct place place;           /* cookie 0: not proven */
	cookie_t candidate;           /* the socket that evidence points to */
	__u16 evidence;
	__u16 needed;                 /* evidence that makes a proof; 0: EVIDENCE_NEEDED */
	__u8 owns_socket;             /* proven by a socket call inside a TLS call */
	__u8 greeted;                 /* its handshake was seen */
	__u8 pad[2];
};

/* What a thread is doing. */
struct tls_thread {
	__u64 session;                /* the call in progress, its arguments */
	__u64 buffer;
	__u64 size;
	__u64 result;
	__u64 stack;                  /* its stack pointer */
	__u64 slept;                  /* how often the thread had slept before it; of a handshake */
	__u32 call;                   /* enum tls_call; 0: none is in progress */
	__u8 touched;                 /* a socket call was made inside it */
	__u8 ended;                   /* ... and read the end of the stream */
	__u8 fresh;                   /* `received` is the only socket read since the last TLS call */
	__u8 hello;                   /* ... and it brought a handshake message that no call has taken */
	__u8 claimed;                 /* a TLS call was made since `received` was read */
	__u8 pad[3];
	__u32 written;                /* bytes of the first write since a socket was written to */
	__u64 writer;                 /* the session of all such writes; 0: of several */
	__u64 taker;                  /* the session of the first TLS call after `received` */
	__u16 frames[FRAMES_MAX];     /* lengths of the records of application data in it */
	struct place received;
};

/* The bound holds kernel memory: one that is forgotten too early begins anew, as joined midstream. */
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_ATTRIBUTE(max_entries, 8192);
	MAP_TYPE(key, struct session_key);
	MAP_TYPE(value, struct session);
} sessions SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_TASK_STORAGE);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct tls_thread);
} tls_threads SEC(".maps");

static const struct session no_session;

INLINE struct tls_thread *tls_thread_get(__u64 flags)
{
	return bpf_task_storage_get(&tls_threads, bpf_get_current_task_btf(), NULL, flags);
}

INLINE struct session *session_find(__u64 session, tgid_t tgid)
{
	struct session_key key = { .session = session, .tgid = tgid };

	return bpf_map_lookup_elem(&sessions, &key);
}

/* A number for its plaintext: no cookie reaches it, and each CPU passes each time once. */
INLINE struct session *session_get(__u64 session, tgid_t tgid)
{
	struct session_key key = { .session = session, .tgid = tgid };
	struct session *found = bpf_map_lookup_elem(&sessions, &key);

	if (found)
		return found;
	bpf_map_update_elem(&sessions, &key, &no_session, BPF_NOEXIST);
	found = bpf_map_lookup_elem(&sessions, &key);
	if (!found) {
		count(DROP_STATE_REFUSED, 1);
		return NULL;
	}
	found->connection.cookie =
		1ULL << 63 | bpf_ktime_get_boot_ns() << 10 | bpf_get_smp_processor_id();
	found->connection.tgid = tgid;
	return found;
}

/* ---- proof ---- */

INLINE void read_place(struct sock *sk, struct place *to)
{
	struct sock_common *common = &sk->__sk_common;
	struct connection *carrier = connection_get(sk, 0);
	struct socket *socket = sk->sk_socket;

	__builtin_memset(to, 0, sizeof(*to));
	to->cookie = bpf_get_socket_cookie(sk);
	to->inode = socket && socket->file ? socket->file->f_inode->i_ino : 0;
	to->netns = common->skc_net.net->ns.inum;
	to->family = common->skc_family;
	to->protocol = sk->sk_protocol;
	to->local_port = common->skc_num;
	to->remote_port = __builtin_bswap16(common->skc_dport);
	to->role = carrier ? carrier->role : ROLE_UNKNOWN;
	if (to->family == AF_INET) {
		*(__u32 *)to->local = common->skc_rcv_saddr;
		*(__u32 *)to->remote = common->skc_daddr;
	} else if (to->family == AF_INET6) {
		bpf_probe_read_kernel(to->local, 16, &common->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(to->remote, 16, &common->skc_v6_daddr);
	}
}

/* Its socket is known now, or is another: say so with the next bytes, and look the verdict up. */
INLINE void bind_session(struct session *s, const struct place *place)
{
	s->place = *place;
	s->connection.role = place->role;
	s->connection.generation = 0;
	__sync_fetch_and_and(&s->connection.bits, ~CONNECTION_ANNOUNCED);
}

/* Evidence that `place` carries the session. */
INLINE void take_evidence(struct session *s, const struct place *place)
{
	__u16 needed = s->needed ? s->needed : EVIDENCE_NEEDED;

	if (s->owns_socket)
		return;
	if (s->candidate != place->cookie) {
		if (s->candidate && needed < EVIDENCE_NEEDED_MAX)
			s->needed = needed = 2 * needed;
		s->candidate = place->cookie;
		s->evidence = 0;
	}
	if (s->place.cookie == place->cookie)
		return;
	s->evidence++;
	if (s->evidence >= needed)
		bind_session(s, place);
}

/*
 * Whether a record of `length` bytes may hold `plaintext` bytes: content type and tag of TLS 1.3; tag
 * and explicit nonce of TLS 1.2's GCM and CCM; its ChaCha20-Poly1305 (RFC 8446, 5288, 7905). Block
 * ciphers pad: they prove nothing.
 */
INLINE bool implies(__u32 plaintext, __u32 length)
{
	return length == plaintext + 17 || length == plaintext + 24 || length == plaintext + 16;
}

struct record_header {
	__u8 bytes[8];
};

INLINE __u32 record_length(const struct record_header *h)
{
	return h->bytes[3] << 8 | h->bytes[4];
}

/* Read a record's header from user memory; false if there is none. */
INLINE bool read_header(struct record_header *to, __u64 address)
{
	__u8 *b = to->bytes;

	if (bpf_probe_read_user(b, RECORD_HEADER, (void *)address))
		return false;
	return b[0] >= 20 && b[0] <= 24 && b[1] == 3 && b[2] <= 4 &&
	       record_length(to) <= RECORD_MAX;
}

#endif
