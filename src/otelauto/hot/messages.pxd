# SPDX-License-Identifier: Apache-2.0
# The messages in one direction of a gRPC call, each behind a flag and a length (PROTOCOL-HTTP2.md).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from otelauto.hot.frames cimport big_endian

cdef enum:
    PREFIX = 5  # of a message: compressed flag and length
    TRAILER_FLAG = 0x80  # gRPC-Web: the message is the trailers
    TRAILERS_MAX = 1024  # bytes kept of them

cdef struct Count:
    # ``size`` is that of whole messages, without their prefixes.
    bint wanted
    bint inexact  # bytes that tell are missing
    bint foreign  # another format
    bint trailing  # the message at hand is the trailers
    uint8_t prefix[PREFIX]
    uint32_t prefix_size
    uint32_t left  # of the message at hand
    uint32_t trailers_size
    uint64_t messages
    uint64_t size
    uint8_t* trailers


cdef inline int feed(Count* c, const uint8_t* data, uint32_t size) except -1:
    """Take the next known bytes of a body."""
    cdef uint32_t moved
    while size and not c.inexact:
        if c.left:
            moved = min(c.left, size)
            if c.trailing:
                keep_trailers(c, data, moved)
            c.left -= moved
        else:
            moved = min(PREFIX - c.prefix_size, size)
            memcpy(c.prefix + c.prefix_size, data, moved)
            c.prefix_size += moved
            if c.prefix_size == PREFIX:
                c.prefix_size = 0
                begin(c)
        data += moved
        size -= moved
    return 0


cdef inline void begin(Count* c) noexcept nogil:
    c.foreign = c.foreign or c.prefix[0] > 1
    c.trailing = c.prefix[0] & TRAILER_FLAG != 0
    c.left = big_endian(c.prefix + 1)
    if not c.trailing:
        c.messages += 1
        c.size += c.left


cdef inline int keep_trailers(Count* c, const uint8_t* data, uint32_t size) except -1:
    if c.trailers == NULL:
        c.trailers = <uint8_t*> malloc(TRAILERS_MAX)
        if c.trailers == NULL:
            raise MemoryError
    size = min(size, TRAILERS_MAX - c.trailers_size)
    memcpy(c.trailers + c.trailers_size, data, size)
    c.trailers_size += size
    return 0


cdef inline void skip(Count* c, uint32_t count) noexcept nogil:
    """``count`` bytes of the body passed that nobody saw."""
    if count <= c.left and not c.trailing:
        c.left -= count
    else:
        c.inexact = True


cdef inline bint proves(const Count* c) noexcept nogil:
    """Whether the body was whole messages, one at least, that no other format looks like."""
    return c.messages > 0 and not (c.inexact or c.left or c.prefix_size or c.foreign)
