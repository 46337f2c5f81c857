# SPDX-License-Identifier: Apache-2.0
"""The W3C ``traceparent`` header (https://www.w3.org/TR/trace-context/, section 3.2)."""

from __future__ import annotations

from otelauto.flows.vocabulary import TraceContext

_HEX = frozenset(b"0123456789abcdef")
_LENGTH = 55  # 00-<32>-<16>-<2>


def text(context: TraceContext) -> bytes:
    """A header value that says ``context``."""
    flags = context.flags.to_bytes().hex()
    return f"00-{context.trace_id.hex()}-{context.span_id.hex()}-{flags}".encode()


def parse(value: bytes) -> TraceContext | None:
    """The context in a header value, ``None`` if it is not valid.

    A version above 00 may carry more fields behind the four; version ff is forbidden.
    """
    if len(value) < _LENGTH or value[2] != 0x2D or value[35] != 0x2D or value[52] != 0x2D:
        return None
    version, trace, span, flags = value[:2], value[3:35], value[36:52], value[53:55]
    if not _HEX.issuperset(version + trace + span + flags) or version == b"ff":
        return None
    if len(value) > _LENGTH and (version == b"00" or value[_LENGTH] != 0x2D):
        return None
    trace_id = bytes.fromhex(trace.decode("ascii"))
    span_id = bytes.fromhex(span.decode("ascii"))
    if not any(trace_id) or not any(span_id):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16))
