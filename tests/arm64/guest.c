// SPDX-License-Identifier: Apache-2.0
/*
 * The first and only process of an emulated arm64 machine: loads the BPF objects of /objects, lets
 * them see bytes that it sends to itself, and says what became of it. `passed` is its last word.
 */
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef __u8 u8;
#define bool _Bool
#include "abi.h"

#define MESSAGE_BYTES 24

static int failures;

static void check(bool good, const char *form, ...)
{
	va_list words;

	va_start(words, form);
	printf(good ? "ok      " : "failed  ");
	vprintf(form, words);
	printf("\n");
	va_end(words);
	failures += !good;
}

static int say(enum libbpf_print_level level, const char *form, va_list words)
{
	return level == LIBBPF_DEBUG ? 0 : vprintf(form, words);
}

static void prepare(void)
{
	struct ifreq loopback = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int any = socket(AF_INET, SOCK_DGRAM, 0);

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	check(!mount("proc", "/proc", "proc", 0, NULL), "/proc");
	check(!mount("sysfs", "/sys", "sysfs", 0, NULL), "/sys");
	check(!ioctl(any, SIOCSIFFLAGS, &loopback), "loopback");
	close(any);
	libbpf_set_print(say);
}

/* Programs at functions that this kernel lacks. */
static void leave_out(struct bpf_object *object, const struct btf *kernel)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object) {
		const char *section = bpf_program__section_name(program);
		const char *hook = strchr(section, '/');

		if (!strncmp(section, "f", 1) && hook &&
		    btf__find_by_name_kind(kernel, hook + 1, BTF_KIND_FUNC) < 0) {
			printf("absent  %s\n", section);
			bpf_program__set_autoload(program, 0);
		}
	}
}

static struct bpf_object *open_object(const char *name, const struct btf *kernel)
{
	char path[64];
	struct bpf_object *object;

	snprintf(path, sizeof(path), "/objects/%s.bpf.o", name);
	object = bpf_object__open_file(path, NULL);
	check(object != NULL, "%s is opened", name);
	if (object)
		leave_out(object, kernel);
	return object;
}

static bool load(struct bpf_object *object, const char *name)
{
	int error = bpf_object__load(object);

	check(!error, "%s is loaded (%d)", name, error);
	return !error;
}

static void attach(struct bpf_object *object)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object) {
		struct bpf_link *link = bpf_program__attach(program);

		check(link != NULL, "%s is attached (%d)", bpf_program__name(program),
		      link ? 0 : -errno);
	}
}

static int map_of(struct bpf_object *object, const char *name)
{
	return bpf_object__find_map_fd_by_name(object, name);
}

/* ---- what is sent, by which call, and what was seen of it ---- */

static const char *const CALLS[] = { "write", "sendto", "writev", "sendmsg", "sendmmsg" };
enum { CALL_COUNT = sizeof(CALLS) / sizeof(CALLS[0]) };
static int seen[CALL_COUNT][2];

static void make_message(char *message, int call)
{
	memset(message, 0, MESSAGE_BYTES);
	snprintf(message, MESSAGE_BYTES, "bytes by %s", CALLS[call]);
}

static long transfer(int call, int to, char *message, bool send)
{
	struct iovec parts[2] = { { message, 5 }, { message + 5, MESSAGE_BYTES - 5 } };
	struct mmsghdr slots[1] = { { .msg_hdr = { .msg_iov = parts, .msg_iovlen = 2 } } };
	long count;

	switch (call) {
	case 0:
		return send ? write(to, message, MESSAGE_BYTES) : read(to, message, MESSAGE_BYTES);
	case 1:
		return send ? sendto(to, message, MESSAGE_BYTES, 0, NULL, 0)
			    : recvfrom(to, message, MESSAGE_BYTES, 0, NULL, NULL);
	case 2:
		return send ? writev(to, parts, 2) : readv(to, parts, 2);
	case 3:
		return send ? sendmsg(to, &slots[0].msg_hdr, 0) : recvmsg(to, &slots[0].msg_hdr, 0);
	default:
		count = send ? sendmmsg(to, slots, 1, 0) : recvmmsg(to, slots, 1, 0, NULL);
		return count == 1 ? slots[0].msg_len : -1;
	}
}

static void exchange(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	int server;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bind(listener, (void *)&address, size);
	listen(listener, 1);
	getsockname(listener, (void *)&address, &size);
	check(!connect(client, (void *)&address, size), "connected");
	server = accept(listener, NULL, NULL);
	for (int call = 0; call < CALL_COUNT; call++) {
		char message[MESSAGE_BYTES];
		long sent, received;

		make_message(message, call);
		/* Back and forth: each is a turn of its own. */
		sent = transfer(call, call % 2 ? server : client, message, 1);
		received = transfer(call, call % 2 ? client : server, message, 0);
		check(sent == MESSAGE_BYTES && received == MESSAGE_BYTES, "%s: %ld, %ld bytes",
		      CALLS[call], sent, received);
	}
}

static int take(void *context, void *data, size_t size)
{
	const struct segment *segment = data;
	char message[MESSAGE_BYTES];

	if (segment->kind != RECORD_SEGMENT || size < sizeof(*segment) + MESSAGE_BYTES)
		return 0;
	for (int call = 0; call < CALL_COUNT; call++) {
		make_message(message, call);
		if (segment->captured == MESSAGE_BYTES && !memcmp(segment + 1, message, MESSAGE_BYTES))
			seen[call][segment->direction & 1]++;
	}
	return 0;
}

static void capture(struct bpf_object *sockets)
{
	__u32 tgid = getpid(), watched = TARGET_WATCHED, zero = 0;
	__u32 shared[3] = { 1 }; /* generation, wake_pending, sleeping */
	struct ring_buffer *ring = ring_buffer__new(map_of(sockets, "records"), take, NULL, NULL);

	check(!bpf_map_update_elem(map_of(sockets, "targets"), &tgid, &watched, BPF_ANY) &&
		      !bpf_map_update_elem(map_of(sockets, "shared"), &zero, shared, BPF_ANY),
	      "this process is watched");
	attach(sockets);
	exchange();
	ring_buffer__consume(ring);
	for (int call = 0; call < CALL_COUNT; call++)
		check(seen[call][DIRECTION_SENT] == 1 && seen[call][DIRECTION_RECEIVED] == 1,
		      "%s: seen %d times at the sender, %d at the receiver", CALLS[call],
		      seen[call][DIRECTION_SENT], seen[call][DIRECTION_RECEIVED]);
}

int main(void)
{
	static const char *const SHARED_MAPS[] = { "targets", "counters", "records", "events", "shared" };
	struct bpf_object *sockets, *processes, *functions;
	const struct btf *kernel;

	setvbuf(stdout, NULL, _IONBF, 0);
	prepare();
	kernel = btf__load_vmlinux_btf();
	check(kernel != NULL, "the kernel's types");
	sockets = open_object("sockets", kernel);
	processes = open_object("procs", kernel);
	functions = open_object("functions", kernel);
	if (functions)
		load(functions, "functions");
	if (sockets && processes && load(sockets, "sockets")) {
		for (unsigned int i = 0; i < sizeof(SHARED_MAPS) / sizeof(SHARED_MAPS[0]); i++)
			bpf_map__reuse_fd(bpf_object__find_map_by_name(processes, SHARED_MAPS[i]),
					  map_of(sockets, SHARED_MAPS[i]));
		if (load(processes, "procs"))
			attach(processes);
		capture(sockets);
	}
	printf(failures ? "%d failed\n" : "passed\n", failures);
	sync();
	reboot(RB_POWER_OFF);
}
