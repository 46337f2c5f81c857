# SPDX-License-Identifier: Apache-2.0
"""Functions that an ELF file names."""

from __future__ import annotations

from collections.abc import Collection

from otelauto.discover.elf import ElfError, Image, Symbol


def defined(image: Image, wanted: Collection[str]) -> dict[str, Symbol]:
    """The functions ``wanted`` that the file defines; ElfError as of all that reads an Image.

    The dynamic symbols are looked through, and if they have none of them the others. Of several
    versions of a name it is the one that a new program would be linked to.
    """
    for table in (".dynsym", ".symtab"):
        found: dict[str, Symbol] = {}
        for symbol in image.functions(wanted, table):
            if not symbol.hidden or symbol.name not in found:
                found[symbol.name] = symbol
        if found:
            return found
    return {}


def functions(path: str, wanted: Collection[str]) -> dict[str, int]:
    """The file offsets at which the functions ``wanted`` begin, of those that ``path`` defines.

    Empty for files that are not ELF, are malformed, or may not be read.
    """
    try:
        with Image(path) as image:
            found = defined(image, wanted)
            return {name: image.file_offset(one.address) for name, one in found.items()}
    except ElfError:
        return {}
