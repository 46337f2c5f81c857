# SPDX-License-Identifier: Apache-2.0
"""HPACK (RFC 7541) as a bystander decodes it.

The dynamic table is one direction's. A bystander may join late, or miss a part of a header block;
then some entries are not known. Indices count from the newest entry, so what was inserted since is
known for sure, and whatever lies behind it is *unknown*: never guessed. The encoder announces every
change of the table's size in a block (section 4.2), so SETTINGS need not be followed. A table that
is held smaller than the encoder's loses old entries to the unknown; a larger one does no harm.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from otelauto.hot.http1 cimport Span as Text

cdef enum:
    STATIC_SIZE = 61
    OVERHEAD = 32  # section 4.1
    DEFAULT_LIMIT = 4096
    LIMIT_MAX = 65536  # ours: a table that is larger at the encoder is held as far as this
    INTEGER_BYTES_MAX = 5
    EOS = 256
    STATES = 256  # inner nodes of the code's tree
    PADDING_MAX = 7  # bits; they are the most significant ones of EOS: all ones

cdef enum Verdict:
    FINE
    EARLY  # the block ends within a field
    WRONG

cdef struct Step:
    uint16_t state
    int16_t symbol  # -1: none yet

cdef Step steps[STATES * 16]  # by state and nibble; the shortest code has five bits
cdef uint8_t final[STATES]  # whether a string may end there
cdef Field fixed[STATIC_SIZE]  # appendix A
cdef uint8_t* scratch = NULL  # decoded strings of the block at hand; the interpreter lock guards it
cdef size_t scratch_room = 0

# By the numbers of the enumeration.
cdef tuple NAMES_ASKED_FOR = (
    b"", b":method", b":path", b":scheme", b":authority", b":status", b"host", b"user-agent",
    b"traceparent", b"content-type", b"content-length", b"connect-protocol-version",
    b"grpc-timeout", b"grpc-status", b"grpc-message",
)
# Appendix A, from index 1 on.
cdef tuple STATIC = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"),
    (b":path", b"/index.html"), (b":scheme", b"http"), (b":scheme", b"https"),
    *[(b":status", code) for code in b"200 204 206 304 400 404 500".split()],
    (b"accept-charset", b""), (b"accept-encoding", b"gzip, deflate"),
    *[(name, b"") for name in (
        b"accept-language accept-ranges accept access-control-allow-origin age allow authorization "
        b"cache-control content-disposition content-encoding content-language content-length "
        b"content-location content-range content-type cookie date etag expect expires from host "
        b"if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link "
        b"location max-forwards proxy-authenticate proxy-authorization range referer refresh "
        b"retry-after server set-cookie strict-transport-security transfer-encoding user-agent "
        b"vary via www-authenticate"
    ).split()],
)
# Code lengths of the symbols 0 to 255 and of EOS. The code is canonical: within a length it counts
# up in the order of the symbols, so the lengths are all there is to know (appendix B).
cdef bytes LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c"
    "1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707"
    "070707070707070707070707070707070807080d130d0e06"
    "0f0506050605060606050707060606050607060505060707"
    "0707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715"
    "171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b18"
    "15151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)


cdef inline int name_of(const uint8_t* at, uint32_t size) noexcept:
    """The number of a name that somebody asks for, else OTHER."""
    cdef int number
    for number in range(1, NAMES):
        if name_sizes[number] == size and memcmp(name_texts[number], at, size) == 0:
            return number
    return OTHER

cdef uint32_t name_sizes[NAMES]
cdef const uint8_t* name_texts[NAMES]


cdef Text text_of(bytes value) noexcept:
    cdef Text text
    text.at = <const uint8_t*> PyBytes_AS_STRING(value)
    text.size = <uint32_t> PyBytes_GET_SIZE(value)
    return text


cdef int prepare() except -1:
    """Fill the tables that do not change. Their texts are constants of this module."""
    cdef int number
    cdef Text text
    for number in range(NAMES):
        text = text_of(NAMES_ASKED_FOR[number])
        name_sizes[number], name_texts[number] = text.size, text.at
    for number in range(STATIC_SIZE):
        text = text_of(STATIC[number][0])
        fixed[number].known = True
        fixed[number].name = <uint8_t> name_of(text.at, text.size)
        fixed[number].name_size = text.size
        fixed[number].value = text_of(STATIC[number][1])
    nodes = code_tree()
    for number in range(STATES * 16):
        prepare_step(nodes, number)
    node = 0
    final[0] = True
    for number in range(PADDING_MAX):
        node = nodes[node][1]
        final[<int> node] = True
    return 0


cdef list code_tree():
    """The children of each inner node; a leaf is ~symbol, 0 is: not there."""
    nodes = [[0, 0]]
    code = length = 0
    for symbol in sorted(range(EOS + 1), key=lambda s: (LENGTHS[s], s)):
        code <<= LENGTHS[symbol] - length
        length = LENGTHS[symbol]
        node = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if not nodes[node][branch]:
                nodes.append([0, 0])
                nodes[node][branch] = len(nodes) - 1
            node = nodes[node][branch]
        nodes[node][code & 1] = ~symbol
        code += 1
    return nodes


cdef int prepare_step(list nodes, int number) except -1:
    state, symbol = number >> 4, -1
    for bit in (8, 4, 2, 1):
        state = nodes[state][1 if number & bit else 0]
        if state < 0:
            symbol, state = ~state, 0
    steps[number].state, steps[number].symbol = state, symbol
    return 0


prepare()


cdef inline int64_t unhuffman(const uint8_t* data, uint32_t size, uint8_t* to) noexcept nogil:
    """Write the string that ``data`` encodes (section 5.2); its size, -1 if it encodes none."""
    cdef uint8_t* begin = to
    cdef uint32_t i, state = 0
    cdef int high, low
    for i in range(size):
        high = steps[state << 4 | data[i] >> 4].symbol
        state = steps[state << 4 | data[i] >> 4].state
        low = steps[state << 4 | data[i] & 15].symbol
        state = steps[state << 4 | data[i] & 15].state
        if high == EOS or low == EOS:
            return -1
        if high >= 0:
            to[0] = <uint8_t> high
            to += 1
        if low >= 0:
            to[0] = <uint8_t> low
            to += 1
    return to - begin if final[state] else -1


cdef inline int read_integer(
    const uint8_t* data, uint32_t size, uint32_t* at, uint8_t mask, uint64_t* value
) noexcept nogil:
    """The integer whose prefix, within ``mask``, is at ``at`` (section 5.1)."""
    cdef int shift
    cdef uint8_t byte
    value[0] = data[at[0]] & mask
    at[0] += 1
    if value[0] < mask:
        return FINE
    for shift in range(0, 7 * INTEGER_BYTES_MAX, 7):
        if at[0] >= size:
            return EARLY
        byte = data[at[0]]
        at[0] += 1
        value[0] += <uint64_t> (byte & 0x7f) << shift
        if byte < 0x80:
            return FINE
    return WRONG


cdef inline int read_string(
    const uint8_t* data, uint32_t size, uint32_t* at, uint8_t** spare, Text* text
) noexcept nogil:
    """The string literal at ``at`` (section 5.2); a decoded one goes to ``spare``."""
    cdef uint64_t length
    cdef int64_t decoded
    cdef bint coded
    cdef int verdict
    if at[0] >= size:
        return EARLY
    coded = data[at[0]] & 0x80 != 0
    verdict = read_integer(data, size, at, 0x7f, &length)
    if verdict != FINE:
        return verdict
    if length > size - at[0]:
        return EARLY
    text.at = data + at[0]
    text.size = <uint32_t> length
    at[0] += <uint32_t> length
    if coded:
        decoded = unhuffman(text.at, text.size, spare[0])
        if decoded < 0:
            return WRONG
        text.at = spare[0]
        text.size = <uint32_t> decoded
        spare[0] += decoded
    return FINE


cdef class Decoder:
    """One direction's dynamic table, and the decoding of its header blocks, in order."""

    def __cinit__(self):
        self.complete = True
        self.limit = DEFAULT_LIMIT

    def __dealloc__(self):
        self.evict(0)
        self.release()
        free(self.entries)

    def lose(self):
        self.lost()
        self.release()

    def decode(self, bytes data, bint cut=False):
        found = None
        if self.read(<const uint8_t*> PyBytes_AS_STRING(data), len(data), cut):
            found = {
                NAMES_ASKED_FOR[i]: self.fields[i].at[:self.fields[i].size]
                for i in range(1, NAMES) if self.fields[i].at != NULL
            }, self.unknown
        self.release()
        return found

    cdef void lost(self) noexcept:
        """Blocks were missed: nothing that was inserted so far can be relied on."""
        self.complete = False
        self.evict(0)

    cdef bint read(self, const uint8_t* data, uint32_t size, bint cut) except -1:
        """Read a whole header block, or (``cut``) the beginning of one, into ``fields``.

        False: it is none, or refers to what cannot be there. What ``fields`` point at is good until
        the next block is read, here or elsewhere, or until ``release``.
        """
        global scratch, scratch_room
        cdef size_t most = 2 * <size_t> size + 8  # the shortest code has five bits
        cdef int verdict
        if scratch_room < most:
            free(scratch)
            scratch_room = 0
            scratch = <uint8_t*> malloc(most)
            if scratch == NULL:
                raise MemoryError
            scratch_room = most
        memset(self.fields, 0, sizeof(self.fields))
        self.unknown = 0
        verdict = self.walk(data, size)
        if verdict == EARLY and cut:
            self.unknown = 0
        elif verdict != FINE:
            return False
        if cut:
            self.lost()
        return True

    cdef void release(self) noexcept:
        """Free what the last block may have referred to."""
        cdef Kept* kept
        while self.gone != NULL:
            kept = self.gone
            self.gone = kept.next
            free(kept)

    cdef int walk(self, const uint8_t* data, uint32_t size) except -1:
        cdef uint8_t* spare = scratch
        cdef uint32_t at = 0
        cdef uint64_t number
        cdef int verdict = FINE
        cdef Field field
        while at < size and verdict == FINE:
            if data[at] & 0x80:  # section 6.1
                verdict = read_integer(data, size, &at, 0x7f, &number)
                if verdict == FINE:
                    verdict = self.find(number, &field)
                if verdict == FINE and field.known:
                    self.fields[field.name] = field.value
                elif verdict == FINE:
                    self.unknown += 1
            elif data[at] & 0xe0 == 0x20:  # section 6.3
                verdict = read_integer(data, size, &at, 0x1f, &number)
                if verdict == FINE:
                    self.resize(number)
            else:
                verdict = self.literal(data, size, &at, &spare)
        return verdict

    cdef void resize(self, uint64_t limit) noexcept:
        if limit > LIMIT_MAX:
            limit = LIMIT_MAX
            self.complete = False  # what it holds beyond ours
        self.limit = limit
        while self.size > limit:
            self.evict(self.count - 1)

    cdef int literal(
        self, const uint8_t* data, uint32_t size, uint32_t* at, uint8_t** spare
    ) except -1:
        """A field that is written out, maybe but for its name (section 6.2)."""
        cdef bint inserts = data[at[0]] & 0x40 != 0
        cdef uint64_t index
        cdef Text name
        cdef Field field
        cdef int verdict = read_integer(data, size, at, 0x3f if inserts else 0x0f, &index)
        if verdict == FINE and index:
            verdict = self.find(index, &field)
        elif verdict == FINE:
            verdict = read_string(data, size, at, spare, &name)
            field.known = True
            field.name = <uint8_t> name_of(name.at, name.size) if verdict == FINE else OTHER
            field.name_size = name.size
        if verdict == FINE:
            verdict = read_string(data, size, at, spare, &field.value)
        if verdict != FINE:
            return verdict
        if field.known:
            self.fields[field.name] = field.value
        else:
            self.unknown += 1
        if inserts:
            self.insert(&field)
        return FINE

    cdef int find(self, uint64_t index, Field* field) noexcept:
        """What ``index`` refers to (section 2.3.3)."""
        cdef Entry* entry
        if index <= STATIC_SIZE:
            if index == 0:
                return WRONG
            field[0] = fixed[index - 1]
            return FINE
        index -= STATIC_SIZE
        field.known = False
        if index > self.count:
            return WRONG if self.complete else FINE
        entry = &self.entries[(self.first + self.count - index) & (self.room - 1)]
        field.known, field.name, field.name_size = entry.known, entry.name, entry.name_size
        field.value.size = entry.value_size
        field.value.at = <const uint8_t*> (entry.value + 1)  # nobody asks, if there is none
        return FINE

    cdef int insert(self, const Field* field) except -1:
        """Section 4.4. An unknown entry takes what is certain."""
        cdef Entry* entry
        cdef Entry* larger
        cdef uint32_t i
        if self.count == self.room:
            larger = <Entry*> malloc(max(2 * self.room, 8) * sizeof(Entry))
            if larger == NULL:
                raise MemoryError
            for i in range(self.count):
                larger[i] = self.entries[(self.first + i) & (self.room - 1)]
            free(self.entries)
            self.entries, self.first, self.room = larger, 0, max(2 * self.room, 8)
        entry = &self.entries[(self.first + self.count) & (self.room - 1)]
        memset(entry, 0, sizeof(Entry))
        if field.known:
            entry.known, entry.name = True, field.name
            entry.name_size, entry.value_size = field.name_size, field.value.size
            if field.name != OTHER:
                entry.value = <Kept*> malloc(sizeof(Kept) + field.value.size)
                if entry.value == NULL:
                    raise MemoryError
                memcpy(entry.value + 1, field.value.at, field.value.size)
        self.count += 1
        self.size += <uint64_t> entry.name_size + entry.value_size + OVERHEAD
        while self.size > self.limit:
            self.evict(self.count - 1)
        return 0

    cdef void evict(self, uint32_t keep) noexcept:
        """Let the oldest entries go, until ``keep`` are left."""
        cdef Entry* entry
        while self.count > keep:
            entry = &self.entries[self.first]
            self.size -= <uint64_t> entry.name_size + entry.value_size + OVERHEAD
            if entry.value != NULL:
                entry.value.next = self.gone
                self.gone = entry.value
            self.first = (self.first + 1) & (self.room - 1)
            self.count -= 1
