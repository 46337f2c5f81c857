/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small epoll HTTP/1.1 server: a test target and a benchmark target.
 *
 *   epoll -p PORT [-l ACCESS_LOG] [-s BODY_SIZE] [-c CPU] [-z] [-t] [-b]
 *
 *   -l  one JSON line a request      -s  body of /items (default: "item ID\n")
 *   -c  pin the process to a CPU     -z  send bodies with MSG_ZEROCOPY
 *   -t  one thread reads, another writes the same sockets
 *   -b  answer a burst of pipelined requests with one write
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_MAX = 1 << 20, BIG_SIZE = 200000, EVENTS = 64 };

static struct {
	long port, size, cpu;
	bool zerocopy, threads, batch;
	FILE *log;
} options = { .cpu = -1, .size = -1 };

static char fill[INPUT_MAX]; /* constant bodies: never written while a zero-copy send is in flight */

struct buffer {
	char *data;
	size_t length, room;
};

struct connection {
	int fd;
	size_t length;        /* bytes of input */
	bool continued;       /* 100 Continue was sent for the request at hand */
	bool ending;          /* no further request is read */
	struct buffer output; /* answers not sent yet */
	char input[INPUT_MAX];
};

struct request {
	char method[16], path[256];
	const char *id;
	size_t head, wire, body; /* bytes: head, whole message on the wire, decoded body */
	bool old, close, head_only;
	struct timespec started;
};

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void append(struct buffer *buffer, const void *data, size_t length)
{
	if (buffer->length + length > buffer->room) {
		buffer->room = (buffer->length + length) * 2;
		buffer->data = realloc(buffer->data, buffer->room);
		if (!buffer->data)
			fail("realloc");
	}
	memcpy(buffer->data + buffer->length, data, length);
	buffer->length += length;
}

/* Takes completion notices off the error queue, or they would use up the socket's memory. */
static void reap_zerocopy(int fd)
{
	char control[256];
	struct msghdr message = { .msg_control = control, .msg_controllen = sizeof(control) };

	while (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
		message.msg_controllen = sizeof(control);
}

static void send_all(int fd, const char *data, size_t length, int flags)
{
	while (length) {
		ssize_t sent = send(fd, data, length, flags | MSG_NOSIGNAL);
		if (sent >= 0) {
			data += sent;
			length -= sent;
		} else if (errno == ENOBUFS && flags & MSG_ZEROCOPY) {
			reap_zerocopy(fd);
			flags &= ~MSG_ZEROCOPY; /* optmem_max is used up: an ordinary send */
		} else if (errno == EAGAIN) {
			struct pollfd wait = { .fd = fd, .events = POLLOUT };
			poll(&wait, 1, 10000);
		} else if (errno != EINTR) {
			return; /* the peer is gone; the reader will see it */
		}
	}
}

/* What the writer thread does, in order: send these bytes, end the stream, or close and free. */
struct job {
	struct job *next;
	struct connection *connection;
	enum { SEND, SHUTDOWN, CLOSE } action;
	struct buffer bytes;
};

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t ready;
	struct job *first, **last;
} jobs = { .mutex = PTHREAD_MUTEX_INITIALIZER, .ready = PTHREAD_COND_INITIALIZER,
	   .last = &jobs.first };

static void perform(struct connection *connection, int action, struct buffer *bytes)
{
	if (action == SEND)
		send_all(connection->fd, bytes->data, bytes->length, 0);
	else if (action == SHUTDOWN)
		shutdown(connection->fd, SHUT_WR);
	else {
		close(connection->fd);
		free(connection->output.data);
		free(connection);
	}
}

static void *writer(void *unused)
{
	(void)unused;
	for (;;) {
		pthread_mutex_lock(&jobs.mutex);
		while (!jobs.first)
			pthread_cond_wait(&jobs.ready, &jobs.mutex);
		struct job *job = jobs.first;
		jobs.first = job->next;
		if (!jobs.first)
			jobs.last = &jobs.first;
		pthread_mutex_unlock(&jobs.mutex);
		perform(job->connection, job->action, &job->bytes);
		free(job->bytes.data);
		free(job);
	}
	return NULL;
}

/* Does it now, or hands it to the writer thread (-t), which then owns the bytes. */
static void act(struct connection *connection, int action)
{
	if (!options.threads) {
		perform(connection, action, &connection->output);
		if (action == SEND)
			connection->output.length = 0;
		return;
	}
	struct job *job = calloc(1, sizeof(*job));
	if (!job)
		fail("calloc");
	job->connection = connection;
	job->action = action;
	if (action == SEND) {
		job->bytes = connection->output;
		connection->output = (struct buffer){ 0 };
	}
	pthread_mutex_lock(&jobs.mutex);
	*jobs.last = job;
	jobs.last = &job->next;
	pthread_cond_signal(&jobs.ready);
	pthread_mutex_unlock(&jobs.mutex);
}

static void flush(struct connection *connection)
{
	if (connection->output.length)
		act(connection, SEND);
}

static __attribute__((format(printf, 2, 3))) void print(struct connection *connection,
							const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	append(&connection->output, text, length);
}

static void write_log(const struct request *request, int status, size_t sent)
{
	struct timespec now;

	if (!options.log)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	long us = (now.tv_sec - request->started.tv_sec) * 1000000 +
		  (now.tv_nsec - request->started.tv_nsec) / 1000;
	fprintf(options.log,
		"{\"id\": \"%s\", \"method\": \"%s\", \"path\": \"%s\", \"status\": %d, "
		"\"request_bytes\": %zu, \"response_bytes\": %zu, \"duration_us\": %ld}\n",
		request->id, request->method, request->path, status, request->body, sent, us);
}

/* An answer with a length; the body is sent with MSG_ZEROCOPY where it may be (-z). */
static void answer(struct connection *connection, struct request *request, int status,
		   const char *body, size_t length)
{
	bool bodiless = status == 204 || status == 304;
	size_t sent = request->head_only || bodiless ? 0 : length;

	print(connection, "HTTP/1.1 %d Text\r\nserver: epoll\r\n", status);
	if (!bodiless)
		print(connection, "content-length: %zu\r\n", length);
	print(connection, "%s\r\n", request->close ? "connection: close\r\n" : "");
	if (options.zerocopy && sent && body == fill) {
		flush(connection);
		send_all(connection->fd, body, sent, MSG_ZEROCOPY);
	} else {
		append(&connection->output, body, sent);
	}
	if (!options.batch)
		flush(connection);
	write_log(request, status, sent);
}

static void answer_chunked(struct connection *connection, struct request *request)
{
	size_t sent = 0;

	request->close |= request->old;
	print(connection, "HTTP/1.1 200 OK\r\n%s%s\r\n",
	      request->close ? "connection: close\r\n" : "",
	      request->old ? "" : "transfer-encoding: chunked\r\n");
	for (int i = 0; i < 5; i++) {
		print(connection, request->old ? "piece %d\n" : "8\r\npiece %d\n\r\n", i);
		flush(connection);
		sent += 8;
	}
	if (!request->old)
		print(connection, "0\r\n\r\n");
	flush(connection);
	write_log(request, 200, sent);
}

static void serve(struct connection *connection, struct request *request, const char *body)
{
	char text[300];

	if (!strncmp(request->path, "/status/", 8))
		answer(connection, request, atoi(request->path + 8), "status\n", 7);
	else if (!strcmp(request->method, "DELETE"))
		answer(connection, request, 204, "", 0);
	else if (!strncmp(request->path, "/echo/", 6))
		answer(connection, request, 200, body, request->body);
	else if (!strncmp(request->path, "/upload/", 8))
		answer(connection, request, 200, text, sprintf(text, "%zu\n", request->body));
	else if (!strncmp(request->path, "/chunked/", 9))
		answer_chunked(connection, request);
	else if (!strncmp(request->path, "/big/", 5))
		answer(connection, request, 200, fill, BIG_SIZE);
	else if (!strncmp(request->path, "/slow/", 6) && !usleep(20000))
		answer(connection, request, 200, "slow\n", 5);
	else if (options.size >= 0)
		answer(connection, request, 200, fill, options.size);
	else
		answer(connection, request, 200, text, sprintf(text, "item %s\n", request->id));
}

/* The value of a header of the head at text, or NULL; name is lower case with its colon. */
static const char *header(const char *text, const char *name)
{
	for (const char *line = strstr(text, "\r\n") + 2; *line != '\r'; line = strstr(line, "\r\n") + 2)
		if (!strncasecmp(line, name, strlen(name)))
			return line + strlen(name) + strspn(line + strlen(name), " ");
	return NULL;
}

/* Undoes the chunked coding in place. Returns bytes on the wire, 0 while more is to come. */
static size_t decode_chunked(char *data, size_t length, size_t *body)
{
	size_t at = 0, out = 0, size;
	bool decoded = false;

	for (;; decoded = true, at = out = 0) {
		do { /* the first pass only measures: the input must stay whole until then */
			char *end = memmem(data + at, length - at, "\r\n", 2);
			if (!end)
				return 0;
			size = strtoul(data + at, NULL, 16);
			size_t start = end + 2 - data;
			if (start + size + 2 > length)
				return 0;
			if (decoded)
				memmove(data + out, data + start, size);
			out += size;
			at = start + size + 2;
		} while (size);
		*body = out;
		if (decoded)
			return at;
	}
}

/* Reads one request off the input. Returns false while it is not whole. */
static bool parse(struct connection *connection, struct request *request)
{
	char *input = connection->input, *end = memmem(input, connection->length, "\r\n\r\n", 4);

	if (!end || sscanf(input, "%15s %255s", request->method, request->path) != 2)
		return false;
	char saved = end[4];
	end[4] = 0;
	const char *length = header(input, "content-length:");
	const char *coding = header(input, "transfer-encoding:");
	const char *connect = header(input, "connection:");
	bool expects = header(input, "expect:") != NULL;
	request->head = end + 4 - input;
	request->old = !!strstr(input, " HTTP/1.0\r\n");
	request->close = request->old || (connect && !strncasecmp(connect, "close", 5)) ||
			 !strncmp(request->path, "/close/", 7);
	request->body = length ? strtoul(length, NULL, 10) : 0;
	end[4] = saved;
	request->head_only = !strcmp(request->method, "HEAD");
	request->id = strrchr(request->path, '/') + 1;
	request->wire = request->body;
	size_t rest = connection->length - request->head;
	bool whole = rest >= request->wire;
	if (coding) {
		request->wire = decode_chunked(end + 4, rest, &request->body);
		whole = request->wire > 0;
	}
	if (!whole && expects && !connection->continued) {
		connection->continued = true;
		print(connection, "HTTP/1.1 100 Continue\r\n\r\n");
		flush(connection);
	}
	return whole;
}

static void serve_input(struct connection *connection)
{
	struct request request = { 0 };

	while (!connection->ending && connection->length) {
		if (options.log)
			clock_gettime(CLOCK_MONOTONIC, &request.started);
		if (!parse(connection, &request))
			break;
		serve(connection, &request, connection->input + request.head);
		connection->continued = false;
		size_t used = request.head + request.wire;
		connection->length -= used;
		memmove(connection->input, connection->input + used, connection->length);
		if (request.close) {
			connection->ending = true;
			flush(connection);
			act(connection, SHUTDOWN);
		}
	}
	flush(connection);
	if (options.log)
		fflush(options.log);
}

/* Returns false when the peer has ended the connection. One byte of room is for parse()'s mark. */
static bool receive(struct connection *connection)
{
	char drain[4096];

	for (;;) {
		size_t room = sizeof(connection->input) - 1 - connection->length;
		ssize_t got = connection->ending
				      ? recv(connection->fd, drain, sizeof(drain), 0)
				      : recv(connection->fd, connection->input + connection->length, room, 0);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		if (got == 0)
			return false;
		if (connection->ending)
			continue;
		connection->length += got;
		if ((size_t)got < room)
			return true;
	}
}

static void accept_all(int epoll, int listener)
{
	int fd, on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct connection *connection = malloc(sizeof(*connection));
		if (!connection)
			fail("malloc");
		memset(connection, 0, offsetof(struct connection, input));
		connection->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (options.zerocopy && setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)))
			fail("SO_ZEROCOPY");
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	}
}

static void loop(int epoll, int listener)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			struct connection *connection = events[i].data.ptr;
			if (!connection) {
				accept_all(epoll, listener);
				continue;
			}
			if (events[i].events & EPOLLERR)
				reap_zerocopy(connection->fd);
			bool open = receive(connection);
			serve_input(connection);
			if (!open) {
				epoll_ctl(epoll, EPOLL_CTL_DEL, connection->fd, NULL);
				act(connection, CLOSE);
			}
		}
	}
}

static void read_options(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "p:s:c:l:ztb")) != -1) {
		switch (option) {
		case 'p': options.port = atol(optarg); break;
		case 's': options.size = atol(optarg); break;
		case 'c': options.cpu = atol(optarg); break;
		case 'z': options.zerocopy = true; break;
		case 't': options.threads = true; break;
		case 'b': options.batch = true; break;
		case 'l':
			options.log = fopen(optarg, "a");
			if (!options.log)
				fail(optarg);
			break;
		default: exit(2);
		}
	}
	if (options.size > INPUT_MAX || (options.zerocopy && options.threads)) {
		fprintf(stderr, "-s is at most %d, and -z does not go with -t\n", INPUT_MAX);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	int on = 1;
	pthread_t thread;

	read_options(argc, argv);
	memset(fill, 'b', sizeof(fill));
	signal(SIGPIPE, SIG_IGN);
	if (options.cpu >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(options.cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			fail("sched_setaffinity");
	}
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(options.port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1024))
		fail("listen");
	if (options.threads && pthread_create(&thread, NULL, writer, NULL))
		fail("pthread_create");
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	loop(epoll, listener);
}
