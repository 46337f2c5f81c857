// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Capture tier B where tracing programs have per-socket storage and a task's registers. */
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 8 }; /* a CPU */

#include "tier.h"
#include "functions.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
