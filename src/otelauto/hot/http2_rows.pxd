# SPDX-License-Identifier: Apache-2.0
# Which exchanges of HTTP/2 are plain, so that rows say what becomes of them. What is said of them
# here is what protocols/http1_describe.py and protocols/grpc.py would say.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

from otelauto.hot.http1 cimport (
    DIGITS_MAX, STATUS_FIRST, STATUS_LAST, Span as Text, is_printable, is_traceparent, method_of,
    read_decimal, read_target,
)
from otelauto.hot.ledger cimport (
    CALL, CLIENT, HTTPS, REQUEST_SIZE, RESPONSE_SIZE, VERSION_2, Ledger, Party,
)
from otelauto.hot.rows cimport Key
from otelauto.hot.spans cimport Variable
from otelauto.hot.streams cimport GRPC, NO_CALL, WHOLE, Exchange, Message

cdef enum:
    UNIMPLEMENTED = 12  # gRPC's status codes are 0 to 16
    CODE_LAST = 16
    TIMEOUT_DIGITS_MAX = 8
    SAID_MAX = 256  # bytes of a status message


cdef inline bint is_exact(const Message* m) noexcept nogil:
    return m.complete and not m.inexact


cdef inline bint has_messages(const Message* m) noexcept nogil:
    return is_exact(m) and m.count.wanted and not m.count.inexact


cdef inline bint read_timeout(Text text, double* seconds) noexcept nogil:
    """``grpc-timeout``; false: it is not valid."""
    cdef uint64_t number
    if text.size < 2 or text.size > TIMEOUT_DIGITS_MAX + 1:
        return False
    text.size -= 1
    if not read_decimal(text, &number):
        return False
    seconds[0] = <double> number
    if text.at[text.size] == 72:  # H
        seconds[0] *= 3600.0
    elif text.at[text.size] == 77:  # M
        seconds[0] *= 60.0
    elif text.at[text.size] == 109:  # m
        seconds[0] *= 1e-3
    elif text.at[text.size] == 117:  # u
        seconds[0] *= 1e-6
    elif text.at[text.size] == 110:  # n
        seconds[0] *= 1e-9
    return text.at[text.size] == 83 or memchr(b"HMmun", text.at[text.size], 5) != NULL  # S


cdef inline bint read_call(Key* key, Variable* v, Exchange* x) noexcept nogil:
    """A call of gRPC with a status that is known; false if it is not plain."""
    cdef uint64_t code
    cdef Text said = x.grpc_message
    if x.call != GRPC or not 0 < x.grpc_status.size <= 2 or not read_decimal(x.grpc_status, &code):
        return False
    if code > CODE_LAST or (x.grpc_status.size == 2 and code < 10):
        return False
    # Maybe no such method: what strangers choose is not remembered.
    if code == UNIMPLEMENTED and not key.bits & CLIENT:
        return False
    if said.size and (
        said.size > SAID_MAX or not is_printable(said) or memchr(said.at, 37, said.size) != NULL
    ):
        return False
    key.status = <uint16_t> code
    key.bits |= CALL
    v.message = said
    v.has_timeout = read_timeout(x.timeout, &v.timeout)
    v.has_request_size = v.has_request_messages = has_messages(&x.request)
    v.has_response_size = v.has_response_messages = has_messages(&x.response)
    v.request_size, v.request_messages = x.request.count.size, x.request.count.messages
    v.response_size, v.response_messages = x.response.count.size, x.response.count.messages
    v.path.at, v.path.size = NULL, 0
    v.user_agent = v.path
    return True


cdef inline bint read_http(Key* key, Variable* v, Exchange* x) noexcept nogil:
    if x.call != NO_CALL or not STATUS_FIRST <= x.status <= STATUS_LAST:
        return False
    if not is_exact(&x.request) or not is_exact(&x.response):
        return False
    key.method = method_of(x.method.at, x.method.size)
    key.status = x.status
    v.has_request_size = x.request.has_body
    v.has_response_size = x.response.has_body or x.response.declared == 0
    v.request_size, v.response_size = x.request.body_size, x.response.body_size
    if v.has_request_size:
        key.bits |= REQUEST_SIZE
    if v.has_response_size:
        key.bits |= RESPONSE_SIZE
    return key.method != 0


cdef inline bint publish_exchange(
    Ledger ledger, Party* party, Exchange* x, bint asks, bint queries
) except -1:
    """False: the exchange is not plain, or what comes of its kind is not known."""
    cdef Key key
    cdef Variable v
    cdef Text path
    memset(&key, 0, sizeof(key))
    memset(&v, 0, sizeof(v))
    if (x.fate != WHOLE or x.reset >= 0 or not x.response.there or x.tgid != party.tgid
            or x.request.truncated or x.response.truncated or x.request.unknown
            or x.response.unknown or x.authority.size == 0 or not is_printable(x.authority)
            or not is_printable(x.user_agent)):
        return False
    if not read_target(&path, x.target, queries or x.call != NO_CALL):
        return False
    if x.traceparent.at != NULL and not is_traceparent(x.traceparent):
        return False
    if x.scheme.size == 5 and memcmp(x.scheme.at, b"https", 5) == 0:
        key.bits = HTTPS
    elif x.scheme.size != 4 or memcmp(x.scheme.at, b"http", 4) != 0:
        return False
    key.bits |= VERSION_2 | (CLIENT if asks else 0)
    v.start_ns, v.end_ns = x.request.start_ns, max(x.request.start_ns, x.response.end_ns)
    v.path, v.user_agent, v.traceparent = path, x.user_agent, x.traceparent
    if not read_call(&key, &v, x) and not read_http(&key, &v, x):
        return False
    return ledger.publish(party, &key, path, x.authority, &v)
