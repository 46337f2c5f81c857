# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    EXPONENTIAL_MAX = 160  # buckets, as the OpenTelemetry SDK specification advises
    SCALE_MAX = 20

cdef struct Exemplar:
    uint64_t time_ns  # 0: there is none
    double value
    uint8_t ids[24]

cdef struct Exponential:
    # counts[i] is of the bucket whose index is first + i.
    int scale
    int first
    int used
    uint64_t zeros
    uint64_t counts[EXPONENTIAL_MAX]

cdef class Epoch:
    cdef uint64_t value

cdef class Hits:
    cdef public int64_t count

cdef class Series:
    cdef readonly object attributes
    cdef readonly uint64_t start_ns
    cdef readonly uint64_t count
    cdef readonly double sum
    cdef readonly double minimum
    cdef readonly double maximum
    cdef double* bounds
    cdef uint64_t* counts
    cdef int size  # bounds; there is one more bucket
    cdef Exponential* exponential  # NULL: not wanted
    cdef Exemplar* exemplars  # one a bucket; NULL: there was none
    cdef int bucket(self, double value) noexcept
    cdef void add(self, double value) noexcept
    cdef int note(self, double value, uint64_t time_ns, const uint8_t* ids) except -1
