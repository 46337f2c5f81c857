/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * For programs whose sockets come without a type that the verifier knows (found by walking from the
 * task, or taken from a register): every member is copied, by a helper that survives a wrong address.
 */
#ifndef OTELAUTO_UNTYPED_H
#define OTELAUTO_UNTYPED_H

#undef FIELD
#define FIELD(object, member)                                                                      \
	({                                                                                         \
		typeof((object)->member) field_;                                                   \
		bpf_probe_read_kernel(&field_, sizeof(field_), &(object)->member);                 \
		field_;                                                                            \
	})

#endif
