// SPDX-License-Identifier: Apache-2.0
/*
 * io_uring without liburing: "send" and "receive" in io_uring_enter, and "later": a receive that
 * is armed on an empty socket and completes as task work on the way out of another system call.
 * Prints what it moved. Usage: uring PORT; talks to itself over loopback through a listener at PORT.
 */
#include <arpa/inet.h>
#include <err.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct io_uring_sqe *entries;
static char *submit, *complete;
static struct io_uring_params parameters;
static int ring;

static void open_ring(void)
{
	size_t submit_size, complete_size;

	ring = syscall(SYS_io_uring_setup, 8, &parameters);
	if (ring < 0)
		err(2, "io_uring_setup");
	submit_size = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
	complete_size = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
	submit = mmap(NULL, submit_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		      IORING_OFF_SQ_RING);
	complete = mmap(NULL, complete_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
			IORING_OFF_CQ_RING);
	entries = mmap(NULL, 8 * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		       IORING_OFF_SQES);
	if (submit == MAP_FAILED || complete == MAP_FAILED || entries == MAP_FAILED)
		err(1, "mmap");
}

static void enter(int operation, int socket, void *buffer, unsigned length, unsigned wait)
{
	_Atomic unsigned *tail = (void *)(submit + parameters.sq_off.tail);
	unsigned *array = (void *)(submit + parameters.sq_off.array);
	unsigned mask = *(unsigned *)(submit + parameters.sq_off.ring_mask), at = *tail & mask;

	memset(&entries[at], 0, sizeof(entries[at]));
	entries[at].opcode = operation;
	entries[at].fd = socket;
	entries[at].addr = (unsigned long)buffer;
	entries[at].len = length;
	array[at] = at;
	atomic_fetch_add(tail, 1);
	if (syscall(SYS_io_uring_enter, ring, 1, wait, wait ? IORING_ENTER_GETEVENTS : 0, 0, 0) < 0)
		err(1, "io_uring_enter");
}

/* The next completion's result; polls with getppid(), whose exit runs pending task work. */
static int completion(void)
{
	_Atomic unsigned *head = (void *)(complete + parameters.cq_off.head);
	_Atomic unsigned *tail = (void *)(complete + parameters.cq_off.tail);
	struct io_uring_cqe *results = (void *)(complete + parameters.cq_off.cqes);
	unsigned mask = *(unsigned *)(complete + parameters.cq_off.ring_mask);
	int result;

	while (atomic_load(head) == atomic_load(tail))
		syscall(SYS_getppid);
	result = results[*head & mask].res;
	atomic_fetch_add(head, 1);
	return result;
}

int main(int count, char **arguments)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char sent[64] = "bytes sent by io_uring", got[64] = "", later[64] = "", decoy[64];
	int client, moved;

	if (count != 2)
		errx(1, "usage: uring PORT");
	address.sin_port = htons(atoi(arguments[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	client = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(client, (void *)&address, sizeof(address)))
		err(1, "connect");
	open_ring();
	enter(IORING_OP_SEND, client, sent, 22, 1);
	if (completion() != 22)
		errx(1, "send");
	enter(IORING_OP_RECV, client, got, sizeof(got), 1); /* the peer echoes it */
	if (completion() != 22 || memcmp(sent, got, 22))
		errx(1, "receive");
	enter(IORING_OP_RECV, client, later, sizeof(later), 0); /* nothing there yet: armed */
	memset(decoy, '!', sizeof(decoy));
	/* The echo arrives while this thread writes and reads elsewhere: completed on the way out. */
	if (write(client, "plain write", 11) != 11)
		err(1, "write");
	moved = completion();
	if (moved != 11 || memcmp(later, "plain write", 11))
		errx(1, "later: %d", moved);
	(void)decoy;
	printf("moved %d\n", 22 + 22 + 11);
	return 0;
}
