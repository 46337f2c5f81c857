# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from otelauto.hot.frames cimport Frame
from otelauto.hot.hpack cimport Decoder
from otelauto.hot.streams cimport Moved, Origin, Streams

cdef enum Taken:
    # What became of bytes.
    READ
    DOUBTED  # what follows has to be told to be a frame
    REFUSED  # they make no sense

cdef struct Half:
    # One direction. ``left`` bytes of a payload are still to pass.
    bint asks
    bint lost
    bint preface  # to be passed first
    bint ends  # the payload at hand ends its stream
    bint blocked  # a header block goes on with CONTINUATION
    bint suspecting  # header blocks may have been missed
    uint32_t suspects  # exchanges of which it is open
    uint32_t left
    uint32_t content  # of ``left``, without padding
    uint32_t stream  # of the payload, or of the block
    uint8_t flags  # of the block
    uint8_t kind
    Origin began
    uint8_t* block
    uint32_t block_size
    uint8_t* carried  # the beginning of a frame
    uint32_t carried_size
    uint32_t carried_room
    uint64_t carried_ns
    uint32_t carried_tcp

cdef class Session:
    cdef Half halves[2]  # of requests and of responses
    cdef Decoder requests
    cdef Decoder responses
    cdef Streams streams
    cdef Moved moved
    cdef readonly uint64_t passed  # bytes since somebody asked

    cdef int take(
        self, bint asks, const uint8_t* data, uint32_t size, uint64_t unseen, const Moved* moved
    ) except -1
    cdef Decoder decoder(self, Half* half)
    cdef bint passes_preface(
        self, Half* half, const uint8_t* data, uint32_t size, bint whole, uint32_t* used
    ) noexcept
    cdef int hole(
        self, Half* half, const uint8_t* data, uint32_t size, uint64_t unseen, Origin origin
    ) except -1
    cdef int carry(self, Half* half, const uint8_t* data, uint32_t size) except -1
    cdef bint finds_place(self, const uint8_t* data, uint32_t size) noexcept
    cdef void doubt_half(self, Half* half) noexcept
    cdef bint is_intact(self, Half* half, uint32_t number, uint8_t flags) noexcept
    cdef bint walk(
        self, Half* half, const uint8_t* data, uint32_t size, uint32_t joint, uint32_t* used
    ) except -1
    cdef int pass_payload(self, Half* half, const uint8_t* data, uint32_t size) except -1
    cdef int pass_unseen(self, Half* half, uint32_t count) except -1
    cdef int cut_head(self, Half* half, const uint8_t* data, uint32_t size, Origin origin) except -1
    cdef bint begin_data(self, Half* half, Frame frame, const uint8_t* payload) noexcept
    cdef bint on_frame(self, Half* half, Frame frame, const uint8_t* data, Origin origin) except -1
    cdef bint on_head(
        self, Half* half, Frame frame, const uint8_t* data, uint32_t size, Origin origin, bint cut
    ) except -1
    cdef bint on_block(self, Half* half, const uint8_t* data, uint32_t size, bint cut) except -1
    cdef int end(self, Half* half, uint32_t number) except -1
