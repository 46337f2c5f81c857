# SPDX-License-Identifier: Apache-2.0
# HTTP/2 frames (RFC 9113, sections 4 and 6): their headers, what tells them from other bytes.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    HEADER = 9  # bytes
    STREAM_MASK = 0x7fffffff
    LENGTH_MAX = 1048576  # ours: a longer frame is not believed
    GOAWAY_MIN = 8
    SETTING = 6

cdef enum Kind:
    DATA
    HEADERS
    PRIORITY
    RST_STREAM
    SETTINGS
    PUSH_PROMISE
    PING
    GOAWAY
    WINDOW_UPDATE
    CONTINUATION
    ALTSVC  # RFC 7838
    ORIGIN = 12  # RFC 8336
    PRIORITY_UPDATE = 16  # RFC 9218

cdef enum Flag:
    END_STREAM = 1  # of SETTINGS and PING: ACK
    END_HEADERS = 4
    PADDED = 8
    PRIORITIZED = 32

cdef enum Plausible:
    NO
    SHORT  # less than a whole frame of a kind that tells
    YES

cdef struct Frame:
    uint32_t length
    uint32_t stream
    uint8_t kind
    uint8_t flags


cdef inline uint32_t big_endian(const uint8_t* at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline Frame read_frame(const uint8_t* at) noexcept nogil:
    cdef Frame frame
    frame.length = big_endian(at) >> 8
    frame.kind = at[3]
    frame.flags = at[4]
    frame.stream = big_endian(at + 5)
    return frame


cdef inline bint is_plausible(Frame frame) noexcept nogil:
    """Whether a frame header says what a sender would, by section 6 (strict)."""
    cdef uint8_t kind = frame.kind, flags = frame.flags
    cdef uint32_t length = frame.length
    if length > LENGTH_MAX or frame.stream > STREAM_MASK:
        return False
    if kind == Kind.SETTINGS:
        return (not frame.stream and not flags & ~END_STREAM and length % SETTING == 0
                and not (flags and length))
    if kind == Kind.PING:
        return not frame.stream and not flags & ~END_STREAM and length == 8
    if kind == Kind.GOAWAY:
        return not frame.stream and not flags and length >= GOAWAY_MIN
    if kind == Kind.WINDOW_UPDATE:
        return not flags and length == 4
    if kind > Kind.CONTINUATION:
        return kind == Kind.ALTSVC or kind == Kind.ORIGIN or kind == Kind.PRIORITY_UPDATE
    if not frame.stream:
        return False
    if kind == Kind.DATA:
        return not flags & ~(END_STREAM | PADDED)
    if kind == Kind.HEADERS:
        return not flags & ~(END_STREAM | END_HEADERS | PADDED | PRIORITIZED)
    if kind == Kind.PUSH_PROMISE:
        return not flags & ~(END_HEADERS | PADDED)
    if kind == Kind.CONTINUATION:
        return not flags & ~END_HEADERS
    return not flags and length == (5 if kind == Kind.PRIORITY else 4)


cdef inline int chain(const uint8_t* data, uint32_t size) noexcept nogil:
    """Whether ``data`` begins at a frame: every frame header in it must be plausible.

    A header is not much of a proof for a DATA frame whose end is not there.
    """
    cdef uint32_t at = 0
    cdef bint proved = False
    cdef Frame frame
    while at <= size and size - at >= HEADER:
        frame = read_frame(data + at)
        if not is_plausible(frame):
            return NO
        at += HEADER + frame.length
        if (frame.kind != Kind.DATA and frame.kind != Kind.CONTINUATION) or at == size:
            proved = True
        if at <= size and size - at >= HEADER:
            proved = True  # by the next header, which is looked at now
    return YES if proved else SHORT


cdef inline bint fragment(
    const uint8_t** payload, uint32_t* size, uint8_t flags, uint32_t skipped, bint cut
) noexcept nogil:
    """Narrow the payload of HEADERS or PUSH_PROMISE down to its header block fragment.

    ``skipped`` bytes come before it (sections 6.2, 6.6); of a ``cut`` payload the end is missing.
    False: the padding takes more than there is.
    """
    cdef uint32_t begin = skipped, end = size[0]
    if flags & PADDED:
        if size[0] == 0:
            return False
        begin += 1
        if not cut:
            if payload[0][0] > end:
                return False
            end -= payload[0][0]
    if flags & PRIORITIZED:
        begin += 5
    if begin > end:
        size[0] = 0
        return cut
    payload[0] += begin
    size[0] = end - begin
    return True
