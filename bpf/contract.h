/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A compiler writes only the types that something uses to BTF. This variable uses every type of the
 * contract, so that each object carries all of it: for the generator, and for the comparison at load.
 */
#ifndef OTELAUTO_CONTRACT_H
#define OTELAUTO_CONTRACT_H

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"
struct contract {
	struct opening opening;
	struct segment segment;
	struct process_event process_event;
	struct endpoint_key endpoint_key;
	struct verdict verdict;
	enum abi_limit abi_limit;
	enum record_kind record_kind;
	enum direction direction;
	enum capture_mode capture_mode;
	enum segment_flag segment_flag;
	enum socket_role socket_role;
	enum endpoint_kind endpoint_kind;
	enum process_event_kind process_event_kind;
	enum target_state target_state;
	enum counter counter;
	enum tls_call tls_call;
};
#pragma clang diagnostic pop

const volatile struct contract contract = {};

#endif
