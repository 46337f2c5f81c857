// SPDX-License-Identifier: Apache-2.0
/*
 * The test service on GNU libmicrohttpd, whose TLS is GnuTLS. Usage: microhttpd PORT; certificate and
 * key in the files that $TLS_CERT and $TLS_KEY name, access log in $ACCESS_LOG.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BODY_MAX = 1 << 20, PIECES = 5 };

struct exchange {
	char path[256], method[16];
	struct timespec started;
	long duration_us; /* until the answer is handed over */
	size_t received, sent;
	int status, piece;
	char body[BODY_MAX];
};

static int log_file;
static char big[200000];

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* The contents of the file that an environment variable names. */
static char *contents(const char *variable)
{
	static const size_t room = 1 << 16;
	const char *path = getenv(variable);
	FILE *file = path ? fopen(path, "r") : NULL;
	char *text = calloc(1, room);

	if (!file || !text || !fread(text, 1, room - 1, file))
		fail(variable);
	fclose(file);
	return text;
}

static void *begin(void *unused, const char *uri, struct MHD_Connection *connection)
{
	struct exchange *e = malloc(sizeof(*e));

	(void)unused, (void)connection;
	if (!e)
		fail("malloc");
	memset(e, 0, offsetof(struct exchange, body));
	snprintf(e->path, sizeof(e->path), "%s", uri);
	return e;
}

static ssize_t next_piece(void *context, uint64_t position, char *buffer, size_t room)
{
	struct exchange *e = context;
	int length;

	(void)position;
	if (e->piece == PIECES)
		return MHD_CONTENT_READER_END_OF_STREAM;
	length = snprintf(buffer, room, "piece %d\n", e->piece++);
	e->sent += length;
	return length;
}

static struct MHD_Response *bytes(struct exchange *e, const char *method, const void *data, size_t size)
{
	e->sent = strcmp(method, "HEAD") ? size : 0;
	return MHD_create_response_from_buffer(size, (void *)data, MHD_RESPMEM_MUST_COPY);
}

static struct MHD_Response *text(struct exchange *e, const char *method, const char *words)
{
	return bytes(e, method, words, strlen(words));
}

static bool is_kind(const struct exchange *e, const char *kind)
{
	return !strncmp(e->path, kind, strlen(kind));
}

static struct MHD_Response *answer(struct exchange *e, const char *method)
{
	struct MHD_Response *response;
	char words[300];

	e->status = 200;
	if (is_kind(e, "/status/")) {
		e->status = atoi(e->path + strlen("/status/"));
		return text(e, method, e->status == 204 || e->status == 304 ? "" : "status\n");
	}
	if (is_kind(e, "/echo/"))
		return bytes(e, method, e->body, e->received);
	if (is_kind(e, "/upload/")) {
		snprintf(words, sizeof(words), "%zu\n", e->received);
		return text(e, method, words);
	}
	if (is_kind(e, "/chunked/"))
		return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, next_piece, e, NULL);
	if (is_kind(e, "/big/"))
		return bytes(e, method, big, sizeof(big));
	if (is_kind(e, "/slow/")) {
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
		return text(e, method, "slow\n");
	}
	if (is_kind(e, "/close/")) {
		response = text(e, method, "closing\n");
		MHD_add_response_header(response, "Connection", "close");
		return response;
	}
	if (!strcmp(method, "DELETE")) {
		e->status = 204;
		return text(e, method, "");
	}
	snprintf(words, sizeof(words), "item %s\n", strrchr(e->path, '/') + 1);
	return text(e, method, words);
}

static long microseconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - then->tv_sec) * 1000000 + (now.tv_nsec - then->tv_nsec) / 1000;
}

static enum MHD_Result handle(void *unused, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *data,
			      size_t *size, void **context)
{
	struct exchange *e = *context;
	struct MHD_Response *response;
	enum MHD_Result result;

	(void)unused, (void)url, (void)version;
	if (!e->started.tv_sec) { /* the head only: more may follow */
		clock_gettime(CLOCK_MONOTONIC, &e->started);
		return MHD_YES;
	}
	if (*size) {
		if (e->received + *size > BODY_MAX)
			return MHD_NO;
		memcpy(e->body + e->received, data, *size);
		e->received += *size;
		*size = 0;
		return MHD_YES;
	}
	snprintf(e->method, sizeof(e->method), "%s", method);
	response = answer(e, method);
	result = MHD_queue_response(connection, e->status, response);
	e->duration_us = microseconds_since(&e->started);
	MHD_destroy_response(response);
	return result;
}

static int port_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *client =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return ntohs(((const struct sockaddr_in *)client->client_addr)->sin_port);
}

/* An exchange is over, its answer sent. */
static void end(void *unused, struct MHD_Connection *connection, void **context,
		enum MHD_RequestTerminationCode code)
{
	struct exchange *e = *context;
	char line[900];
	int length;

	(void)unused;
	if (!e)
		return;
	length = snprintf(line, sizeof(line),
			  "{\"id\": \"%s\", \"method\": \"%s\", \"path\": \"%s\", \"status\": %d, "
			  "\"request_bytes\": %zu, \"response_bytes\": %zu, \"duration_us\": %ld, "
			  "\"peer_port\": %d}\n",
			  strrchr(e->path, '/') + 1, e->method, e->path, e->status, e->received,
			  e->sent, e->duration_us, port_of(connection));
	if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK && write(log_file, line, length) != length)
		fail("write");
	free(e);
}

int main(int count, char **words)
{
	const char *path = getenv("ACCESS_LOG");
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct MHD_Daemon *daemon;

	if (count != 2 || !path)
		return 2;
	memset(big, 'b', sizeof(big));
	log_file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_file < 0)
		fail(path);
	address.sin_port = htons(atoi(words[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
					  MHD_USE_TLS,
				  0, NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, &address,
				  MHD_OPTION_HTTPS_MEM_CERT, contents("TLS_CERT"),
				  MHD_OPTION_HTTPS_MEM_KEY, contents("TLS_KEY"),
				  MHD_OPTION_URI_LOG_CALLBACK, begin, NULL,
				  MHD_OPTION_NOTIFY_COMPLETED, end, NULL, MHD_OPTION_END);
	if (!daemon)
		fail("MHD_start_daemon");
	for (;;)
		pause();
}
