# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

class Names:
    """Encoded names (KeyValue.key) of the attributes that differ within a row."""

    def __init__(
        self, path: bytes, user_agent: bytes, request_size: bytes, response_size: bytes
    ) -> None: ...

class Template:
    """What the spans of one row have in common."""

    def __init__(
        self, names: Names, front: bytes, back: bytes, url_name: bytes | None, url: bytes | None
    ) -> None:
        """``front`` and ``back`` are encoded fields; ``url`` comes before the path in the URL."""

class Writer:
    """Writes spans. ``wall_offset_ns`` is what makes wall time of boot-clock time.

    A span is written if the random part of its trace id (the last 7 bytes) is less than
    ``sample_below``; ``sampled_out`` counts the others.
    """

    wall_offset_ns: int
    sample_below: int
    sampled_out: int

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None: ...
