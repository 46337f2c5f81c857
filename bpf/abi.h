/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The contract: every record that crosses a ring and every number that both halves share.
 *
 * The user-space view (src/otelauto/abi.py) is generated from the BTF of the compiled objects by
 * `make abi`, is checked in, and is compared again when the objects are loaded. So: fixed-width
 * types only, shared numbers are enumerators (a macro never reaches BTF), pads are named, no
 * bit-fields, a variable payload comes last.
 *
 * Vocabulary. A *connection* is a socket of a watched process, named by its kernel socket cookie, or
 * the plaintext side of a TLS session in one, named by a number that no cookie reaches.
 * Each of its two *directions* is a byte stream with offsets that start at 0 when otelauto first
 * sees the socket. A *segment* is what one system call moved. A *turn* is a run of segments in one
 * direction, ended by bytes in the other.
 */
#ifndef OTELAUTO_ABI_H
#define OTELAUTO_ABI_H

typedef __u64 ktime_ns;   /* nanoseconds of CLOCK_BOOTTIME */
typedef __u64 cookie_t;   /* socket cookie: unique for the life of the kernel */
typedef __u16 port_host;  /* port in host byte order */
typedef __u32 tgid_t;     /* process id in the initial PID namespace */
typedef __u32 tid_t;      /* thread id in the initial PID namespace */

enum abi_limit {
	CAPTURE_MAX = 16384,   /* payload bytes of one record, at most; a power of two */
	VECTORS_MAX = 192,     /* I/O vectors read of one call, at most */
	VECTORS_MAX_FUNCTIONS = 64, /* in tier B, which has more programs to be verified */
	SMALL_SEGMENT = 256,   /* segments up to this are copied whatever the turn's budget */
	UNIX_PATH_MAX = 108,   /* sizeof(sun_path) */
	PORT_WORDS = 1024,     /* 64-bit words of the bitmap of wanted ports */
	BEGINNING_SIZE = 8,    /* first bytes of a stream that may decide how it is copied */
};

enum record_kind {
	RECORD_OPENING = 1,    /* struct opening: first sight of a connection */
	RECORD_SEGMENT = 2,    /* struct segment: bytes moved; payload may be empty */
	RECORD_ENDING = 3,     /* struct segment, length 0: a direction, or both, ended */
};

enum direction {
	DIRECTION_RECEIVED = 0, /* the watched process received the bytes */
	DIRECTION_SENT = 1,
};

enum capture_mode {
	MODE_STREAM = 0,       /* copy every segment (CAPTURE_MAX bytes of each) */
	MODE_HEADS = 1,        /* copy the first bytes of each turn */
	MODE_NOTHING = 2,      /* ciphertext or uninteresting: no records but the ending */
};

enum segment_flag {
	FLAG_TURN_START = 1,   /* first segment of its turn */
	FLAG_MIDSTREAM = 2,    /* earlier bytes of this direction passed before otelauto watched */
	FLAG_TAIL = 4,         /* the field tail holds the last bytes of the segment */
	FLAG_UNREAD = 8,       /* payload wanted but not readable; the reason is counted */
	FLAG_TRUNCATED = 16,   /* payload wanted but cut at CAPTURE_MAX or VECTORS_MAX */
	FLAG_RECEIVE_ENDED = 32, /* ending: the peer's stream is over (end of file was read) */
	FLAG_SEND_ENDED = 64,  /* ending: this side's stream is over (FIN queued) */
	FLAG_CLOSED = 128,     /* ending: the socket is gone; no record of the connection follows */
	FLAG_RESET = 256,      /* ending: closed by an error (reset by either side, timeout) */
};

enum socket_role {
	ROLE_UNKNOWN = 0,
	ROLE_CLIENT = 1,       /* connect() was seen */
	ROLE_SERVER = 2,       /* the passive open was seen */
};

enum process_event_kind {
	PROCESS_EXEC = 1,
	PROCESS_FORK = 2,      /* parent was watched, the child is watched already */
	PROCESS_EXIT = 3,
	PROCESS_LISTEN = 4,    /* a TCP socket began to listen on a wanted port */
	PROCESS_TLS = 5,       /* first call of a probed TLS library since nobody looked at sockets */
};

enum target_state {
	TARGET_WATCHED = 1,
	TARGET_EXCLUDED = 2,   /* never watched, also when everything else is */
};

/*
 * What is counted in the kernel, one slot a reason, summed over CPUs by user space.
 * RECORDS_PRODUCED = records that user space reads + DROP_RING_FULL, exactly.
 */
enum counter {
	RECORDS_PRODUCED = 0,
	DROP_RING_FULL = 1,        /* data ring had no room for a record */
	DROP_STATE_REFUSED = 2,    /* no memory for a socket's state (optmem_max) */
	DROP_EVENT_RING_FULL = 3,  /* event ring had no room for a process event */
	UNREAD_FAULT = 4,          /* user memory could not be read */
	UNREAD_COMPAT_TASK = 5,    /* 32-bit caller */
	UNREAD_OTHER_CALL = 6,     /* sendfile, splice, io_uring or a kernel-made send: no user buffer */
	UNREAD_MESSAGE_TRUNC = 7,  /* MSG_TRUNC: the kernel threw the bytes away */
	UNREAD_VECTORS = 8,        /* more I/O vectors than VECTORS_MAX */
	BYTES_UNREAD = 9,          /* bytes of the segments counted in UNREAD_* */
	BYTES_UNSEEN = 10,         /* bytes that TCP sequence numbers prove and no hook saw */
	EVENTS_PRODUCED = 11,      /* process events, delivered or dropped */
	DROP_TARGET_REFUSED = 12,  /* table of targets full: a watched process's child is not watched */
	UNREAD_PLAINTEXT_BUSY = 13, /* every place to put a record together was in use on the CPU */
	UNREAD_PLAINTEXT_CALL = 14, /* TLS call that another one on the thread displaced: unread */
	COUNTER_COUNT = 15,
};

/* First sight of a connection. Addresses are in network byte order, IPv4 in the first 4 bytes. */
struct opening {
	__u8 kind;             /* enum record_kind */
	__u8 role;             /* enum socket_role */
	__u16 family;          /* AF_INET, AF_INET6, AF_UNIX */
	__u32 sequence;        /* record number on this connection */
	cookie_t connection;
	ktime_ns time;
	tgid_t tgid;
	tid_t tid;
	__u32 netns;           /* inode of the network namespace */
	port_host local_port;
	port_host remote_port;
	__u64 inode;           /* of the socket's file; 0 if none */
	__u8 local[16];
	__u8 remote[16];
	__u16 protocol;        /* IPPROTO_TCP, IPPROTO_MPTCP, 0 for AF_UNIX */
	__u16 path_length;     /* AF_UNIX: bytes of the path that follow */
	__u8 plaintext;        /* 1: of a TLS session; addresses are zeros until they are proven */
	__u8 pad[3];
	cookie_t carrier;      /* plaintext: the socket proven to carry it; 0: none is */
	/* path_length bytes of path follow */
};

/* Bytes that one system call moved, or (RECORD_ENDING) the end of a direction. */
struct segment {
	__u8 kind;             /* enum record_kind */
	__u8 direction;        /* enum direction */
	__u16 flags;           /* enum segment_flag */
	__u32 sequence;        /* record number on this connection */
	cookie_t connection;
	ktime_ns time;         /* when the call returned */
	__u64 offset;          /* of the first byte in its direction; jumps over unseen bytes */
	__u32 length;          /* bytes moved */
	__u32 captured;        /* bytes of payload that follow */
	tgid_t tgid;           /* of the caller; of an ending: of the last data call */
	tid_t tid;
	__u32 tcp_sequence;    /* raw TCP sequence number of the first byte; 0 if not TCP */
	__u32 unseen;          /* bytes just before this segment that no hook saw */
	__u8 tail[8];          /* last bytes of a segment not wholly captured; needs FLAG_TAIL */
	/* captured bytes of payload follow */
};

/* How a function of a TLS library tells what it did: the attach cookie of its probe. */
enum tls_call {
	TLS_READ = 1,          /* f(session, buffer, size): bytes read, or no more than 0 */
	TLS_READ_OUT = 2,      /* f(session, buffer, size, *bytes): more than 0 if bytes were read */
	TLS_WRITE = 3,         /* f(session, buffer, size): bytes accepted, or no more than 0 */
	TLS_WRITE_OUT = 4,     /* f(session, buffer, size, *bytes): more than 0 if they were accepted */
	TLS_HANDSHAKE = 5,     /* f(session) */
	TLS_FREE = 6,          /* f(session): the end of it */
	TLS_LEAVES = 256,      /* Go, added to one of these: it is a return instruction */
};

struct process_event {
	__u8 kind;             /* enum process_event_kind */
	__u8 pad;
	port_host port;        /* PROCESS_LISTEN */
	tgid_t tgid;
	tgid_t parent;         /* PROCESS_FORK */
	__u32 netns;           /* PROCESS_LISTEN */
	ktime_ns time;
};

enum endpoint_kind {
	ENDPOINT_REMOTE = 0,
	ENDPOINT_LOCAL = 1,    /* listening; port is the local one, address is zeros */
	ENDPOINT_BEGINNING = 2, /* every connection that begins so; address holds BEGINNING_SIZE bytes */
};

/* Key and value of the table of learned endpoints. */
struct endpoint_key {
	__u8 address[16];
	__u32 netns;           /* 0 of a beginning, as port */
	port_host port;
	__u16 kind;            /* enum endpoint_kind */
};

struct verdict {
	__u32 mode;            /* enum capture_mode */
	__u32 want[2];         /* MODE_HEADS: bytes copied of a turn, by enum direction */
	__u32 start_length[2]; /* bytes of start that count; 0: none */
	__u8 start[2][8];      /* a segment that begins so is a message head, by enum direction */
	__u32 pad;
};

#endif
