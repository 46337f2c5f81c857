/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connections by socket, where sockets have no storage for tracing programs. The socket's end removes
 * the entry before its memory can be another socket's; the table is bounded, and full is counted.
 */
#ifndef OTELAUTO_CONNECTION_TABLE_H
#define OTELAUTO_CONNECTION_TABLE_H

struct {
	MAP_ATTRIBUTE(type, BPF_MAP_TYPE_HASH);
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
	cookie_t cookie = sk->__sk_common.skc_cookie.counter;

	if (cookie)
		return cookie;
	return 1ULL << 63 | bpf_ktime_get_boot_ns() << 10 | bpf_get_smp_processor_id();
}

INLINE struct connection *connection_get(struct sock *sk, __u64 flags)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &sk);

	if (c || !flags)
		return c;
	bpf_map_update_elem(&connections, &sk, &no_connection, BPF_NOEXIST);
	return bpf_map_lookup_elem(&connections, &sk);
}

INLINE cookie_t connection_id(struct sock *sk)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &sk);

	if (!c)
		return 0;
	/* Kept once given; not at connect(): the socket may be given its cookie after that. */
	return c->cookie ? c->cookie : new_connection_id(sk);
}

INLINE void connection_forget(struct sock *sk)
{
	bpf_map_delete_elem(&connections, &sk);
}

#endif
