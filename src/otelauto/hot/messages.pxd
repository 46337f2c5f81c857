# SPDX-License-Identifier: Apache-2.0
# The messages in one direction of a call of gRPC or Connect, each behind a flag and a length
# (PROTOCOL-HTTP2.md, PROTOCOL-WEB.md, connectrpc.com).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from otelauto.hot.frames cimport big_endian

cdef enum:
    PREFIX = 5  # of a message: compressed flag and length
    TRAILER_FLAG = 0x80  # gRPC-Web: the message is the trailers
    END_FLAG = 2  # Connect: the message is the end of the stream
    TRAILERS_MAX = 1024  # bytes kept of both
    GROUP = 4  # digits of base64 that are decoded together

cdef struct Count:
    # ``size`` is that of whole messages, without their prefixes.
    bint wanted
    bint inexact  # bytes that tell are missing
    bint foreign  # another format
    bint trailing  # the message at hand is no message but tells how the call ended
    bint encoded  # all of it is in base64
    uint8_t last  # the flag of such a message
    uint8_t digits[GROUP]
    uint32_t digits_size
    uint8_t prefix[PREFIX]
    uint32_t prefix_size
    uint32_t left  # of the message at hand
    uint32_t trailers_size
    uint64_t messages
    uint64_t size
    uint8_t* trailers


cdef inline int feed(Count* c, const uint8_t* data, uint32_t size) except -1:
    """Take the next known bytes of a body."""
    cdef uint8_t decoded[3]
    cdef uint32_t i, count
    if not c.encoded:
        return follow(c, data, size)
    for i in range(size):
        c.digits[c.digits_size] = data[i]
        c.digits_size += 1
        if c.digits_size == GROUP:
            c.digits_size = 0
            count = decode(decoded, c.digits)
            c.inexact = c.inexact or count == 0
            follow(c, decoded, count)
    return 0


cdef inline int digit(uint8_t c) noexcept nogil:
    """The value of a digit of base64 (RFC 4648, section 4), -1 if it is none."""
    if 65 <= c <= 90:
        return c - 65
    if 97 <= c <= 122:
        return c - 71
    if 48 <= c <= 57:
        return c + 4
    return 62 if c == 43 else 63 if c == 47 else -1


cdef inline uint32_t decode(uint8_t* to, const uint8_t* digits) noexcept nogil:
    """Up to three bytes of four digits. Messages may be padded one by one; 0: it is not base64."""
    cdef uint32_t count = 3 - (digits[3] == 61) - (digits[3] == 61 and digits[2] == 61)
    cdef uint32_t i, bits = 0
    for i in range(GROUP):
        if i <= count:
            if digit(digits[i]) < 0:
                return 0
            bits |= <uint32_t> digit(digits[i]) << (18 - 6 * i)
    to[0], to[1], to[2] = <uint8_t> (bits >> 16), <uint8_t> (bits >> 8), <uint8_t> bits
    return count


cdef inline int follow(Count* c, const uint8_t* data, uint32_t size) except -1:
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
    c.trailing = c.prefix[0] & c.last != 0
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
    if count <= c.left and not (c.trailing or c.encoded):
        c.left -= count
    else:
        c.inexact = True


cdef inline bint proves(const Count* c) noexcept nogil:
    """Whether the body was whole messages, one at least, that no other format looks like."""
    return c.messages > 0 and not (c.inexact or c.left or c.prefix_size or c.foreign)
