# SPDX-License-Identifier: Apache-2.0
"""What the kernel half counts, and what each of its counters means."""

from __future__ import annotations

from typing import Final

from otelauto import abi
from otelauto.counters import Meaning

RECORDS_PRODUCED: Final = Meaning(
    "kernel_records_produced", "Records that the kernel half produced, delivered or dropped."
)
RECORDS_DELIVERED: Final = Meaning(
    "records_delivered", "Records read from the kernel's ring: produced = delivered + dropped."
)
RECORDS_DROPPED: Final = Meaning(
    "kernel_records_dropped",
    "What the kernel half could not deliver. ring_full: records, user space was too slow; "
    "state_refused: segments, no room for a socket's state (net.core.optmem_max); "
    "event_ring_full: process events, healed by the next scan of /proc; target_refused: children "
    "of watched processes, the table of targets was full.",
    "reason",
)
SEGMENTS_UNREAD: Final = Meaning(
    "kernel_segments_unread",
    "Segments whose bytes passed but could not be copied. fault: memory not readable; compat_task: "
    "a 32-bit caller; other_call: sendfile, splice, io_uring; message_trunc: MSG_TRUNC; vectors: "
    "more I/O vectors than are read; plaintext_busy, plaintext_call: TLS calls, no room to put a "
    "record together, or displaced by another on the thread.",
    "reason",
)
BYTES_UNREAD: Final = Meaning("kernel_bytes_unread", "Bytes of the segments that were not copied.")
BYTES_UNSEEN: Final = Meaning(
    "kernel_bytes_unseen", "Bytes that TCP sequence numbers prove and that passed no hook (splice)."
)
EVENTS_PRODUCED: Final = Meaning("kernel_events_produced", "Process events produced.")
PROGRAM_MISSES: Final = Meaning(
    "kernel_program_misses",
    "Times that a BPF program was not run because it was running already on that CPU.",
    "program",
)

KERNEL_COUNTERS: Final[dict[abi.Counter, tuple[Meaning, str]]] = {
    abi.Counter.RECORDS_PRODUCED: (RECORDS_PRODUCED, ""),
    abi.Counter.DROP_RING_FULL: (RECORDS_DROPPED, "ring_full"),
    abi.Counter.DROP_STATE_REFUSED: (RECORDS_DROPPED, "state_refused"),
    abi.Counter.DROP_EVENT_RING_FULL: (RECORDS_DROPPED, "event_ring_full"),
    abi.Counter.DROP_TARGET_REFUSED: (RECORDS_DROPPED, "target_refused"),
    abi.Counter.UNREAD_FAULT: (SEGMENTS_UNREAD, "fault"),
    abi.Counter.UNREAD_COMPAT_TASK: (SEGMENTS_UNREAD, "compat_task"),
    abi.Counter.UNREAD_OTHER_CALL: (SEGMENTS_UNREAD, "other_call"),
    abi.Counter.UNREAD_MESSAGE_TRUNC: (SEGMENTS_UNREAD, "message_trunc"),
    abi.Counter.UNREAD_VECTORS: (SEGMENTS_UNREAD, "vectors"),
    abi.Counter.BYTES_UNREAD: (BYTES_UNREAD, ""),
    abi.Counter.BYTES_UNSEEN: (BYTES_UNSEEN, ""),
    abi.Counter.UNREAD_PLAINTEXT_BUSY: (SEGMENTS_UNREAD, "plaintext_busy"),
    abi.Counter.UNREAD_PLAINTEXT_CALL: (SEGMENTS_UNREAD, "plaintext_call"),
    abi.Counter.EVENTS_PRODUCED: (EVENTS_PRODUCED, ""),
}
