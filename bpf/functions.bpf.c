// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Capture tier B where tracing programs have per-socket storage and a task's registers. */
#include "kernel.h"
#include "helpers.h"

enum { WORKSPACES = 8 }; /* a CPU */

#include "abi.h"
#include "contract.h"
#include "targets.h"
#include "emit.h"
#include "user_bytes.h"
#include "copy.h"
#include "connection.h"
#include "turns.h"
#include "hooks.h"
#include "functions.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
