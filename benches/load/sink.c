/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OTLP/HTTP receiver that discards what it is sent: sink PORT
 *
 * Every POST, its body of known length or chunked, is read whole and answered 200 with an empty
 * message, which is what a collector answers when it took everything. GET tells the number of
 * POSTs and the bytes of their bodies: "POSTS BYTES\n". One thread a connection.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_MAX = 1 << 16 };

static atomic_long posts, body_bytes;

struct input {
	int fd;
	size_t length;
	char data[HEAD_MAX];
};

/* Reads until `mark` has come; its end, or 0 when the peer has ended or sends nonsense. */
static size_t read_until(struct input *input, const char *mark)
{
	for (;;) {
		char *found = memmem(input->data, input->length, mark, strlen(mark));
		if (found)
			return found + strlen(mark) - input->data;
		if (input->length == sizeof(input->data))
			return 0;
		ssize_t got = recv(input->fd, input->data + input->length,
				   sizeof(input->data) - input->length, 0);
		if (got <= 0)
			return 0;
		input->length += got;
	}
}

/* Takes head and body off the input. */
static bool discard(struct input *input, size_t size)
{
	while (size > input->length) {
		size -= input->length;
		ssize_t got = recv(input->fd, input->data, sizeof(input->data), 0);
		if (got <= 0)
			return false;
		input->length = got;
	}
	input->length -= size;
	memmove(input->data, input->data + size, input->length);
	return true;
}

/* Takes a chunked body without trailers off the input; its size, or -1 when it breaks off. */
static long discard_chunks(struct input *input)
{
	long total = 0, size;

	do {
		size_t line = read_until(input, "\r\n");
		size = line ? strtol(input->data, NULL, 16) : -1;
		if (size < 0 || !discard(input, line + size + 2))
			return -1;
		total += size;
	} while (size);
	return total;
}

static bool answer_one(struct input *input)
{
	char text[256], told[64] = "";
	size_t head = read_until(input, "\r\n\r\n");

	if (!head)
		return false;
	input->data[head - 2] = 0;
	bool post = !strncmp(input->data, "POST ", 5);
	char *length = strcasestr(input->data, "\r\nContent-Length:");
	bool chunked = strcasestr(input->data, "\r\nTransfer-Encoding: chunked");
	long body = length ? strtol(length + 17, NULL, 10) : 0;
	if (!discard(input, head + body) || (chunked && (body = discard_chunks(input)) < 0))
		return false;
	if (post) {
		atomic_fetch_add(&posts, 1);
		atomic_fetch_add(&body_bytes, body);
	} else {
		sprintf(told, "%ld %ld\n", atomic_load(&posts), atomic_load(&body_bytes));
	}
	int size = sprintf(text, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
			   post ? "application/x-protobuf" : "text/plain", strlen(told), told);
	return send(input->fd, text, size, MSG_NOSIGNAL) == size;
}

static void *serve(void *argument)
{
	struct input *input = argument;
	int on = 1;

	setsockopt(input->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	while (answer_one(input))
		;
	close(input->fd);
	free(input);
	return NULL;
}

int main(int argc, char **argv)
{
	int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 64)) {
		perror("listen");
		return 1;
	}
	for (;;) {
		pthread_t thread;
		int fd = accept(listener, NULL, NULL);
		struct input *input = fd >= 0 ? malloc(sizeof(*input)) : NULL;
		if (!input) {
			perror("accept");
			return 1;
		}
		input->fd = fd;
		input->length = 0;
		if (pthread_create(&thread, NULL, serve, input)) {
			perror("pthread_create");
			return 1;
		}
		pthread_detach(thread);
	}
}
