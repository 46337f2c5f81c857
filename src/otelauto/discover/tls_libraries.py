# SPDX-License-Identifier: Apache-2.0
"""The TLS libraries whose plaintext can be read, and where their functions are in a file.

The table knows functions, not builds: a library that keeps the names and the calling convention is
read, be it shared or linked into a program that exports them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otelauto.discover import elf, go_tls
from otelauto.discover.decode import probe_point
from otelauto.discover.elf import ElfError, Image, Symbol
from otelauto.discover.mappings import Mapped
from otelauto.discover.symbols import defined
from otelauto.kernel.uprobes import Spot, TlsCall

log = logging.getLogger("otelauto.discover")


@dataclass(frozen=True, slots=True)
class TlsLibrary:
    """A library by its functions. ``file`` is how its shared objects are called."""

    name: str
    file: re.Pattern[str]
    calls: Mapping[str, TlsCall]


# OpenSSL since 1.1.0; BoringSSL and LibreSSL have the same names and conventions. Netty's native
# library and the module of Python's curl_cffi have a BoringSSL inside, with its symbols.
OPENSSL: Final = TlsLibrary(
    "OpenSSL",
    re.compile(r"ssl|netty_tcnative|^_wrapper\.abi3\."),
    {
        "SSL_read": TlsCall.TLS_READ,
        "SSL_read_ex": TlsCall.TLS_READ_OUT,
        "SSL_read_early_data": TlsCall.TLS_READ_OUT,
        "SSL_write": TlsCall.TLS_WRITE,
        "SSL_write_ex": TlsCall.TLS_WRITE_OUT,
        "SSL_write_early_data": TlsCall.TLS_WRITE_OUT,
        "SSL_do_handshake": TlsCall.TLS_HANDSHAKE,
        "SSL_free": TlsCall.TLS_FREE,
    },
)
GNUTLS: Final = TlsLibrary(
    "GnuTLS",
    re.compile(r"gnutls"),
    {
        "gnutls_record_recv": TlsCall.TLS_READ,
        "gnutls_record_recv_seq": TlsCall.TLS_READ,
        "gnutls_record_send": TlsCall.TLS_WRITE,
        "gnutls_record_send2": TlsCall.TLS_WRITE,
        "gnutls_handshake": TlsCall.TLS_HANDSHAKE,
        "gnutls_deinit": TlsCall.TLS_FREE,
    },
)
LIBRARIES: Final = (OPENSSL, GNUTLS)
# Has a calling convention of its own, and is found by Go's own tables (go_tls.py).
GO: Final = TlsLibrary("crypto/tls", re.compile(r"(?!)"), go_tls.CALLS)
# Without one of each there is nothing to read.
_READS = (TlsCall.TLS_READ, TlsCall.TLS_READ_OUT)
_WRITES = (TlsCall.TLS_WRITE, TlsCall.TLS_WRITE_OUT)

# OpenSSL's functions that do nothing but call one and the same, with or without a place for the
# result; that one may be much cheaper to probe.
_WRAPPERS = (("SSL_read", "SSL_read_ex"), ("SSL_write", "SSL_write_ex"))

# Programs whose TLS is their own: why nothing of it can be seen.
UNSEEN: Final = {
    "go": "Go without crypto/tls; the TLS of another package is not known",
    "rust": "a TLS library without known functions, as rustls is",
    "java": "the TLS of the Java virtual machine",
}


def is_candidate(mapped: Mapped, is_program: bool) -> bool:
    """Whether a file is worth looking into: the program, or what is called like a library."""
    return is_program or any(library.file.search(mapped.name) for library in LIBRARIES)


def find_library(path: str) -> tuple[TlsLibrary, list[Spot]] | None:
    """The library that the file at ``path`` is or contains, and where its functions are in it.

    Raises ElfError with the reason why a Go program's cannot be probed.
    """
    try:
        image = Image(path)
    except ElfError:
        return None
    with image:
        if elf.is_go(image):
            places = go_tls.find_spots(image)
            found = (GO, places) if places else None
        else:
            try:
                found = _find_named(image)
            except ElfError:
                return None
        if found:
            log.debug("%s in %s, build id %s: %s", found[0].name, path, image.build_id, found[1])
        return found


def _find_named(image: Image) -> tuple[TlsLibrary, list[Spot]] | None:
    """The library whose functions the file names."""
    for library in LIBRARIES:
        named = defined(image, library.calls)
        calls = {library.calls[name] for name in named}
        if calls.intersection(_READS) and calls.intersection(_WRITES):
            return library, spots(image, library, named)
    return None


def spots(image: Image, library: TlsLibrary, found: Mapping[str, Symbol]) -> list[Spot]:
    """Where probes go: one a place, in the order of the file.

    Functions that begin at one place are one function (LibreSSL's aliases): then what the last of
    the table says counts, which writes its result where it is told to.
    """
    points = {
        name: probe_point(image, symbol.address, symbol.size, returning=True)
        for name, symbol in found.items()
    }
    for pair in _WRAPPERS:
        inner = [
            probe_point(image, one.address, one.size, returning=True, follow_calls=True)
            for one in (found.get(name) for name in pair)
            if one is not None
        ]
        # Both are wrappers of one function, which is of the second's kind then: it gets the
        # second's arguments as they are.
        is_one = len({point.offset for point in inner}) == 1 and len(inner) == len(pair)
        if is_one and all(point.inner for point in inner):
            points.update(zip(pair, inner, strict=True))
    by_offset: dict[int, Spot] = {}
    for name, call in library.calls.items():
        if point := points.get(name):
            by_offset[point.offset] = Spot(point.offset, call, stepped=bool(point.why))
    return [by_offset[offset] for offset in sorted(by_offset)]


def unseen(language: str) -> str:
    """Why nothing is seen of the TLS of a program of that language; empty if that is not known."""
    return UNSEEN.get(language, "")
