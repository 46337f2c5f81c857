// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Capture tier B where tracing programs have per-socket storage and a task's registers. */
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 8 }; /* a CPU */
#define VECTORS_READ VECTORS_MAX_FUNCTIONS
#define PARTS_MAX 8

#include "tier.h"
#include "functions.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
