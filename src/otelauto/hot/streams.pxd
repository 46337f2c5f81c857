# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from otelauto.hot.hpack cimport Decoder
from otelauto.hot.http1 cimport Span as Text
from otelauto.hot.messages cimport Count

cdef enum:
    BUCKETS = 64

cdef enum Call:
    # How a request carries a remote procedure call.
    NO_CALL
    GRPC
    GRPC_WEB
    GRPC_WEB_TEXT
    CONNECT_STREAM
    CONNECT_UNARY

cdef enum Fate:
    WHOLE
    ABORTED
    LOST

cdef struct Moved:
    # How bytes passed.
    uint64_t time
    uint32_t tcp_sequence
    uint32_t tgid
    uint32_t tid

cdef struct Origin:
    # When a frame began to pass, and where in TCP's numbering.
    uint64_t time
    uint32_t tcp_sequence

cdef struct Message:
    # One half of an exchange.
    bint there
    bint complete
    bint inexact
    bint truncated
    bint has_body
    int64_t declared  # length of its content by its head, -1 without one
    uint64_t start_ns
    uint64_t end_ns
    uint64_t body_size  # the content of its DATA frames
    uint32_t tcp_sequence
    uint32_t head_size
    uint32_t unknown
    Count count
    bint keeps  # its content, as far as it is known without a gap
    uint32_t kept  # bytes of it
    uint8_t* content

cdef struct Exchange:
    uint32_t number
    uint32_t tgid
    uint32_t tid
    uint8_t call
    uint8_t fate
    bint suspect  # its response may have ended unseen
    int64_t reset  # an error code, -1 without one
    uint16_t status
    Message request
    Message response
    Text method
    Text target
    Text scheme
    Text authority
    Text user_agent
    Text traceparent
    Text timeout
    Text grpc_status
    Text grpc_message
    size_t room  # of what follows
    uint8_t* asked  # the texts of the request
    uint8_t* said  # and of the response
    Exchange* chained  # in its bucket
    Exchange* older
    Exchange* newer

cdef class Streams:
    cdef object make
    cdef object may_ask  # whether the content of a request may name an operation; None: nobody asks
    cdef Exchange* buckets[BUCKETS]
    cdef Exchange* oldest
    cdef Exchange* newest
    cdef Exchange* ended  # and not taken yet, in order
    cdef Exchange* ended_last
    cdef Message* passing[2]  # of which a payload passes; NULL: of none that is known
    cdef uint32_t open
    cdef size_t held
    cdef uint32_t last  # highest stream that the client has opened
    cdef bint unsure  # the server may send header blocks for streams that are not known
    cdef uint64_t unmatched  # responses of requests that were not seen
    cdef uint64_t exchanges  # that ended
    cdef object described(self, Exchange* x)
    cdef list take_ended(self)
    cdef int on_request(
        self, Decoder block, uint32_t number, uint32_t size, Origin origin, const Moved* moved, bint cut
    ) except -1
    cdef int on_response(
        self, Decoder block, uint32_t number, uint32_t size, Origin origin, bint cut
    ) except -1
    cdef int take_status(self, Exchange* x, const Text* fields) except -1
    cdef void place(self, Exchange* x) noexcept
    cdef int keep(self, Message* m, const uint8_t* data, uint32_t size) except -1
    cdef void drop(self, Message* m) noexcept
    cdef Exchange* find(self, uint32_t number) noexcept
    cdef void end(self, Exchange* x, bint asks, uint64_t time_ns) noexcept
    cdef void abort(self, Exchange* x, uint32_t code, uint64_t time_ns) noexcept
    cdef bint settle(self, Exchange* x, uint64_t time_ns) noexcept
    cdef void finish(self, Exchange* x) noexcept
    cdef Exchange* shift(self) noexcept

cdef void discard(Exchange* x) noexcept
