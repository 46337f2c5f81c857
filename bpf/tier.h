/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What every socket tier is made of, in order. An attach file says before it what its kernels have
 * (HAS_VIEWS, older.h), how many WORKSPACES its programs need, and what their verifier has patience
 * for: VECTORS_READ of a call, and PARTS_MAX records of one segment.
 */
#ifndef OTELAUTO_TIER_H
#define OTELAUTO_TIER_H

#include "abi.h"
#include "contract.h"
#include "targets.h"
#include "emit.h"
#include "user_bytes.h"
#include "copy.h"
#include "connection.h"
#include "turns.h"
#include "hooks.h"

#endif
