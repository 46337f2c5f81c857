/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The registers that user code had when it entered the kernel, by what they mean, on each machine that
 * we know. Their layout is ABI. Everything that depends on the machine is in this file.
 */
#ifndef OTELAUTO_REGISTERS_H
#define OTELAUTO_REGISTERS_H

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"

#if defined(__TARGET_ARCH_x86)

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	unsigned long ip, cs, flags, sp, ss;
} __attribute__((preserve_access_index));

enum system_call { /* arch/x86/entry/syscalls/syscall_64.tbl */
	CALL_READ = 0,
	CALL_WRITE = 1,
	CALL_READV = 19,
	CALL_WRITEV = 20,
	CALL_SENDTO = 44,
	CALL_RECVFROM = 45,
	CALL_SENDMSG = 46,
	CALL_RECVMSG = 47,
	CALL_RECVMMSG = 299,
	CALL_SENDMMSG = 307,
	CALL_PREADV2 = 327,
	CALL_PWRITEV2 = 328,
};

enum { THREAD_SIZE = 16384 }; /* arch/x86/include/asm/page_64_types.h, without KASAN */

#define CALL_NUMBER(regs) ((regs)->orig_ax)
/* Arguments of a system call, from 1. */
#define CALL_ARGUMENT_1(regs) ((regs)->di)
#define CALL_ARGUMENT_2(regs) ((regs)->si)
#define CALL_ARGUMENT_3(regs) ((regs)->dx)
#define CALL_ARGUMENT_4(regs) ((regs)->r10)
#define CALL_ARGUMENT_5(regs) ((regs)->r8)

/*
 * Until the call returns, ax holds -ENOSYS (entry code of arch/x86); anything else is work that the
 * kernel runs on the way out (io_uring completions), whose bytes the registers do not describe.
 */
#define CALL_HAS_NOT_RETURNED(regs) ((__s64)(regs)->ax == -ENOSYS)

/* struct thread_info: the call in progress is one of the 32-bit interface. */
#define COMPAT_WORD status
enum { COMPAT_BIT = 1 << 1 }; /* TS_COMPAT */

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate, orig_x0;
	__s32 syscallno;
} __attribute__((preserve_access_index));

enum system_call { /* include/uapi/asm-generic/unistd.h */
	CALL_READ = 63,
	CALL_WRITE = 64,
	CALL_READV = 65,
	CALL_WRITEV = 66,
	CALL_SENDTO = 206,
	CALL_RECVFROM = 207,
	CALL_SENDMSG = 211,
	CALL_RECVMSG = 212,
	CALL_RECVMMSG = 243,
	CALL_SENDMMSG = 269,
	CALL_PREADV2 = 286,
	CALL_PWRITEV2 = 287,
};

enum { THREAD_SIZE = 16384 }; /* arch/arm64/include/asm/memory.h, pages of 4 or 16 KiB, without KASAN */

#define CALL_NUMBER(regs) ((regs)->syscallno)
#define CALL_ARGUMENT_1(regs) ((regs)->orig_x0)
#define CALL_ARGUMENT_2(regs) ((regs)->regs[1])
#define CALL_ARGUMENT_3(regs) ((regs)->regs[2])
#define CALL_ARGUMENT_4(regs) ((regs)->regs[3])
#define CALL_ARGUMENT_5(regs) ((regs)->regs[4])

/*
 * The result replaces the first argument, the descriptor (arch/arm64/kernel/syscall.c). One that is
 * equal to it cannot be told from none: work on the way out, after that, is taken for the call.
 */
#define CALL_HAS_NOT_RETURNED(regs) ((regs)->regs[0] == (regs)->orig_x0)

#define COMPAT_WORD flags
enum { COMPAT_BIT = 1 << 22 }; /* TIF_32BIT */

#else
#error "registers.h does not know this machine"
#endif

#pragma clang diagnostic pop

#endif
