// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Capture tier C with what a kernel as old as 5.10 has. */
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 1 }; /* a CPU */
#define VECTORS_READ VECTORS_MAX_FUNCTIONS
#define PARTS_MAX 1

#define bpf_task_pt_regs(task) ((void)(task), registers_here())
#include "plain.h"
#include "untyped.h"
#include "older.h"
#include "tier.h"
#include "calls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
