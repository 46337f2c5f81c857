/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is kept of a connection, which sockets have it, and what was decided about its bytes. */
#ifndef OTELAUTO_CONNECTION_H
#define OTELAUTO_CONNECTION_H

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
	cookie_t cookie;
	struct verdict verdict;
	__u32 next_tcp_sequence[2];
	__u32 captured[2];          /* bytes copied in the current turn */
	__u32 sequence;             /* of the next record */
	__u32 generation;           /* of the verdict */
	tgid_t tgid;
	tid_t tid;
	__u32 bits;                 /* enum connection_bit; set by mark() only */
	__u16 turns;                /* saturates */
	__u8 role;
	__u8 turn_of;               /* direction of the turn + 1; 0: there was none */
	__u8 started[2];            /* by direction: next_tcp_sequence is set; a byte each, for races */
	__u8 pad[2];
	__u32 inode;                /* of the socket's file, where the kernel does not end the state */
};

/* Of the socket's file; 0 if it has none (any more). */
INLINE __u64 inode_of(struct sock *sk)
{
	struct socket *socket = FIELD(sk, sk_socket);
	struct file *file;
	struct inode *inode;

	if (!socket)
		return 0;
	file = FIELD(socket, file);
	if (!file)
		return 0;
	inode = FIELD(file, f_inode);
	return FIELD(inode, i_ino);
}

#ifdef OTELAUTO_OLDER_H
#include "connection_table.h"
#else
struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_SK_STORAGE);
	MAP_ATTRIBUTE(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct connection);
} connections SEC(".maps");

INLINE struct connection *connection_get(struct sock *sk, __u64 flags)
{
	return bpf_sk_storage_get(&connections, sk, NULL, flags);
}

/* The kernel does. */
INLINE void connection_forget(struct sock *sk)
{
	(void)sk;
}
#endif

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_ATTRIBUTE(max_entries, 4096);
	MAP_TYPE(key, struct endpoint_key);
	MAP_TYPE(value, struct verdict);
} endpoint_verdicts SEC(".maps");

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_ATTRIBUTE(max_entries, 8192);
	MAP_TYPE(key, cookie_t);
	MAP_TYPE(value, struct verdict);
} connection_verdicts SEC(".maps");

/* Set a bit; true if it was not set before. Both directions and softirqs share the word. */
INLINE bool mark(struct connection *c, enum connection_bit bit)
{
	return !(c->bits & bit) && !(__sync_fetch_and_or(&c->bits, bit) & bit);
}

/* ---- which sockets ---- */

/* NULL if it is none. */
INLINE struct tcp_sock *tcp_sock_of(struct sock *sk)
{
#ifdef HAS_VIEWS
	return sk->sk_protocol == IPPROTO_TCP ? VIEW_AS(struct tcp_sock, sk) : NULL;
#elif defined(OTELAUTO_UNTYPED_H)
	return FIELD(sk, sk_protocol) == IPPROTO_TCP ? (struct tcp_sock *)sk : NULL;
#else
	return bpf_skc_to_tcp_sock(sk);
#endif
}

INLINE bool carries_a_stream(struct sock *sk)
{
	__u16 family = FIELD(sk, __sk_common.skc_family), protocol = FIELD(sk, sk_protocol);

	if (family == AF_INET || family == AF_INET6)
		return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
	return family == AF_UNIX && FIELD(sk, sk_type) == SOCK_STREAM;
}

/* Sockets of the kernel's own (NFS, NBD) have no file; their bytes are not the process's. */
INLINE bool belongs_to_a_process(struct sock *sk)
{
	struct socket *socket = FIELD(sk, sk_socket);

	return socket && FIELD(socket, file);
}

/* ---- addresses and verdicts ---- */

INLINE __u32 netns_of(struct sock *sk)
{
	struct net *net = FIELD(sk, __sk_common.skc_net.net);

	return FIELD(net, ns.inum);
}

INLINE void read_addresses(struct sock *sk, struct opening *to)
{
	struct sock_common *common = &sk->__sk_common;

	to->family = FIELD(common, skc_family);
	to->local_port = FIELD(common, skc_num);
	to->remote_port = __builtin_bswap16(FIELD(common, skc_dport));
	to->netns = netns_of(sk);
	if (to->family == AF_INET) {
		*(__u32 *)to->local = FIELD(common, skc_rcv_saddr);
		*(__u32 *)to->remote = FIELD(common, skc_daddr);
	} else if (to->family == AF_INET6) {
		bpf_probe_read_kernel(to->local, 16, &common->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(to->remote, 16, &common->skc_v6_daddr);
	}
}

/* Look the verdict up again: the connection's own, its local endpoint's, its remote endpoint's. */
INLINE void refresh_verdict(struct sock *sk, struct connection *c)
{
	struct endpoint_key key = {};
	struct verdict *found = bpf_map_lookup_elem(&connection_verdicts, &c->cookie);
	struct sock_common *common = &sk->__sk_common;
	__u16 family = FIELD(common, skc_family);

	if (!found && family != AF_UNIX) {
		key.netns = netns_of(sk);
		key.port = FIELD(common, skc_num);
		key.kind = ENDPOINT_LOCAL;
		found = bpf_map_lookup_elem(&endpoint_verdicts, &key);
		if (!found) {
			key.kind = ENDPOINT_REMOTE;
			key.port = __builtin_bswap16(FIELD(common, skc_dport));
			if (family == AF_INET)
				*(__u32 *)key.address = FIELD(common, skc_daddr);
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
COLD void announce(struct connection *c, struct sock *sk, struct workspace *w, ktime_ns now)
{
	struct opening *o = &w->opening;
	__u64 size = sizeof(*o);

	__builtin_memset(o, 0, sizeof(*o));
	o->kind = RECORD_OPENING;
	o->role = c->role;
	o->sequence = __sync_fetch_and_add(&c->sequence, 1);
	o->connection = c->cookie;
	o->time = now;
	o->tgid = c->tgid;
	o->tid = c->tid;
	o->protocol = FIELD(sk, sk_protocol);
	o->inode = inode_of(sk);
	read_addresses(sk, o);
	if (o->family == AF_UNIX) {
		o->path_length = read_unix_path(sk, w->path);
		size += o->path_length & 127;
	}
	if (!emit_record(w, size, false))
		__sync_fetch_and_and(&c->bits, ~CONNECTION_ANNOUNCED);
}

#endif
