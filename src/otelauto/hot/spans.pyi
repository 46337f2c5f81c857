# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

class Names:
    """Encoded names (KeyValue.key) of the attributes that differ within a row."""

    def __init__(
        self,
        path: bytes,
        user_agent: bytes,
        request_size: bytes,
        response_size: bytes,
        request_messages: bytes,
        response_messages: bytes,
        timeout: bytes,
        message: bytes,
    ) -> None: ...

class Policy:
    """Which spans of a row are sampled: those whose trace number is below a threshold."""

    def __init__(self, root: int, sampled: int, unsampled: int, always: bool) -> None:
        """Thresholds of spans without parent and with, by its flag. ``always``: all are kept."""

class Template:
    """What the spans of one row have in common."""

    def __init__(
        self,
        names: Names,
        front: bytes,
        back: bytes,
        url_name: bytes | None,
        url: bytes | None,
        policy: Policy,
    ) -> None:
        """``front`` and ``back`` are encoded fields; ``url`` comes before the path in the URL."""

class Writer:
    """Writes spans. ``wall_offset_ns`` is what makes wall time of boot-clock time.

    A span is written if its row's policy samples it, or if it took ``keep_slow_ns`` (unless that is
    0), and if the random part of its trace id (the last 7 bytes) is less than ``sample_below``;
    ``unsampled`` and ``sampled_out`` count the others. ``exemplars``: a written span is one of its
    row's cells.
    """

    wall_offset_ns: int
    sample_below: int
    sampled_out: int
    unsampled: int
    keep_slow_ns: int
    exemplars: bool

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """``random_bytes`` is asked once, for what the ids are made from."""
