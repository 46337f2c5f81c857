# SPDX-License-Identifier: Apache-2.0
from otelauto.hot.cells import Series
from otelauto.hot.spans import Template

def shape(path: bytes) -> bytes:
    """``path`` with ``*`` for each segment that looks like an identifier."""

class Row:
    """The cells of one kind of exchange, and its span's template if spans are exported."""

    def __init__(
        self,
        duration: Series | None,
        request_size: Series | None,
        response_size: Series | None,
        template: Template | None,
        counted: tuple[str, ...] | None,
    ) -> None:
        """``counted``: as what each exchange is counted (:meth:`Lane.take_counts`)."""
