# SPDX-License-Identifier: Apache-2.0

from libc.stdint cimport uint8_t, uint32_t

cdef class Sink:
    cdef int record(self, const uint8_t* data, uint32_t size) except -1
