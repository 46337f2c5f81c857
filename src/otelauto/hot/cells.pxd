# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport int64_t, uint64_t

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
    cdef void add(self, double value) noexcept
