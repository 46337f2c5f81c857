# SPDX-License-Identifier: Apache-2.0
"""What the flows count about themselves."""

from __future__ import annotations

from typing import Final

from otelauto.counters import Meaning

RECORDS_BAD: Final = Meaning(
    "flows_records_bad", "Ring records that are not as the contract says; dropped.", "reason"
)
RECORDS_LOST: Final = Meaning(
    "flows_records_lost",
    "Records of followed connections that never arrived (the ring was full), by gaps in the "
    "connection's record numbers.",
)
OPENINGS_MISSING: Final = Meaning(
    "flows_openings_missing",
    "Connections whose first record was lost or forgotten; their addresses are not known.",
)
EXCHANGES: Final = Meaning(
    "flows_exchanges", "Exchanges handed on, whole ones and incomplete ones."
)
EXCHANGES_INCOMPLETE: Final = Meaning(
    "flows_exchanges_incomplete",
    "Exchanges handed on although they are not whole; no histogram counts them. aborted: the "
    "connection, its process or otelauto ended first; lost: bytes were missing; expired: the "
    "connection was forgotten.",
    "reason",
)
EXCHANGES_UNCONFIRMED: Final = Meaning(
    "flows_exchanges_unconfirmed",
    "Exchanges dropped because it stayed open which request a response belonged to, on a "
    "connection joined midstream or after missing bytes.",
)
RESPONSES_UNMATCHED: Final = Meaning(
    "flows_responses_unmatched",
    "Responses skipped because their request was not seen (sent before the attach, lost, or "
    "never made).",
)
DESYNCS: Final = Meaning(
    "flows_desyncs",
    "Times that a connection's bytes made no sense, mostly because some were missing; reading "
    "goes on at the next request.",
)
HEADS_TRUNCATED: Final = Meaning(
    "flows_heads_truncated",
    "Exchanges with a message head longer than what was captured of it; fields may be missing.",
)
FIELDS_UNKNOWN: Final = Meaning(
    "flows_fields_unknown",
    "Header fields of exchanges that could not be read, because they refer to what was said before "
    "otelauto saw the connection, or while it missed bytes of it (HPACK's dynamic table).",
)
CONNECTIONS_EXPIRED: Final = Meaning(
    "flows_connections_expired",
    "Connections forgotten before their end was seen. idle: nothing passed for long; full: the "
    "table had no room.",
    "reason",
)
CONNECTIONS_UNREAD: Final = Meaning(
    "flows_connections_unread",
    "Connections that are not read, by what they carry: tls (ciphertext; the plaintext may be read "
    "beside it), a protocol that is only "
    "recognised, upgraded (a tunnel, or another protocol after its handshake), unknown, or desync "
    "(taken for a protocol in error).",
    "carries",
)
SESSIONS_UNPROVEN: Final = Meaning(
    "flows_sessions_unproven",
    "TLS sessions whose plaintext began before it was proven which connection carries them; their "
    "peer is not known until it is.",
)
