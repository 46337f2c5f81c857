// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Capture tier C on kernels whose programs have atomic operations that give the value before. */
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 1 }; /* a CPU */
#define VECTORS_READ VECTORS_MAX_FUNCTIONS
#define PARTS_MAX 1

#define bpf_task_pt_regs(task) ((void)(task), registers_here())
#include "untyped.h"
#include "older.h"
#include "tier.h"
#include "calls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
