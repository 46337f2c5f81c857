# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from otelauto.hot.http1 cimport Span as Text

cdef enum:
    # Header fields that somebody asks for. Of the others only the sizes count.
    OTHER
    METHOD
    PATH
    SCHEME
    AUTHORITY
    STATUS
    HOST
    USER_AGENT
    TRACEPARENT
    CONTENT_TYPE
    CONTENT_LENGTH
    CONNECT_VERSION
    GRPC_TIMEOUT
    GRPC_STATUS
    GRPC_MESSAGE
    NAMES

cdef struct Kept:
    # The value of an entry; its bytes follow.
    Kept* next

cdef struct Field:
    bint known
    uint8_t name
    uint32_t name_size
    Text value

cdef struct Entry:
    uint8_t name
    bint known  # false: inserted, not known
    uint32_t name_size
    uint32_t value_size
    Kept* value  # NULL: nobody asks for it

cdef class Decoder:
    cdef Text fields[NAMES]  # of the last block; a NULL text is absent
    cdef uint32_t unknown  # fields of the last block of which name or value is not known
    cdef readonly bint complete  # every entry is known
    cdef Entry* entries  # a ring, oldest first
    cdef uint32_t room  # of the ring; a power of two
    cdef uint32_t first
    cdef uint32_t count
    cdef uint64_t size
    cdef uint64_t limit
    cdef Kept* gone  # values of entries that went, which the last block may refer to
    cdef bint read(self, const uint8_t* data, uint32_t size, bint cut) except -1
    cdef void lost(self) noexcept
    cdef void release(self) noexcept
    cdef int walk(self, const uint8_t* data, uint32_t size) except -1
    cdef void resize(self, uint64_t limit) noexcept
    cdef int literal(
        self, const uint8_t* data, uint32_t size, uint32_t* at, uint8_t** spare
    ) except -1
    cdef int find(self, uint64_t index, Field* field) noexcept
    cdef int insert(self, const Field* field) except -1
    cdef void evict(self, uint32_t keep) noexcept
