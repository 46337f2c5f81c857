# SPDX-License-Identifier: Apache-2.0
"""Numbers that compiled code and Python both count in. The interpreter lock guards them.

A histogram is written out in one go, without any Python code in between: so it is of one moment.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport M_LOG2E, floor, frexp, ldexp, log
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from otelauto.hot.protobuf cimport (
    put_constant, put_double, put_fixed64, put_varint, varint_size,
)

cdef enum:
    DIGITS_MAX = 20  # of a 64-bit number

cdef double INFINITY = float("inf")


cdef inline int index_of(double value, int scale) noexcept nogil:
    """The bucket (2**(i / 2**scale), 2**((i + 1) / 2**scale)] that a value above 0 is in."""
    cdef int exponent
    cdef bint is_power = frexp(value, &exponent) == 0.5
    exponent -= 1
    if scale <= 0:
        return (exponent - is_power) >> -scale
    if is_power:
        return exponent * (1 << scale) - 1
    return <int> floor(log(value) * ldexp(M_LOG2E, scale))


cdef void widen(Exponential* e, int shift) noexcept nogil:
    """Make each 2**shift buckets one."""
    cdef int i, j, first = e.first >> shift
    cdef uint64_t count
    for i in range(e.used):
        j = ((e.first + i) >> shift) - first
        count, e.counts[i] = e.counts[i], 0
        e.counts[j] += count
    e.used = ((e.first + e.used - 1) >> shift) - first + 1
    e.first = first
    e.scale -= shift


cdef void add_exponential(Exponential* e, double value) noexcept nogil:
    cdef int index, low, high, shift = 0
    if value <= 0:
        e.zeros += 1
        return
    index = index_of(value, e.scale)
    if e.used == 0:
        e.first, e.used = index, 1
    low, high = min(e.first, index), max(e.first + e.used - 1, index)
    while (high >> shift) - (low >> shift) >= EXPONENTIAL_MAX:
        shift += 1
    if shift:
        widen(e, shift)
        index >>= shift
    if index < e.first:
        shift = e.first - index
        memmove(&e.counts[shift], &e.counts[0], e.used * sizeof(uint64_t))
        memset(&e.counts[0], 0, shift * sizeof(uint64_t))
        e.first = index
        e.used += shift
    elif index >= e.first + e.used:
        e.used = index - e.first + 1
    e.counts[index - e.first] += 1


cdef class Epoch:
    """Moves on when anything changes that rows of the fast lane were made from."""

    def bump(self):
        self.value += 1


cdef class Hits:
    """A counter."""


cdef class Series:
    """One histogram. Exporters may use it as a dictionary key: it lives as long as its series."""

    def __cinit__(self, attributes, tuple bounds, uint64_t start_ns, bint exponential=False):
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
        if exponential:
            self.exponential = <Exponential*> calloc(1, sizeof(Exponential))
            if self.exponential == NULL:
                raise MemoryError
            self.exponential.scale = SCALE_MAX
        self.attributes = attributes
        self.start_ns = start_ns
        self.minimum = INFINITY
        self.maximum = -INFINITY

    def __dealloc__(self):
        free(self.bounds)
        free(self.counts)
        free(self.exponential)
        free(self.exemplars)

    def record(self, double value):
        self.add(value)

    def exemplify(self, double value, uint64_t time_ns, bytes ids):
        if len(ids) != 24:
            raise ValueError("a trace id and a span id are 24 bytes")
        self.note(value, time_ns, ids)

    def copied(self):
        buckets = [self.counts[i] for i in range(self.size + 1)]
        return (self.count, self.sum, self.minimum, self.maximum, buckets,
                self.copied_exponential(), self.copied_exemplars())

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

    def copied_exponential(self):
        cdef Exponential* e = self.exponential
        if e == NULL:
            return None
        return e.scale, e.zeros, e.first, [e.counts[i] for i in range(e.used)]

    def copied_exemplars(self):
        cdef Exemplar* e
        if self.exemplars == NULL:
            return ()
        found = []
        for i in range(self.size + 1):
            e = &self.exemplars[i]
            if e.time_ns:
                ids = PyBytes_FromStringAndSize(<char*> e.ids, sizeof(e.ids))
                found.append((i, e.value, e.time_ns, ids[:16], ids[16:]))
        return tuple(found)

    cdef int note(self, double value, uint64_t time_ns, const uint8_t* ids) except -1:
        """Keep the span as its bucket's exemplar, unless that of a later one is there."""
        cdef Exemplar* e
        if self.exemplars == NULL:
            self.exemplars = <Exemplar*> calloc(self.size + 1, sizeof(Exemplar))
            if self.exemplars == NULL:
                raise MemoryError
        e = &self.exemplars[self.bucket(value)]
        if time_ns > e.time_ns or (time_ns == e.time_ns and value > e.value):
            e.time_ns, e.value = time_ns, value
            memcpy(e.ids, ids, sizeof(e.ids))
        return 0

    cdef int bucket(self, double value) noexcept:
        cdef int low = 0, high = self.size, middle
        while low < high:  # the first bound that is not less than the value
            middle = (low + high) >> 1
            if self.bounds[middle] < value:
                low = middle + 1
            else:
                high = middle
        return low

    cdef void add(self, double value) noexcept:
        self.counts[self.bucket(value)] += 1
        if self.exponential != NULL:
            add_exponential(self.exponential, value)
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
