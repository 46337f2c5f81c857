// SPDX-License-Identifier: Apache-2.0
/*
 * A 32-bit caller without a 32-bit libc: system calls by int 0x80 (arch/x86/entry/syscalls/
 * syscall_32.tbl). Writes and reads on descriptor 0; the buffers' addresses fit 32 bits, as a
 * static program is linked low.
 */
static char sent[] = "32-bit bytes", got[64];

static long call(long number, long first, long second, long third)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(first), "c"(second), "d"(third)
			 : "memory", "r8", "r9", "r10", "r11");
	return result;
}

void _start(void)
{
	long wrote = call(4, 0, (long)sent, sizeof(sent) - 1); /* write */
	long read = call(3, 0, (long)got, sizeof(got));	       /* read */

	call(1, wrote == sizeof(sent) - 1 && read > 0 ? 0 : 1, 0, 0); /* exit */
}
