# SPDX-License-Identifier: Apache-2.0
"""Every BPF program, map and link that the kernel holds, by the bpf() system call itself."""

from __future__ import annotations

import ctypes
import os
import struct

from tests.kernel.calls import LIBC

from otelauto.kernel.objects import BpfObject

SYS_BPF = 321
NEXT_ID = {"program": 11, "map": 12, "link": 31}  # BPF_{PROG,MAP,LINK}_GET_NEXT_ID
FD_BY_ID = {"program": 13, "map": 14, "link": 30}
INFO_BY_FD = 15
NEXT_KEY = 4
NAME_AT = {"program": 64, "map": 24}  # in struct bpf_prog_info and bpf_map_info


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    return int(LIBC.syscall(SYS_BPF, command, attributes, len(attributes)))


def ids(kind: str) -> set[int]:
    """The ids of all objects of that kind."""
    found = set()
    attributes = ctypes.create_string_buffer(12)
    while _bpf(NEXT_ID[kind], attributes) == 0:
        (_, following, _) = struct.unpack("<III", attributes.raw)
        found.add(following)
        struct.pack_into("<I", attributes, 0, following)
    return found


def everything() -> dict[str, set[int]]:
    return {kind: ids(kind) for kind in NEXT_ID}


def entries(bpf: BpfObject, name: str) -> int:
    """How many entries a hash map with keys of 8 bytes has (BPF_MAP_GET_NEXT_KEY)."""
    key = ctypes.create_string_buffer(8)
    found, first = 0, True
    while True:
        at = 0 if first else ctypes.addressof(key)
        packed = struct.pack("<IIQQ", bpf.map_fd(name), 0, at, ctypes.addressof(key))
        if _bpf(NEXT_KEY, ctypes.create_string_buffer(packed, len(packed))):
            return found
        found, first = found + 1, False


def name(kind: str, number: int) -> str:
    """The name of a program or map; "" if it is gone by now."""

    attributes = ctypes.create_string_buffer(struct.pack("<III", number, 0, 0), 12)
    fd = _bpf(FD_BY_ID[kind], attributes)
    if fd < 0:
        return ""
    try:
        info = ctypes.create_string_buffer(232)
        packed = struct.pack("<IIQ", fd, len(info), ctypes.addressof(info))
        request = ctypes.create_string_buffer(packed, len(packed))
        assert _bpf(INFO_BY_FD, request) == 0
        return info.raw[NAME_AT[kind] : NAME_AT[kind] + 16].split(b"\0")[0].decode()
    finally:
        os.close(fd)
