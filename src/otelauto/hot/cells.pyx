# SPDX-License-Identifier: Apache-2.0
"""Numbers that compiled code and Python both count in. The interpreter lock guards them.

A histogram is written out in one go, without any Python code in between: so it is of one moment.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from otelauto.hot.protobuf cimport (
    put_constant, put_double, put_fixed64, put_varint, varint_size,
)

cdef enum:
    DIGITS_MAX = 20  # of a 64-bit number

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

    def point(self, uint64_t start_ns, uint64_t now_ns, bytes bounds, bytes attributes):
        """Histogram.data_points = 1. HistogramDataPoint: start, time, count, sum = 2 to 5,
        bucket_counts = 6, min = 11, max = 12."""
        cdef uint32_t counts = 8 * (self.size + 1)
        cdef uint32_t size = (
            6 * 9 + 1 + varint_size(counts) + counts
            + <uint32_t> (PyBytes_GET_SIZE(bounds) + PyBytes_GET_SIZE(attributes))
        )
        cdef bytes written = PyBytes_FromStringAndSize(NULL, 1 + varint_size(size) + size)
        cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(written)
        at[0] = 0x0a
        at = put_varint(at + 1, size)
        at = put_fixed64(at, 0x11, start_ns)
        at = put_fixed64(at, 0x19, now_ns)
        at = put_fixed64(at, 0x21, self.count)
        at = put_double(at, 0x29, self.sum)
        at = put_double(at, 0x59, self.minimum)
        at = put_double(at, 0x61, self.maximum)
        at[0] = 0x32
        at = put_varint(at + 1, counts)
        memcpy(at, self.counts, counts)
        put_constant(put_constant(at + counts, bounds), attributes)
        return written

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


cdef inline uint8_t* put_decimal(uint8_t* at, uint64_t value) noexcept nogil:
    cdef uint8_t[DIGITS_MAX] digits
    cdef int i = DIGITS_MAX
    while True:
        i -= 1
        digits[i] = <uint8_t> (48 + value % 10)
        value //= 10
        if value == 0:
            break
    memcpy(at, &digits[i], DIGITS_MAX - i)
    return at + (DIGITS_MAX - i)


cdef class Lines:
    """The lines of one histogram in a text format, but for its labels and numbers."""

    cdef bytes bucket, sum_, count
    cdef list bounds
    cdef size_t constant

    def __cinit__(self, bytes bucket, list bounds, bytes sum_, bytes count):
        self.bucket, self.bounds, self.sum_, self.count = bucket, bounds, sum_, count
        self.constant = len(sum_) + len(count) + sum(len(bucket) + len(b) for b in bounds)

    def written(self, Series series, bytes labels):
        if len(self.bounds) != series.size + 1:
            raise ValueError("a histogram of another instrument")
        cdef bytes total = repr(series.sum).encode()
        cdef size_t most = self.constant + (len(self.bounds) + 2) * (
            <size_t> PyBytes_GET_SIZE(labels) + 2 + DIGITS_MAX + 1
        ) + <size_t> PyBytes_GET_SIZE(total)
        cdef uint8_t* begin = <uint8_t*> malloc(most)
        cdef uint8_t* at = begin
        cdef uint64_t count = 0
        cdef int i
        if begin == NULL:
            raise MemoryError
        for i in range(series.size + 1):
            count += series.counts[i]
            at = put_constant(put_constant(at, self.bucket), labels)
            at = put_decimal(put_constant(at, <bytes> self.bounds[i]), count)
            at[0] = 10
            at += 1
        at = put_constant(put_constant(at, self.sum_), labels)
        at[0], at[1] = 125, 32  # }
        at = put_constant(at + 2, total)
        at[0] = 10
        at = put_constant(put_constant(at + 1, self.count), labels)
        at[0], at[1] = 125, 32
        at = put_decimal(at + 2, series.count)
        at[0] = 10
        written = PyBytes_FromStringAndSize(<char*> begin, at + 1 - begin)
        free(begin)
        return written
