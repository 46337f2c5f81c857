# SPDX-License-Identifier: Apache-2.0
"""What becomes of whole exchanges: cells to count in and spans, by rows.

What exchanges of one kind come to is not worked out here. The first of a kind is described by the
Python code, and what came of it is remembered as a row.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from otelauto.hot.cells cimport Epoch, Hits
from otelauto.hot.http1 cimport Span as Text
from otelauto.hot.rows cimport Key, PathSlot, Row, Rows
from otelauto.hot.spans cimport Batch, Variable, Writer


cdef inline void measure(Row row, const Variable* v) noexcept:
    if row.duration is not None:
        row.duration.add(<double> (v.end_ns - v.start_ns) / 1e9)
    if row.request_size is not None:
        row.request_size.add(<double> v.request_size)
    if row.response_size is not None:
        row.response_size.add(<double> v.response_size)


cdef inline int exemplify(Row row, const Variable* v, const uint8_t* ids) except -1:
    if row.duration is not None:
        row.duration.note(<double> (v.end_ns - v.start_ns) / 1e9, v.end_ns, ids)
    if row.request_size is not None:
        row.request_size.note(<double> v.request_size, v.end_ns, ids)
    if row.response_size is not None:
        row.response_size.note(<double> v.response_size, v.end_ns, ids)
    return 0


cdef void release(Party* party) noexcept:
    Py_XDECREF(party.peer)
    Py_XDECREF(party.host_text)


cdef class Ledger:
    """Rows, and what is counted and written by them."""

    def __cinit__(self, resolver, Epoch epoch, Writer writer, bint by_shape):
        self.resolver = resolver
        self.epoch = epoch
        self.seen = epoch.value
        self.writer = writer
        self.rows = Rows(resolver.route, by_shape)
        self.services, self.numbers, self.batches = [], {}, []
        self.finished, self.counts = [], {}

    cdef bint publish(
        self, Party* party, Key* key, Text path, Text host, const Variable* v
    ) except -1:
        """An exchange is whole; false: what comes of its kind is not known.

        ``key`` has its status, its method and its bits. ``path``, where routes are made of it, or
        the method of a call.
        """
        cdef PathSlot* slot = NULL
        cdef PyObject* found
        cdef bint asks = key.bits & CLIENT
        if self.epoch.value != self.seen or self.rows.full:
            self.forget()
        if party.generation != self.seen and not self.locate(party):
            return False
        key.service = party.service
        if asks or self.writer is not None:
            key.host = self.host(party, host)
        if key.bits & CALL:
            key.route = self.rows.text(path)
        elif not asks:
            slot = self.rows.path(party.service, self.services[party.service], path)
            key.route = slot.route
        found = self.rows.find(key)
        if found == NULL:
            self.wanted, self.wants = key[0], True
            return False
        if slot != NULL:
            if slot.hits != NULL:
                (<Hits> slot.hits).count += 1
            if slot.overflowed:
                self.tell("route", 1)
        self.count(party, <Row> found, v)
        return True

    cdef int count(self, Party* party, Row row, const Variable* v) except -1:
        measure(row, v)
        if row.counted is not None:
            for what in row.counted:
                self.tell(what, 1)
        self.exchanges += 1
        if row.template is not None and self.writer.write(
            <Batch> self.batches[party.service], row.template, <bytes> party.peer, v
        ) and self.writer.exemplars:
            exemplify(row, v, self.writer.written)
        return 0

    cdef int tell(self, what, uint64_t count) except -1:
        self.counts[what] = self.counts.get(what, 0) + count
        return 0

    cdef bint locate(self, Party* party) except -1:
        """The number of the party's service; false if it has none."""
        number = self.numbers.get(party.tgid)
        if number is None:
            service = self.resolver.service(party.tgid)
            if service is None:
                return False
            if service in self.numbers:
                number = self.numbers[service]
            else:
                number = self.numbers[service] = len(self.services)
                self.services.append(service)
                self.batches.append(Batch(service))
            self.numbers[party.tgid] = number
        party.service = number
        party.host = 0
        party.generation = self.seen
        return True

    cdef uint32_t host(self, Party* party, Text text) except 0:
        if (party.host == 0 or <uint32_t> PyBytes_GET_SIZE(<bytes> party.host_text) != text.size
                or memcmp(PyBytes_AS_STRING(<bytes> party.host_text), text.at, text.size) != 0):
            value = PyBytes_FromStringAndSize(<char*> text.at, text.size)
            party.host = self.rows.text(text)
            Py_INCREF(value)
            Py_XDECREF(party.host_text)
            party.host_text = <PyObject*> value
        return party.host

    cdef int forget(self) except -1:
        """Begin anew: services, routes or series are not what they were."""
        self.seen = self.epoch.value
        if self.rows.full:
            self.epoch.value += 1
            self.seen = self.epoch.value
        self.rows.clear()
        self.finished = self.take_spans()
        self.services, self.numbers, self.batches = [], {}, []
        return 0

    cdef int learn(self, Row row) except -1:
        if self.wants and self.epoch.value == self.seen:
            self.rows.put(&self.wanted, row)
        self.wants = False
        return 0

    cdef list take_spans(self):
        cdef Batch batch
        taken, self.finished = self.finished, []
        for batch in self.batches:
            taken += batch.taken()
        return taken
