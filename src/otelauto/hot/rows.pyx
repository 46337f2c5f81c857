# SPDX-License-Identifier: Apache-2.0
"""What the fast lane remembers of exchanges that the Python code has described once."""

import os

from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from otelauto.hot.cells cimport Hits
from otelauto.hot.http1 cimport Span as Text
from otelauto.hot.shapes cimport write_shape

cdef enum:
    ROWS_MAX = 4096  # a full table is begun anew
    ROW_SLOTS = 8192
    PATHS_MAX = 4096
    PATH_SLOTS = 8192
    PATH_KEPT_MAX = 256  # bytes; a longer path is looked up each time
    TEXTS_MAX = 1024


cdef class Row:
    """The cells of one kind of exchange, and its span's template if spans are exported."""

    def __cinit__(self, Series duration, Series request_size, Series response_size,
                  Template template, counted):
        self.duration = duration
        self.request_size = request_size
        self.response_size = response_size
        self.template = template
        self.counted = counted


def shape(const uint8_t[::1] path):
    cdef bytearray found = bytearray(path.shape[0])
    cdef uint8_t[::1] to = found
    if path.shape[0] == 0:
        return b""
    return bytes(to[:write_shape(&to[0], &path[0], <uint32_t> path.shape[0])])


cdef inline uint64_t mixed(uint64_t value) noexcept nogil:
    """The finalizer of MurmurHash3."""
    value ^= value >> 33
    value *= <uint64_t> 0xff51afd7ed558ccd
    value ^= value >> 33
    value *= <uint64_t> 0xc4ceb9fe1a85ec53
    return value ^ value >> 33


cdef inline uint64_t hash_bytes(const uint8_t* at, uint32_t size, uint64_t seed) noexcept nogil:
    cdef uint64_t word
    seed ^= size
    while size >= 8:
        memcpy(&word, at, 8)
        seed = mixed(seed ^ word)
        at += 8
        size -= 8
    word = 0
    memcpy(&word, at, size)
    return mixed(seed ^ word)


cdef class Rows:
    """Tables of bounded size: key -> row, (service, path) -> route."""

    def __cinit__(self, route_of, bint by_shape):
        self.route_of = route_of
        self.by_shape = by_shape
        self.rows = <RowSlot*> calloc(ROW_SLOTS, sizeof(RowSlot))
        self.paths = <PathSlot*> calloc(PATH_SLOTS, sizeof(PathSlot))
        if self.rows == NULL or self.paths == NULL:
            raise MemoryError
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.kept = []
        self.routes = {}
        self.texts = {}

    def __dealloc__(self):
        self.forget_paths()
        Py_XDECREF(self.long_path.hits)
        free(self.rows)
        free(self.paths)

    cdef void forget_paths(self) noexcept:
        cdef uint32_t i
        if self.paths == NULL or self.path_count == 0:
            return
        for i in range(PATH_SLOTS):
            free(self.paths[i].path)
            Py_XDECREF(self.paths[i].hits)
        memset(self.paths, 0, PATH_SLOTS * sizeof(PathSlot))
        self.path_count = 0

    cdef int clear(self) except -1:
        """Forget everything. Keys and numbers from before are void."""
        self.full = False
        memset(self.rows, 0, ROW_SLOTS * sizeof(RowSlot))
        self.row_count = 0
        self.forget_paths()
        self.kept = []
        self.routes = {}
        self.texts = {}
        return 0

    cdef RowSlot* slot(self, const Key* key) noexcept:
        cdef uint64_t words[2]
        memcpy(words, key, sizeof(Key))
        cdef uint64_t at = mixed(self.seed ^ words[0] ^ mixed(words[1])) & (ROW_SLOTS - 1)
        while self.rows[at].row != NULL and memcmp(&self.rows[at].key, key, sizeof(Key)) != 0:
            at = (at + 1) & (ROW_SLOTS - 1)
        return &self.rows[at]

    cdef PyObject* find(self, const Key* key) noexcept:
        """The row, borrowed; NULL if there is none."""
        return self.slot(key).row

    cdef int put(self, const Key* key, Row row) except -1:
        cdef RowSlot* slot
        if self.row_count >= ROWS_MAX:
            self.full = True
            return 0
        slot = self.slot(key)
        if slot.row == NULL:
            self.row_count += 1
        self.kept.append(row)
        slot.key = key[0]
        slot.row = <PyObject*> row
        return 0

    cdef PathSlot* path(self, uint32_t service, object owner, Text path) except NULL:
        """The route of ``path``; asks Python for those that are new."""
        cdef uint8_t[PATH_KEPT_MAX] shape
        cdef Text whole = path
        if self.by_shape and path.size <= PATH_KEPT_MAX:
            path.size = write_shape(shape, path.at, path.size)
            path.at = shape
        cdef uint64_t digest = hash_bytes(path.at, path.size, self.seed + service)
        cdef uint64_t at = digest & (PATH_SLOTS - 1)
        cdef PathSlot* slot
        while self.paths[at].path != NULL:
            slot = &self.paths[at]
            if (slot.hash == digest and slot.size == path.size and slot.service == service
                    and memcmp(slot.path, path.at, path.size) == 0):
                return slot
            at = (at + 1) & (PATH_SLOTS - 1)
        text = whole.at[:whole.size].decode("ascii")
        route, hits, overflowed = self.route_of(owner, text)
        if path.size > PATH_KEPT_MAX:
            slot = &self.long_path
            Py_XDECREF(slot.hits)
        else:
            slot = self.new_path(digest, path)
        slot.hash, slot.size, slot.service = digest, path.size, service
        slot.route = self.routes.setdefault(route, len(self.routes) + 1)
        slot.overflowed = overflowed
        slot.hits = NULL
        if hits is not None:
            Py_INCREF(<Hits?> hits)
            slot.hits = <PyObject*> hits
        return slot

    cdef PathSlot* new_path(self, uint64_t digest, Text path) except NULL:
        """A free slot that has the text of the path."""
        cdef uint64_t at = digest & (PATH_SLOTS - 1)
        cdef uint8_t* text = <uint8_t*> malloc(path.size)
        if text == NULL:
            raise MemoryError
        if self.path_count >= PATHS_MAX:
            self.forget_paths()
        while self.paths[at].path != NULL:
            at = (at + 1) & (PATH_SLOTS - 1)
        memcpy(text, path.at, path.size)
        self.paths[at].path = text
        self.path_count += 1
        return &self.paths[at]

    cdef uint32_t text(self, Text text) except 0:
        """The number of a Host field's value, or of a method's name."""
        cdef bytes found = text.at[:text.size]
        self.full |= len(self.texts) >= TEXTS_MAX
        return self.texts.setdefault(found, len(self.texts) + 1)
