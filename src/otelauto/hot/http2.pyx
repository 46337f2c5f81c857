# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 (RFC 9113): exchanges by stream, and the calls of gRPC that they carry.

Frames say where the next one begins, so payloads need not be there; bytes that are missing within
one do no harm. Where a frame's header is missing the place is lost. It is found again at a later
segment that begins like a frame, which most do. Whether header blocks were missed meanwhile (and
HPACK with them) is not assumed either way but looked at: see ``is_intact``.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove

from otelauto.hot cimport messages
from otelauto.hot.frames cimport (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADER, HEADERS, PADDED, PUSH_PROMISE,
    RST_STREAM, STREAM_MASK, SHORT, YES, Frame, big_endian, chain, fragment, is_plausible,
    read_frame,
)
from otelauto.hot.hpack cimport (
    METHOD, SCHEME, STATUS, Decoder,
)
from otelauto.hot.streams cimport Exchange, LOST, Message, Moved, Origin, Streams

cdef enum:
    BLOCK_MAX = 131072  # bytes of a header block
    PROMISED = 4  # bytes of the stream id in PUSH_PROMISE
    PREFACE_SIZE = 24
    CARRIED_KEPT_MAX = 1024  # bytes, of a connection at rest: there may be tens of thousands

cdef const uint8_t* PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4


def plausible(bytes data):
    return chain(<const uint8_t*> PyBytes_AS_STRING(data), <uint32_t> len(data))


def first_block(bytes head):
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(head)
    cdef const uint8_t* payload
    cdef uint32_t at = 0, size = <uint32_t> len(head), length
    cdef Frame frame
    cdef Decoder decoder
    while at <= size and size - at >= HEADER:
        frame = read_frame(data + at)
        at += HEADER
        if frame.kind == HEADERS and frame.length <= size - at:
            decoder = Decoder()
            decoder.lost()
            payload, length = data + at, frame.length
            if (not fragment(&payload, &length, frame.flags, 0, False)
                    or not decoder.read(payload, length, not frame.flags & END_HEADERS)):
                return ""
            if frame.stream & 1 and (decoder.fields[METHOD].at != NULL
                                     or decoder.fields[SCHEME].at != NULL):
                return "request"
            if decoder.fields[STATUS].at != NULL:
                return "response"
        at += frame.length
    return "more"


cdef class Session:
    """One connection."""

    def __cinit__(self, make, may_ask=None):
        self.streams = Streams(make, may_ask)
        self.halves[0].asks = True
        self.requests, self.responses = Decoder(), Decoder()

    def __dealloc__(self):
        cdef int i
        for i in range(2):
            free(self.halves[i].block)
            free(self.halves[i].carried)

    # ---- for Python ----

    def begin(self, bint requests, bint responses):
        self.halves[0].preface = True
        if not requests:
            self.requests.lost()
            self.streams.unsure = True
        if not responses:
            self.responses.lost()
            self.streams.unsure = self.halves[1].lost = True

    def feed(self, bint asks, bytes data, uint64_t unseen, uint64_t time, uint32_t tcp_sequence,
             uint32_t tgid, uint32_t tid):
        cdef Moved moved
        moved.time, moved.tcp_sequence, moved.tgid, moved.tid = time, tcp_sequence, tgid, tid
        return self.take(
            asks, <const uint8_t*> PyBytes_AS_STRING(data), <uint32_t> len(data), unseen, &moved
        )

    def doubt(self, bint asks):
        self.doubt_half(&self.halves[0 if asks else 1])

    def lost(self, bint asks):
        return bool(self.halves[0 if asks else 1].lost)

    def take_ended(self):
        return self.streams.take_ended()

    def settle(self):
        cdef Exchange* x = self.streams.oldest
        cdef Exchange* newer
        while x != NULL:
            newer = x.newer
            if self.streams.settle(x, self.moved.time):
                self.streams.finish(x)
            x = newer
        return self.streams.take_ended()

    def abandon(self):
        while self.streams.oldest != NULL:
            self.streams.finish(self.streams.oldest)
        return self.streams.take_ended()

    def take_unmatched(self):
        unmatched, self.streams.unmatched = self.streams.unmatched, 0
        return unmatched

    def take_passed(self):
        passed, self.passed = self.passed, 0
        return passed

    # ---- the place ----

    cdef Decoder decoder(self, Half* half):
        return self.requests if half.asks else self.responses

    cdef int take(
        self, bint asks, const uint8_t* data, uint32_t size, uint64_t unseen, const Moved* moved
    ) except -1:
        """``size`` known bytes passed and then ``unseen`` others; ends are put into ``ended``."""
        cdef Half* half = &self.halves[0 if asks else 1]
        cdef uint32_t joint = half.carried_size, used = 0
        cdef const uint8_t* window = data
        cdef int became = READ
        cdef Origin origin
        self.moved = moved[0]
        self.passed += size + unseen
        if half.lost:
            if not self.finds_place(data, size):
                self.doubt_half(half)
                return REFUSED
            half.lost = False
        if joint:
            self.carry(half, data, size)
            window, size = half.carried, half.carried_size
        if (not half.preface or self.passes_preface(half, window, size, not unseen, &used)) and (
                not self.walk(half, window, size, joint, &used)):
            became = REFUSED
        if half.carried_size and used < joint:
            origin.time, origin.tcp_sequence = half.carried_ns, half.carried_tcp
            if origin.tcp_sequence:
                origin.tcp_sequence += used
        else:
            origin.time, origin.tcp_sequence = self.moved.time, self.moved.tcp_sequence
            if origin.tcp_sequence:
                origin.tcp_sequence += used - joint
        if became == READ and unseen:
            became = self.hole(half, window + used, size - used, unseen, origin)
            used = size
        if became != READ:
            self.doubt_half(half)
            return became
        half.carried_ns, half.carried_tcp = origin.time, origin.tcp_sequence
        if joint:
            half.carried_size -= used
            if half.carried_size:
                memmove(half.carried, half.carried + used, half.carried_size)
        elif used < size:
            self.carry(half, data + used, size - used)
        if half.carried_size == 0 and half.carried_room > CARRIED_KEPT_MAX:
            free(half.carried)
            half.carried, half.carried_room = NULL, 0
        return READ

    cdef bint passes_preface(
        self, Half* half, const uint8_t* data, uint32_t size, bint whole, uint32_t* used
    ) noexcept:
        """Whether the connection preface, if there is one, has been passed."""
        if whole and size < PREFACE_SIZE and memcmp(data, PREFACE, size) == 0:
            return False
        half.preface = False
        if size >= PREFACE_SIZE and memcmp(data, PREFACE, PREFACE_SIZE) == 0:
            used[0] = PREFACE_SIZE
        return True

    cdef int carry(self, Half* half, const uint8_t* data, uint32_t size) except -1:
        """Keep bytes until the frame that they belong to is whole."""
        cdef uint8_t* larger
        if half.carried_size + size > half.carried_room:
            larger = <uint8_t*> realloc(half.carried, half.carried_size + size)
            if larger == NULL:
                raise MemoryError
            half.carried, half.carried_room = larger, half.carried_size + size
        memcpy(half.carried + half.carried_size, data, size)
        half.carried_size += size
        return 0

    cdef bint finds_place(self, const uint8_t* data, uint32_t size) noexcept:
        cdef int found = chain(data, size)
        return found == YES or (
            found == SHORT and size >= HEADER and self.streams.find(read_frame(data).stream) != NULL
        )

    cdef int hole(
        self, Half* half, const uint8_t* data, uint32_t size, uint64_t unseen, Origin origin
    ) except -1:
        """Behind ``data``, which begins a frame that is not whole, ``unseen`` bytes are missing."""
        cdef uint32_t count
        cdef int became
        while unseen:
            if half.left:
                count = <uint32_t> min(<uint64_t> half.left, unseen)
                self.pass_unseen(half, count)
                unseen -= count
                continue
            became = self.cut_head(half, data, size, origin)
            if became != READ:
                return became
            size = 0
        return READ

    cdef void doubt_half(self, Half* half) noexcept:
        """Bytes were missed that may have been anything."""
        cdef Half* asked = &self.halves[0]
        cdef Exchange* x = self.streams.oldest
        cdef Message* m
        cdef bint certain = half.asks or not (self.streams.unsure or asked.lost or asked.suspecting)
        half.lost = True
        half.left = half.carried_size = 0
        half.blocked = half.preface = False
        while x != NULL:
            m = &x.request if half.asks else &x.response
            if not m.there:
                certain = False
            elif not m.complete:
                m.inexact, m.keeps = True, False
            if not half.asks:
                x.fate = LOST
                x.suspect = True
            x = x.newer
        half.suspecting = certain
        half.suspects = self.streams.open
        if not certain:
            self.decoder(half).lost()

    cdef bint is_intact(self, Half* half, uint32_t number, uint8_t flags) noexcept:
        """Whether no header block can have been missed before this one, on stream ``number``.

        Clients open streams in order: if the next one is the next, none was opened unseen. Servers:
        every stream that was being answered was seen to end after the hole, or ends with this.
        """
        cdef Exchange* x
        half.suspecting = False
        if half.asks:
            if number == self.streams.last + 2:
                return True
            self.streams.unsure = True
            return False
        if self.streams.unsure or self.halves[0].suspecting:
            return False
        if half.suspects == 1 and flags & END_STREAM:
            x = self.streams.find(number)
            return x != NULL and x.suspect
        return half.suspects == 0

    # ---- frames ----

    cdef bint walk(
        self, Half* half, const uint8_t* data, uint32_t size, uint32_t joint, uint32_t* used
    ) except -1:
        """Read frames from ``used`` on. What lies before ``joint`` was carried.

        False: they make no sense.
        """
        cdef uint32_t at = used[0]
        cdef Frame frame
        cdef Origin origin
        while True:
            if half.left:
                at += self.pass_payload(half, data + at, size - at)
                used[0] = at
                if half.left:
                    return True
                if half.ends:
                    self.end(half, half.stream)
            used[0] = at
            if size - at < HEADER:
                return True
            frame = read_frame(data + at)
            if frame.kind == DATA:
                if frame.flags & PADDED and size - at == HEADER:
                    return True
                at += HEADER
                if not self.begin_data(half, frame, data + at):
                    return False
                at += 1 if frame.flags & PADDED else 0
                if not half.left and half.ends:
                    self.end(half, frame.stream)
                continue
            if not is_plausible(frame) or frame.length > BLOCK_MAX:
                return False
            if frame.length > size - at - HEADER:
                return True
            origin.time, origin.tcp_sequence = self.moved.time, self.moved.tcp_sequence
            if at < joint:
                origin.time, origin.tcp_sequence = half.carried_ns, half.carried_tcp
            if origin.tcp_sequence:
                origin.tcp_sequence += at if at < joint else at - joint
            if not self.on_frame(half, frame, data + at + HEADER, origin):
                return False
            at += HEADER + frame.length

    cdef bint begin_data(self, Half* half, Frame frame, const uint8_t* payload) noexcept:
        """Of a padded frame the first byte of the payload must be there."""
        cdef int64_t length = frame.length, content = length
        cdef Exchange* x
        if frame.flags & PADDED:
            length -= 1
            content = length - payload[0]
        if (not 0 < frame.stream <= STREAM_MASK or frame.flags & ~(END_STREAM | PADDED)
                or content < 0 or half.blocked):
            return False
        self.streams.passing[not half.asks] = NULL
        x = self.streams.find(frame.stream)
        if x != NULL:
            self.streams.passing[not half.asks] = &x.request if half.asks else &x.response
            if not self.streams.passing[not half.asks].there:
                self.streams.passing[not half.asks] = NULL
            elif length:
                self.streams.passing[not half.asks].has_body = True
        half.left, half.content = <uint32_t> length, <uint32_t> content
        half.ends = frame.flags & END_STREAM != 0
        half.stream = frame.stream
        return True

    cdef int pass_payload(self, Half* half, const uint8_t* data, uint32_t size) except -1:
        """The payload goes on; how much of it is there."""
        cdef Message* m = self.streams.passing[not half.asks]
        cdef uint32_t count = min(half.left, size), content = min(count, half.content)
        half.left -= count
        if m != NULL and content:
            half.content -= content
            m.body_size += content
            if m.count.wanted:
                messages.feed(&m.count, data, content)
            if m.keeps:
                self.streams.keep(m, data, content)
        return <int> count

    cdef int pass_unseen(self, Half* half, uint32_t count) except -1:
        """Bytes of a payload that are not known."""
        cdef Message* m = self.streams.passing[not half.asks]
        cdef uint32_t content = min(count, half.content)
        half.content -= content
        half.left -= count
        if m != NULL:
            m.body_size += content
            m.keeps = m.keeps and not content
            if m.count.wanted:
                messages.skip(&m.count, content)
        if not half.left and half.ends:
            self.end(half, half.stream)
        return 0

    cdef int cut_head(self, Half* half, const uint8_t* data, uint32_t size, Origin origin) except -1:
        """Read what is known of a frame that is not whole."""
        cdef Exchange* x
        cdef Frame frame
        if size < HEADER:
            return DOUBTED
        frame = read_frame(data)
        if not is_plausible(frame):
            return DOUBTED
        if frame.kind == HEADERS or frame.kind == CONTINUATION or frame.kind == PUSH_PROMISE:
            if not self.on_head(half, frame, data + HEADER, size - HEADER, origin, True):
                return REFUSED
        half.left = frame.length + HEADER - size
        half.content, self.streams.passing[not half.asks] = 0, NULL
        half.ends = (frame.kind == HEADERS or frame.kind == DATA) and frame.flags & END_STREAM
        half.stream = frame.stream
        x = self.streams.find(frame.stream)
        if frame.kind == DATA and x != NULL:  # how much of it is padding is not known
            x.request.inexact |= not x.request.complete
            x.response.inexact |= not x.response.complete
            x.request.keeps = x.response.keeps = False
        return READ

    cdef bint on_frame(self, Half* half, Frame frame, const uint8_t* data, Origin origin) except -1:
        """A whole frame that is not DATA; false: it makes no sense here."""
        cdef Exchange* x
        cdef Exchange* newer
        if half.blocked and frame.kind != CONTINUATION:
            return False
        if frame.kind == HEADERS or frame.kind == CONTINUATION or frame.kind == PUSH_PROMISE:
            return self.on_head(half, frame, data, frame.length, origin, False)
        if frame.kind == RST_STREAM:
            x = self.streams.find(frame.stream)
            if x != NULL:
                self.streams.abort(x, big_endian(data), self.moved.time)
        elif frame.kind == GOAWAY and not half.asks:
            x = self.streams.oldest
            while x != NULL:
                newer = x.newer
                if x.number > big_endian(data) & STREAM_MASK:
                    self.streams.abort(x, big_endian(data + 4), self.moved.time)
                x = newer
        return True

    cdef bint on_head(
        self, Half* half, Frame frame, const uint8_t* data, uint32_t size, Origin origin, bint cut
    ) except -1:
        """A part of a header block, the last one if the flags say so or it is ``cut``."""
        cdef bint ends = cut or frame.flags & END_HEADERS
        cdef uint8_t* larger
        if frame.kind == CONTINUATION:
            if not half.blocked or half.stream != frame.stream:
                return False
        else:
            if not fragment(
                &data, &size, frame.flags, PROMISED if frame.kind == PUSH_PROMISE else 0, cut
            ):
                return False
            half.stream, half.flags, half.kind = frame.stream, frame.flags, frame.kind
            half.began = origin
            half.block_size = 0
            if ends:
                return self.on_block(half, data, size, cut)
        half.blocked = True
        if half.block_size + size > BLOCK_MAX:
            return False
        larger = <uint8_t*> realloc(half.block, half.block_size + size + 1)
        if larger == NULL:
            raise MemoryError
        half.block = larger
        memcpy(half.block + half.block_size, data, size)
        half.block_size += size
        if not ends:
            return True
        half.blocked = False
        try:
            return self.on_block(half, half.block, half.block_size, cut)
        finally:
            free(half.block)
            half.block = NULL

    cdef bint on_block(self, Half* half, const uint8_t* data, uint32_t size, bint cut) except -1:
        """A header block, or the beginning of one."""
        cdef Decoder decoder = self.decoder(half)
        cdef uint32_t number = half.stream
        if half.suspecting and not self.is_intact(half, number, half.flags):
            decoder.lost()
        if not decoder.read(data, size, cut):
            decoder.release()
            return False
        if half.kind == PUSH_PROMISE:
            pass  # what is pushed is no answer to a request that was made
        elif half.asks:
            self.streams.on_request(decoder, number, size, half.began, &self.moved, cut)
        else:
            self.streams.on_response(decoder, number, size, half.began, cut)
        decoder.release()
        if half.kind == HEADERS and half.flags & END_STREAM and not cut:
            self.end(half, number)
        return True

    cdef int end(self, Half* half, uint32_t number) except -1:
        """A stream's last byte in this direction has passed."""
        cdef Exchange* x = self.streams.find(number)
        half.ends = False
        if x == NULL:
            return 0
        if half.suspecting and not half.asks and x.suspect:
            half.suspects -= 1
        self.streams.end(x, half.asks, self.moved.time)
        return 0
