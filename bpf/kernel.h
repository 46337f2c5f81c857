/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel types we read, with only the members we read: CO-RE finds them in the running kernel
 * by name, so order and size here mean nothing. Constants are those of the kernel's UAPI.
 */
#ifndef OTELAUTO_KERNEL_H
#define OTELAUTO_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10 };
enum { SOCK_STREAM = 1 };
enum { IPPROTO_TCP = 6, IPPROTO_MPTCP = 262 };
enum { MSG_OOB = 1, MSG_PEEK = 2, MSG_TRUNC = 0x20, MSG_ERRQUEUE = 0x2000 };
enum { RCV_SHUTDOWN = 1 };
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_FIN_WAIT1 = 4,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
};
enum { S_IFMT = 0170000, S_IFSOCK = 0140000 };
enum { ENOSYS = 38 };

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	__u32 inum;
};
struct net {
	struct ns_common ns;
};
typedef struct {
	struct net *net;
} possible_net_t;
struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};
struct inode {
	unsigned long i_ino;
	__u16 i_mode;
};
struct file {
	struct inode *f_inode;
	void *private_data;
};
struct fdtable {
	__u32 max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct socket {
	struct file *file;
	struct sock *sk;
};
typedef struct {
	__s64 counter;
} atomic64_t;
struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	__u16 skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	atomic64_t skc_cookie;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};
struct sk_buff_head {
	__u32 qlen;
};
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	__u16 sk_type;
	__u8 sk_shutdown;
	int sk_err;
	struct sk_buff_head sk_receive_queue;
	struct socket *sk_socket;
};
struct inet_connection_sock {
	const void *icsk_ulp_ops;
};
struct tcp_sock {
	__u32 copied_seq;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u32 snd_una;
	__u64 bytes_received;
	__u64 bytes_acked;
};
struct sockaddr_un {
	char sun_path[108];
};
struct unix_address {
	int len;
	struct sockaddr_un name[];
};
struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};
typedef struct {
	int counter;
} atomic_t;
struct signal_struct {
	atomic_t live;
};
struct thread_info {
	unsigned long flags;
	__u32 status; /* not on arm64 */
};
struct task_struct {
	struct thread_info thread_info;
	void *stack;
	int pid;
	int tgid;
	struct signal_struct *signal;
	unsigned long nvcsw; /* how often it gave up the CPU to wait */
	/* struct files_struct: with two names that an object only points to, the compiler's order of them
	 * depends on where it runs. */
	void *files;
};
struct linux_binprm;

#pragma clang attribute pop

#include "registers.h"

/* User-space ABI (64-bit). */
struct user_vector {
	__u64 base;
	__u64 length;
};
struct user_message {
	__u64 name;
	__u32 name_length, pad;
	__u64 vectors;
	__u64 vector_count;
	__u64 control;
	__u64 control_length;
	__u32 flags, pad2;
};
struct user_message_slot { /* struct mmsghdr */
	struct user_message message;
	__u32 length, pad;
};
#pragma clang diagnostic pop

#endif
