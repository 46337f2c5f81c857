# Generated from the BTF of bpf/*.bpf.o by `make abi`. Do not edit.
"""The contract with the kernel half (bpf/abi.h): records, enumerations, unit types."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple, NewType

Cookie = NewType("Cookie", int)
KtimeNs = NewType("KtimeNs", int)
PortHost = NewType("PortHost", int)
Tgid = NewType("Tgid", int)
Tid = NewType("Tid", int)


class AbiLimit(enum.IntEnum):
    CAPTURE_MAX = 16384
    VECTORS_MAX = 192
    VECTORS_MAX_FUNCTIONS = 64
    SMALL_SEGMENT = 256
    UNIX_PATH_MAX = 108
    PORT_WORDS = 1024
    BEGINNING_SIZE = 8


class RecordKind(enum.IntEnum):
    RECORD_OPENING = 1
    RECORD_SEGMENT = 2
    RECORD_ENDING = 3


class Direction(enum.IntEnum):
    DIRECTION_RECEIVED = 0
    DIRECTION_SENT = 1


class CaptureMode(enum.IntEnum):
    MODE_STREAM = 0
    MODE_HEADS = 1
    MODE_NOTHING = 2


class SegmentFlag(enum.IntFlag):
    FLAG_TURN_START = 1
    FLAG_MIDSTREAM = 2
    FLAG_TAIL = 4
    FLAG_UNREAD = 8
    FLAG_TRUNCATED = 16
    FLAG_RECEIVE_ENDED = 32
    FLAG_SEND_ENDED = 64
    FLAG_CLOSED = 128
    FLAG_RESET = 256


class SocketRole(enum.IntEnum):
    ROLE_UNKNOWN = 0
    ROLE_CLIENT = 1
    ROLE_SERVER = 2


class EndpointKind(enum.IntEnum):
    ENDPOINT_REMOTE = 0
    ENDPOINT_LOCAL = 1
    ENDPOINT_BEGINNING = 2


class ProcessEventKind(enum.IntEnum):
    PROCESS_EXEC = 1
    PROCESS_FORK = 2
    PROCESS_EXIT = 3
    PROCESS_LISTEN = 4
    PROCESS_TLS = 5


class TargetState(enum.IntEnum):
    TARGET_WATCHED = 1
    TARGET_EXCLUDED = 2


class Counter(enum.IntEnum):
    RECORDS_PRODUCED = 0
    DROP_RING_FULL = 1
    DROP_STATE_REFUSED = 2
    DROP_EVENT_RING_FULL = 3
    UNREAD_FAULT = 4
    UNREAD_COMPAT_TASK = 5
    UNREAD_OTHER_CALL = 6
    UNREAD_MESSAGE_TRUNC = 7
    UNREAD_VECTORS = 8
    BYTES_UNREAD = 9
    BYTES_UNSEEN = 10
    EVENTS_PRODUCED = 11
    DROP_TARGET_REFUSED = 12
    UNREAD_PLAINTEXT_BUSY = 13
    UNREAD_PLAINTEXT_CALL = 14
    COUNTER_COUNT = 15


class TlsCall(enum.IntEnum):
    TLS_READ = 1
    TLS_READ_OUT = 2
    TLS_WRITE = 3
    TLS_WRITE_OUT = 4
    TLS_HANDSHAKE = 5
    TLS_FREE = 6
    TLS_LEAVES = 256


class Opening(NamedTuple):
    kind: int
    role: int
    family: int
    sequence: int
    connection: Cookie
    time: KtimeNs
    tgid: Tgid
    tid: Tid
    netns: int
    local_port: PortHost
    remote_port: PortHost
    inode: int
    local: bytes
    remote: bytes
    protocol: int
    path_length: int
    plaintext: int
    carrier: Cookie


OPENING: Final = struct.Struct("<BBHIQQIIIHHQ16s16sHHB3xQ")


class Segment(NamedTuple):
    kind: int
    direction: int
    flags: int
    sequence: int
    connection: Cookie
    time: KtimeNs
    offset: int
    length: int
    captured: int
    tgid: Tgid
    tid: Tid
    tcp_sequence: int
    unseen: int
    tail: bytes


SEGMENT: Final = struct.Struct("<BBHIQQQIIIIII8s")


class ProcessEvent(NamedTuple):
    kind: int
    port: PortHost
    tgid: Tgid
    parent: Tgid
    netns: int
    time: KtimeNs


PROCESS_EVENT: Final = struct.Struct("<BxHIIIQ")


class EndpointKey(NamedTuple):
    address: bytes
    netns: int
    port: PortHost
    kind: int


ENDPOINT_KEY: Final = struct.Struct("<16sIHH")


class Verdict(NamedTuple):
    mode: int
    want_0: int
    want_1: int
    start_length_0: int
    start_length_1: int
    start_0: bytes
    start_1: bytes


VERDICT: Final = struct.Struct("<IIIII8s8s4x")
