/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A paced HTTP/1.1 client: load RATE SECONDS CONNECTIONS PATH PORT...
 *
 * Sends RATE requests per second in all over kept connections to the ports of 127.0.0.1, at the
 * times that the rate gives (not "as fast as answers come"); a request that finds every connection
 * busy is sent as soon as one is free; "late" in the result says that it happened. A '#' in PATH becomes a number that
 * changes with each request. When time is up it waits for the answers that are still to come, then
 * prints one JSON object. SIGTERM ends it early, in the same way. Exits with 1 at any error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_MAX = 1 << 16, EVENTS = 64, PATHS = 10000, IDLE_MAX = 4096 };

struct connection {
	int fd;
	size_t length;
	char input[INPUT_MAX];
};

static struct {
	const char *before, *after; /* of the path, around the number */
	bool numbered, late;
	long sent, answered;
	struct connection *idle[IDLE_MAX];
	int idle_count;
} load;

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void send_request(struct connection *connection)
{
	char text[512], number[16] = "";

	if (load.numbered)
		snprintf(number, sizeof(number), "%ld", load.sent % PATHS);
	int length = snprintf(text, sizeof(text),
			      "GET %s%s%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\n"
			      "Accept: */*\r\n\r\n",
			      load.before, number, load.after);
	if (send(connection->fd, text, length, MSG_NOSIGNAL) != length)
		fail("send");
	load.sent++;
}

/* Whether the answer at hand is whole. */
static bool whole(struct connection *connection)
{
	char *end = memmem(connection->input, connection->length, "\r\n\r\n", 4);

	if (!end)
		return false;
	*end = 0;
	char *length = strcasestr(connection->input, "\r\ncontent-length:");
	size_t body = length ? strtoul(length + 17, NULL, 10) : 0;
	*end = '\r';
	return connection->length >= (size_t)(end + 4 - connection->input) + body;
}

static void receive(struct connection *connection)
{
	ssize_t got = recv(connection->fd, connection->input + connection->length,
			   INPUT_MAX - connection->length, 0);

	if (got <= 0) {
		fprintf(stderr, "the server closed a connection: %s\n", got ? strerror(errno) : "");
		exit(1);
	}
	connection->length += got;
	if (!whole(connection))
		return;
	connection->length = 0;
	load.answered++;
	load.idle[load.idle_count++] = connection;
}

static void connect_one(int epoll, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct connection *connection = calloc(1, sizeof(*connection));
	int on = 1;

	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(connection->fd, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event))
		fail("epoll_ctl");
	load.idle[load.idle_count++] = connection;
}

/* Sends what is due. The longest unused connection goes first, so that all of them are used. */
static void send_due(long due)
{
	int used = 0;

	while (load.sent < due && used < load.idle_count)
		send_request(load.idle[used++]);
	load.idle_count -= used;
	memmove(load.idle, load.idle + used, load.idle_count * sizeof(*load.idle));
	if (load.sent < due)
		load.late = true;
}

static void run(int epoll, double rate, double seconds)
{
	struct epoll_event events[EVENTS];
	double started = now();

	for (;;) {
		double elapsed = now() - started;
		bool over = stopped || elapsed >= seconds;
		if (!over)
			send_due((long)(elapsed * rate));
		else if (load.answered == load.sent)
			break;
		if (elapsed > seconds + 10)
			fail("answers are lacking");
		int count = epoll_wait(epoll, events, EVENTS, 1);
		for (int i = 0; i < count; i++)
			receive(events[i].data.ptr);
	}
	printf("{\"requests\": %ld, \"seconds\": %.6f, \"late\": %s}\n", load.answered,
	       now() - started, load.late ? "true" : "false");
}

int main(int argc, char **argv)
{
	if (argc < 6 || atoi(argv[3]) < 1 || atoi(argv[3]) > IDLE_MAX) {
		fprintf(stderr, "usage: load RATE SECONDS CONNECTIONS PATH PORT...\n");
		return 2;
	}
	struct sigaction action = { .sa_handler = stop };
	sigaction(SIGTERM, &action, NULL);
	char *mark = strchr(argv[4], '#');
	load.numbered = mark != NULL;
	load.before = argv[4];
	load.after = mark ? mark + 1 : "";
	if (mark)
		*mark = 0;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < atoi(argv[3]); i++)
		connect_one(epoll, atoi(argv[5 + i % (argc - 5)]));
	run(epoll, atof(argv[1]), atof(argv[2]));
	return 0;
}
