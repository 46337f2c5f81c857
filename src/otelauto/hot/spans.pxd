# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from otelauto.hot.http1 cimport Span as Text

cdef struct Variable:
    # What differs between the spans of one row. A NULL text is absent. Sizes are of bodies, or of
    # the messages of a call.
    uint64_t start_ns
    uint64_t end_ns
    Text path
    Text user_agent
    Text message  # of a call's status
    Text traceparent
    bint has_request_size
    bint has_response_size
    bint has_request_messages
    bint has_response_messages
    bint has_timeout
    uint64_t request_size
    uint64_t response_size
    uint64_t request_messages
    uint64_t response_messages
    double timeout

cdef class Names:
    cdef bytes path, user_agent, request_size, response_size
    cdef bytes request_messages, response_messages, timeout, message
    cdef size_t size  # of all

cdef class Policy:
    # The trace number of a sampled span is below one of these.
    cdef uint64_t root, sampled, unsampled
    cdef bint always

cdef class Template:
    cdef Names names
    cdef Policy policy
    cdef bytes front  # name and kind
    cdef bytes back  # constant attributes and status
    cdef bytes url  # what comes before the path in url.full; None if the span has none
    cdef bytes url_name

cdef class Chunk:
    cdef uint8_t* data
    cdef size_t size
    cdef size_t room

cdef class Batch:
    cdef object service
    cdef Chunk chunk
    cdef list full
    cdef uint32_t count
    cdef uint8_t* reserve(self, size_t more) except NULL
    cdef int end_chunk(self) except -1
    cdef list taken(self)

cdef class Ids:
    cdef uint64_t state[4]
    cdef uint64_t next(self) noexcept
    cdef void take(self, uint8_t* to, uint32_t words) noexcept

cdef class Writer:
    cdef Ids ids
    cdef public long long wall_offset_ns
    cdef public uint64_t sample_below
    cdef public uint64_t sampled_out
    cdef public uint64_t unsampled
    cdef public uint64_t keep_slow_ns
    cdef public bint exemplars
    cdef uint8_t parent_flags
    cdef uint8_t written[24]
    cdef bint is_sampled(self, Policy policy, const uint8_t* trace_id, const Variable* v) noexcept
    cdef uint8_t* identity(self, uint8_t* at, Text traceparent) except NULL
    cdef bint write(self, Batch batch, Template template, bytes peer, const Variable* v) except -1
