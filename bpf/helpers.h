/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The BPF helpers we call, by their UAPI numbers (enum bpf_func_id), and the idioms around them. */
#ifndef OTELAUTO_HELPERS_H
#define OTELAUTO_HELPERS_H

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* Not inlined, and verified by itself: its arguments, numbers only, are whatever their types allow. */
#define GLOBAL __attribute__((noinline))
/* The same with pointers among the arguments, which 5.10 does not know. */
#define GLOBAL_OF_POINTERS GLOBAL
/* Seldom run: kept out of the way of what always runs. Verified with its caller. */
#define COLD static __attribute__((noinline))
#define MAP_ATTRIBUTE(name, value) int (*name)[value]
#define MAP_TYPE(name, type) typeof(type) *name
/* Hide a value's history from the compiler, so that the bound just tested is the one verified. */
#define OPAQUE(variable) asm volatile("" : "+r"(variable))
/* Atomic, and understood by kernels that cannot give the value before (older than 5.12). */
#define ADD_64(at, amount)                                                                         \
	asm volatile("lock *(u64 *)(%0 + 0) += %1" ::"r"(at), "r"((__u64)(amount)) : "memory")
#define ADD_32(at, amount)                                                                         \
	asm volatile("lock *(u32 *)(%0 + 0) += %1" ::"r"(at), "r"((__u64)(amount)) : "memory")
/* A member of a kernel object. A tier whose pointers have no type for the verifier copies it. */
#define FIELD(object, member) ((object)->member)
/* What was read from memory before is not known any more. */
#define READ_AGAIN() asm volatile("" ::: "memory")

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1024 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_SK_STORAGE_GET_F_CREATE = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0 };

struct task_struct;
struct pt_regs;
struct tcp_sock;

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value,
				   __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*bpf_get_current_task)(void) = (void *)35;
static __u64 (*bpf_get_socket_cookie)(void *context) = (void *)46;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static long (*bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static __u64 (*bpf_ringbuf_query)(void *ring, __u64 what) = (void *)134;
static void *(*bpf_task_storage_get)(void *map, struct task_struct *task, void *value,
				     __u64 flags) = (void *)156;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static __u64 (*bpf_get_attach_cookie)(void *context) = (void *)174;
static long (*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;
static long (*bpf_loop)(__u32 count, void *step, void *context, __u64 flags) = (void *)181; /* 5.17 */

#ifdef HAS_VIEWS
/* A view of kernel memory by a type; the verifier makes it no call at all (kernel 6.2). */
extern void *bpf_rdonly_cast(const void *object, __u32 type_id) SEC(".ksyms");
#define VIEW_AS(type, object) \
	((type *)bpf_rdonly_cast(object, __builtin_btf_type_id(*(type *)0, 1)))
#else
static struct tcp_sock *(*bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
#endif

#endif
