# SPDX-License-Identifier: Apache-2.0
# Heads of plain HTTP/1 messages (RFC 9112, sections 2 to 6). Whatever is not plain is refused: then
# the general reader (protocols/http1.py) reads it. What is accepted here says there the same.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

cdef enum:
    DIGITS_MAX = 18  # of a Content-Length, as in http1_head.py
    STATUS_FIRST = 200  # not an interim response
    STATUS_LAST = 599
    TRACEPARENT_SIZE = 55

cdef struct Span:
    const uint8_t* at
    uint32_t size

cdef struct Fields:
    uint64_t length
    bint has_length
    bint chunked
    Span host
    Span user_agent
    Span traceparent

cdef struct Request:
    Fields fields
    Span path
    uint32_t head
    uint8_t method
    bint is_head  # HEAD: the response has no body
    bint version_1_0

cdef struct Response:
    Fields fields
    uint32_t head
    uint16_t status
    bint bodiless


cdef inline bint is_word(const uint8_t* name, const char* word, uint32_t size) noexcept nogil:
    """Whether ``name`` is ``word`` (lower case), without regard to case."""
    cdef uint32_t i
    cdef uint8_t c
    for i in range(size):
        c = name[i]
        if c - 65u < 26u:
            c |= 0x20
        if c != <uint8_t> word[i]:
            return False
    return True


cdef inline bint is_printable(Span text) noexcept nogil:
    """ASCII without control characters."""
    cdef uint32_t i
    for i in range(text.size):
        if text.at[i] - 0x20u >= 0x5fu:
            return False
    return True


cdef inline bint read_decimal(Span text, uint64_t* value) noexcept nogil:
    cdef uint32_t i
    value[0] = 0
    if not 0 < text.size <= DIGITS_MAX:
        return False
    for i in range(text.size):
        if text.at[i] - 48u > 9u:
            return False
        value[0] = value[0] * 10 + (text.at[i] - 48u)
    return True


cdef inline Span stripped(const uint8_t* begin, const uint8_t* end) noexcept nogil:
    cdef Span text
    while begin < end and (begin[0] == 32 or begin[0] == 9 or begin[0] == 13):
        begin += 1
    while end > begin and ((end - 1)[0] == 32 or (end - 1)[0] == 9 or (end - 1)[0] == 13):
        end -= 1
    text.at = begin
    text.size = <uint32_t> (end - begin)
    return text


cdef inline bint is_call(Span media) noexcept nogil:
    """Whether a content type says that the body is that of a remote procedure call."""
    if media.size >= 16 and memcmp(media.at, b"application/grpc", 16) == 0:
        return True
    return media.size >= 20 and memcmp(media.at, b"application/connect+", 20) == 0


cdef inline bint take_field(
    Fields* fields, const uint8_t* name, uint32_t size, Span value, bint asks
) noexcept nogil:
    """Take note of one field line; false if the message is not plain. ``asks``: of a request."""
    if size == 14 and is_word(name, b"content-length", 14):
        if fields.has_length or not read_decimal(value, &fields.length):
            return False
        fields.has_length = True
    elif size == 17 and is_word(name, b"transfer-encoding", 17):
        if asks or fields.chunked or value.size != 7 or not is_word(value.at, b"chunked", 7):
            return False
        fields.chunked = True
    elif not asks:
        return True
    elif size == 4 and is_word(name, b"host", 4):
        if fields.host.at == NULL:
            fields.host = value
            return is_printable(value)
    elif size == 10 and is_word(name, b"user-agent", 10):
        if fields.user_agent.at == NULL:
            fields.user_agent = value
            return is_printable(value)
    elif size == 11 and is_word(name, b"traceparent", 11):
        if fields.traceparent.at != NULL:
            return False
        fields.traceparent = value
        return is_traceparent(value)
    elif size == 6 and is_word(name, b"expect", 6):
        return False
    elif size == 7 and is_word(name, b"upgrade", 7):
        return False
    elif size == 12 and is_word(name, b"content-type", 12):
        return not is_call(value)
    elif size == 24 and is_word(name, b"connect-protocol-version", 24):
        return False
    return True


cdef inline int hex_value(uint8_t c) noexcept nogil:
    """The value of a lower-case hexadecimal digit, -1 for anything else."""
    if c - 48u <= 9u:
        return c - 48
    if c - 97u <= 5u:
        return c - 87
    return -1


cdef inline bint is_hex(const uint8_t* at, uint32_t size, bint not_zero) noexcept nogil:
    cdef uint32_t i
    cdef bint any_set = False
    for i in range(size):
        if hex_value(at[i]) < 0:
            return False
        any_set |= at[i] != 48
    return any_set or not not_zero


cdef inline bint is_traceparent(Span text) noexcept nogil:
    """A valid one without anything behind its four fields (Trace Context, section 3.2)."""
    cdef const uint8_t* at = text.at
    if text.size != TRACEPARENT_SIZE or at[2] != 45 or at[35] != 45 or at[52] != 45:
        return False
    if not is_hex(at, 2, False) or (at[0] == 102 and at[1] == 102):
        return False
    return is_hex(at + 3, 32, True) and is_hex(at + 36, 16, True) and is_hex(at + 53, 2, False)


cdef inline uint32_t read_fields(
    Fields* fields, const uint8_t* data, uint32_t at, uint32_t size, bint asks
) noexcept nogil:
    """The offset behind the empty line, 0 if it is not there or the message is not plain."""
    cdef const uint8_t* line
    cdef const uint8_t* newline
    cdef const uint8_t* colon
    while True:
        line = data + at
        newline = <const uint8_t*> memchr(line, 10, size - at)
        if newline == NULL or newline == line or (newline - 1)[0] != 13:
            return 0
        at = <uint32_t> (newline - data) + 1
        if newline == line + 1:
            return at
        colon = <const uint8_t*> memchr(line, 58, newline - line)
        if colon == NULL or line[0] == 32 or line[0] == 9:
            return 0
        if not take_field(
            fields, line, <uint32_t> (colon - line), stripped(colon + 1, newline), asks
        ):
            return 0


cdef inline uint8_t method_of(const uint8_t* word, uint32_t size) noexcept nogil:
    """A number for each known method but CONNECT, 0 for all others. HEAD is 2."""
    if size == 3:
        if memcmp(word, b"GET", 3) == 0:
            return 1
        if memcmp(word, b"PUT", 3) == 0:
            return 3
    elif size == 4:
        if memcmp(word, b"POST", 4) == 0:
            return 4
        if memcmp(word, b"HEAD", 4) == 0:
            return 2
    elif size == 5:
        if memcmp(word, b"PATCH", 5) == 0:
            return 5
        if memcmp(word, b"QUERY", 5) == 0:
            return 6
        if memcmp(word, b"TRACE", 5) == 0:
            return 7
    elif size == 6 and memcmp(word, b"DELETE", 6) == 0:
        return 8
    elif size == 7 and memcmp(word, b"OPTIONS", 7) == 0:
        return 9
    return 0


cdef inline bint read_target(Span* path, Span target, bint queries) noexcept nogil:
    """The path of a plain request target. ``queries``: a query is not plain."""
    cdef uint32_t i
    path[0] = target
    if target.size == 0 or target.at[0] != 47:
        return False
    for i in range(target.size):
        if target.at[i] - 0x21u >= 0x5eu:
            return False
        if path.size == target.size and (target.at[i] == 63 or target.at[i] == 35):
            if queries:
                return False
            path.size = i
    return True


cdef inline bint read_request(
    Request* request, const uint8_t* data, uint32_t size, bint queries
) noexcept nogil:
    """A whole plain request head at the front of ``data``. ``queries``: a query is not plain."""
    cdef const uint8_t* space = <const uint8_t*> memchr(data, 32, size if size < 8 else 8)
    cdef const uint8_t* newline
    cdef const uint8_t* version
    cdef Span target
    if space == NULL:
        return False
    request.method = method_of(data, <uint32_t> (space - data))
    request.is_head = request.method == 2
    newline = <const uint8_t*> memchr(space, 10, size - (space - data))
    if request.method == 0 or newline == NULL or newline - space < 12 or (newline - 1)[0] != 13:
        return False
    version = newline - 9
    if memcmp(version - 1, b" HTTP/1.", 8) != 0 or version[7] - 48u > 1u:
        return False
    request.version_1_0 = version[7] == 48
    target.at, target.size = space + 1, <uint32_t> (version - 1 - (space + 1))
    if not read_target(&request.path, target, queries):
        return False
    request.head = read_fields(&request.fields, data, <uint32_t> (newline - data) + 1, size, True)
    return request.head != 0 and request.fields.host.size != 0


cdef inline bint read_response(
    Response* response, const uint8_t* data, uint32_t size, bint to_head
) noexcept nogil:
    """A whole plain head of a final response. ``to_head``: the request was a HEAD."""
    cdef const uint8_t* newline = <const uint8_t*> memchr(data, 10, size)
    cdef Span digits
    cdef uint64_t status
    if newline == NULL or newline - data < 13 or (newline - 1)[0] != 13:
        return False
    if memcmp(data, b"HTTP/1.", 7) != 0 or data[7] - 48u > 1u or data[8] != 32:
        return False
    digits.at = data + 9
    digits.size = 3
    if not read_decimal(digits, &status) or not STATUS_FIRST <= status <= STATUS_LAST:
        return False
    if data[12] != 32 and newline != data + 13:
        return False
    response.status = <uint16_t> status
    response.bodiless = to_head or status == 204 or status == 304
    response.head = read_fields(
        &response.fields, data, <uint32_t> (newline - data) + 1, size, False
    )
    if response.head == 0:
        return False
    return response.bodiless or response.fields.has_length != response.fields.chunked
