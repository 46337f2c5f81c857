/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Stand-ins for what came with 5.12: atomic operations that give the value before, and global functions
 * with pointers.
 */
#ifndef OTELAUTO_PLAIN_H
#define OTELAUTO_PLAIN_H

/* Verified with each caller, then. */
#undef GLOBAL_OF_POINTERS
#define GLOBAL_OF_POINTERS COLD

/*
 * Addition is atomic; what it gives back may be what another CPU's addition gives, too. The others
 * are plain: two threads in one connection at the same instant may both be told that a bit is new.
 * Then a record has its number twice, or comes twice, and the connection is given up as out of step.
 */
#define __sync_fetch_and_add(at, value)                                                            \
	({                                                                                         \
		__u32 before_ = *(volatile __u32 *)(at);                                           \
		ADD_32(at, value);                                                                 \
		before_;                                                                           \
	})
#define plain_update(at, new)                                                                      \
	({                                                                                         \
		typeof(*(at)) before_ = *(volatile typeof(*(at)) *)(at);                           \
		*(volatile typeof(*(at)) *)(at) = (new);                                           \
		before_;                                                                           \
	})
#define __sync_fetch_and_or(at, value) plain_update(at, before_ | (value))
#define __sync_fetch_and_and(at, value) plain_update(at, before_ & (value))
#define __sync_lock_test_and_set(at, value) plain_update(at, value)

#endif
