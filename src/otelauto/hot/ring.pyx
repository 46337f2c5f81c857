# SPDX-License-Identifier: Apache-2.0
"""The walk over a BPF ring buffer (kernel/bpf/ringbuf.c)."""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define load_acquire(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    #define store_release(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire(const uint64_t* place) nogil
    uint32_t load_acquire_32 "load_acquire"(const uint32_t* place) nogil
    void store_release(uint64_t* place, uint64_t value) nogil

cdef uint32_t BUSY = 1u << 31
cdef uint32_t DISCARDED = 1u << 30
cdef uint32_t HEADER = 8
cdef uint64_t GIVE_BACK = 64 << 10  # bytes taken before their room is given back


cdef class Sink:
    """What takes records without a Python object for each."""

    cdef int record(self, const uint8_t* data, uint32_t size) except -1:
        raise NotImplementedError


def walk(
    uint64_t[::1] consumer, const uint64_t[::1] producer, const uint8_t[::1] data,
    uint64_t size, take,
):
    cdef uint64_t mask = size - 1
    cdef uint64_t position = consumer[0], end = load_acquire(&producer[0])
    cdef uint64_t give_back = position + GIVE_BACK
    cdef uint32_t header, length
    cdef const uint8_t* at
    cdef Sink sink = take if isinstance(take, Sink) else None
    cdef long taken = 0
    try:
        while position < end:
            at = &data[position & mask]
            header = load_acquire_32(<const uint32_t*> at)
            if header & BUSY:
                break
            length = header & (DISCARDED - 1)
            position += (length + HEADER + 7) & ~<uint64_t> 7
            if header & DISCARDED:
                continue
            taken += 1
            if sink is not None:
                sink.record(at + HEADER, length)
            else:
                take(PyMemoryView_FromMemory(<char*> at + HEADER, length, PyBUF_READ))
            if position >= give_back:
                store_release(&consumer[0], position)
                give_back = position + GIVE_BACK
    finally:
        store_release(&consumer[0], position)
    return taken
