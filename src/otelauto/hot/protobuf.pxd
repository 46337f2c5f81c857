# SPDX-License-Identifier: Apache-2.0
# The little of the protobuf wire format that spans and histograms need.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint32_t varint_size(uint64_t value) noexcept nogil:
    cdef uint32_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t> (value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline uint8_t* put_constant(uint8_t* at, bytes constant) noexcept:
    memcpy(at, PyBytes_AS_STRING(constant), PyBytes_GET_SIZE(constant))
    return at + PyBytes_GET_SIZE(constant)


cdef inline uint8_t* put_fixed64(uint8_t* at, uint8_t tag, uint64_t value) noexcept nogil:
    cdef uint32_t i
    at[0] = tag
    for i in range(8):
        at[1 + i] = <uint8_t> (value >> (8 * i))
    return at + 9


cdef inline uint8_t* put_double(uint8_t* at, uint8_t tag, double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, sizeof(bits))
    return put_fixed64(at, tag, bits)
