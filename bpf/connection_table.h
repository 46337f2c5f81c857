/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connections by socket, where sockets have no storage for tracing programs. The table is bounded.
 *
 * Where the end of every socket can be hooked, it removes the entry before the memory can be another
 * socket's, and a full table is counted. Elsewhere (untyped.h) that holds for TCP alone: an entry tells
 * by the inode of its socket's file whether it is of an earlier socket, and what was not used for
 * longest makes room.
 */
#ifndef OTELAUTO_CONNECTION_TABLE_H
#define OTELAUTO_CONNECTION_TABLE_H

#ifdef OTELAUTO_UNTYPED_H
enum { CONNECTIONS_TYPE = BPF_MAP_TYPE_LRU_HASH };
#else
enum { CONNECTIONS_TYPE = BPF_MAP_TYPE_HASH };
#endif

struct {
	MAP_ATTRIBUTE(type, CONNECTIONS_TYPE);
	MAP_ATTRIBUTE(max_entries, 16384);
	MAP_TYPE(key, struct sock *);
	MAP_TYPE(value, struct connection);
} connections SEC(".maps");

/* A new entry, to be copied: too large for the stack of a program with others in it. */
static const struct connection no_connection;

/*
 * The socket's cookie if it has one; giving it one takes a helper that is not there. Else a number
 * that no cookie reaches: the time, which each CPU passes once.
 */
INLINE cookie_t new_connection_id(struct sock *sk)
{
	cookie_t cookie = FIELD(sk, __sk_common.skc_cookie.counter);

	if (cookie)
		return cookie;
	return 1ULL << 63 | bpf_ktime_get_boot_ns() << 10 | bpf_get_smp_processor_id();
}

INLINE void connection_forget(struct sock *sk)
{
	bpf_map_delete_elem(&connections, &sk);
}

/* Whether the entry was made for an earlier socket at the same place in memory. */
INLINE bool is_stale(struct sock *sk, struct connection *c)
{
#ifdef OTELAUTO_UNTYPED_H
	__u32 inode = inode_of(sk);

	return inode && c->inode && inode != c->inode;
#else
	(void)sk;
	(void)c;
	return false;
#endif
}

INLINE struct connection *connection_get(struct sock *sk, __u64 flags)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &sk);

	if (c && is_stale(sk, c)) {
		connection_forget(sk);
		c = NULL;
	}
	if (c || !flags)
		return c;
	bpf_map_update_elem(&connections, &sk, &no_connection, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&connections, &sk);
	if (c)
		c->inode = inode_of(sk);
	return c;
}

INLINE cookie_t connection_id(struct sock *sk)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &sk);

	if (!c)
		return 0;
	/* Kept once given; not at connect(): the socket may be given its cookie after that. */
	return c->cookie ? c->cookie : new_connection_id(sk);
}

#endif
