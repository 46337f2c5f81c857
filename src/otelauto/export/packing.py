# SPDX-License-Identifier: Apache-2.0
"""Messages compressed for HTTP, as the ``Content-Encoding`` of each says.

``deflate`` and ``zlib`` are both RFC 1950 (RFC 9110, section 8.4.1.2), ``gzip`` RFC 1952, ``zstd``
RFC 8878, ``snappy`` a block (google/snappy, format_description).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from otelauto.export.transport import Compression, Piece

_LEVEL: Final = 1  # of zlib
_ZSTD_LEVEL: Final = 3  # what the library takes by itself
# zlib's window: 16 more is with a gzip header.
_WINDOWS: Final = {
    Compression.GZIP: 16 + zlib.MAX_WBITS,
    Compression.DEFLATE: zlib.MAX_WBITS,
    Compression.ZLIB: zlib.MAX_WBITS,
}


def packed(pieces: Sequence[Piece], compression: Compression) -> Sequence[Piece]:
    """The pieces as one compressed message, in pieces again."""
    if compression is Compression.NONE:
        return pieces
    if compression in _WINDOWS:
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[compression])
        return [*map(packer.compress, pieces), packer.flush()]
    import cramjam  # noqa: PLC0415 - only an agent that is told to needs it

    whole = b"".join(pieces)
    if compression is Compression.SNAPPY:
        return [bytes(cramjam.snappy.compress_raw(whole))]
    return [bytes(cramjam.zstd.compress(whole, _ZSTD_LEVEL))]
