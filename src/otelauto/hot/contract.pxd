# SPDX-License-Identifier: Apache-2.0
# What compiled code knows of the contract (bpf/abi.h). tests/house/test_hot.py compares each field
# and number with otelauto/abi.py.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef packed struct Segment:
    uint8_t kind
    uint8_t direction
    uint16_t flags
    uint32_t sequence
    uint64_t connection
    uint64_t time
    uint64_t offset
    uint32_t length
    uint32_t captured
    uint32_t tgid
    uint32_t tid
    uint32_t tcp_sequence
    uint32_t unseen
    uint8_t tail[8]

cdef enum:
    CAPTURE_MAX = 16384
    RECORD_SEGMENT = 2
    FLAG_TURN_START = 1
    FLAG_TAIL = 4
    FLAG_UNREAD = 8
    FLAG_TRUNCATED = 16
