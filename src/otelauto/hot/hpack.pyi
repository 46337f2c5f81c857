# SPDX-License-Identifier: Apache-2.0
class Decoder:
    """One direction's dynamic table (RFC 7541), and the decoding of its header blocks, in order."""

    @property
    def complete(self) -> bool:
        """Whether every entry of the table is known."""

    def lose(self) -> None:
        """Blocks were missed: nothing that was inserted so far can be relied on."""

    def decode(self, data: bytes, cut: bool = False) -> tuple[dict[bytes, bytes], int] | None:
        """The fields of a whole header block that somebody asks for, or of the beginning of one.

        By name; of a repeated one the last. Then how many fields of the block are unknown. ``None``
        if ``data`` is no header block, or refers to what cannot be there.
        """
