# SPDX-License-Identifier: Apache-2.0
# The shape of a path: segments that look like identifiers are ``*``. Paths of one shape have one
# route, so what is remembered is of shapes: there are few of them, and ever new paths.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy

cdef enum:
    # As in spans/templates.py, which says what they mean; tests/hot/test_shapes.py compares.
    LONG_SEGMENT = 40
    HEX_WITH_DIGIT = 8
    HEX_WITHOUT_DIGIT = 16
    TOKEN = 20
    RANDOM_LETTERS = 25

cdef struct Letters:
    uint32_t digits
    uint32_t letters
    uint32_t hexadecimal  # digits, a to f, A to F and the hyphen
    bint marked  # by an @ or a %


cdef inline void count(Letters* seen, uint8_t c) noexcept nogil:
    if c - 48u <= 9u:
        seen.digits += 1
        seen.hexadecimal += 1
    elif (c | 0x20u) - 97u <= 25u:
        seen.letters += 1
        seen.hexadecimal += (c | 0x20u) <= 102u
    elif c == 45:
        seen.hexadecimal += 1
    elif c == 64 or c == 37:
        seen.marked = True


cdef inline bint is_separator(uint8_t c) noexcept nogil:
    return memchr(b"-_.:~,;=", c, 8) != NULL


cdef inline bint has_id_token(const uint8_t* at, uint32_t size) noexcept nogil:
    """Whether a part between separators is an identifier."""
    cdef Letters seen
    cdef uint32_t i, length = 0
    seen.digits = seen.letters = seen.hexadecimal = 0
    for i in range(size + 1):
        if i < size and not is_separator(at[i]):
            count(&seen, at[i])
            length += 1
            continue
        if seen.digits and (
            (seen.digits == length and length >= 2)
            or (seen.hexadecimal == length and length >= HEX_WITH_DIGIT)
            or length >= TOKEN
        ):
            return True
        seen.digits = seen.letters = seen.hexadecimal = length = 0
    return False


cdef inline bint is_id(const uint8_t* at, uint32_t size) noexcept nogil:
    """Whether a segment names one thing among many, judged by its characters alone."""
    cdef Letters seen
    cdef uint32_t i
    if size == 0:
        return False
    seen.digits = seen.letters = seen.hexadecimal = 0
    seen.marked = False
    for i in range(size):
        count(&seen, at[i])
    if seen.digits == size:
        return True
    if seen.letters == size:
        return (size >= HEX_WITHOUT_DIGIT and seen.hexadecimal == size) or size >= RANDOM_LETTERS
    if size > LONG_SEGMENT or seen.marked:
        return True
    if not seen.digits:
        return seen.letters >= HEX_WITHOUT_DIGIT and seen.hexadecimal == size
    if not seen.letters or (seen.hexadecimal == size and size >= HEX_WITH_DIGIT):
        return True
    if seen.digits >= 3 and seen.digits * 3 >= size:
        return True
    return has_id_token(at, size)


cdef inline uint32_t write_shape(uint8_t* to, const uint8_t* path, uint32_t size) noexcept nogil:
    """Write the shape of ``path``, which is not longer; returns its size."""
    cdef const uint8_t* end = path + size
    cdef const uint8_t* slash
    cdef uint8_t* began = to
    while True:
        slash = <const uint8_t*> memchr(path, 47, end - path)
        if slash == NULL:
            slash = end
        if is_id(path, <uint32_t> (slash - path)):
            to[0] = 42
            to += 1
        else:
            memcpy(to, path, slash - path)
            to += slash - path
        if slash == end:
            return <uint32_t> (to - began)
        to[0] = 47
        to += 1
        path = slash + 1
