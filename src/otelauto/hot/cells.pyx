# SPDX-License-Identifier: Apache-2.0
"""Numbers that compiled code and Python both count in. The interpreter lock guards them."""

from libc.stdlib cimport free, malloc

cdef double INFINITY = float("inf")


cdef class Epoch:
    """Moves on when anything changes that rows of the fast lane were made from."""

    def bump(self):
        self.value += 1


cdef class Hits:
    """A counter."""


cdef class Series:
    """One histogram. Exporters may use it as a dictionary key: it lives as long as its series."""

    def __cinit__(self, attributes, tuple bounds, uint64_t start_ns):
        cdef int i
        self.size = len(bounds)
        self.bounds = <double*> malloc((self.size + 1) * sizeof(double))
        self.counts = <uint64_t*> malloc((self.size + 1) * sizeof(uint64_t))
        if self.bounds == NULL or self.counts == NULL:
            raise MemoryError
        for i in range(self.size):
            self.bounds[i] = bounds[i]
        for i in range(self.size + 1):
            self.counts[i] = 0
        self.attributes = attributes
        self.start_ns = start_ns
        self.minimum = INFINITY
        self.maximum = -INFINITY

    def __dealloc__(self):
        free(self.bounds)
        free(self.counts)

    def record(self, double value):
        self.add(value)

    def copied(self):
        buckets = [self.counts[i] for i in range(self.size + 1)]
        return self.count, self.sum, self.minimum, self.maximum, buckets

    cdef void add(self, double value) noexcept:
        cdef int low = 0, high = self.size, middle
        while low < high:  # the first bound that is not less than the value
            middle = (low + high) >> 1
            if self.bounds[middle] < value:
                low = middle + 1
            else:
                high = middle
        self.counts[low] += 1
        self.count += 1
        self.sum += value
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value
