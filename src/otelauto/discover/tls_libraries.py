# SPDX-License-Identifier: Apache-2.0
"""The TLS libraries whose plaintext can be read, and where their functions are in a file.

The table knows functions, not builds: a library that keeps the names and the calling convention is
read, be it shared or linked into a program that exports them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otelauto.discover.mappings import Mapped
from otelauto.discover.symbols import functions
from otelauto.kernel.uprobes import Spot, TlsCall


@dataclass(frozen=True, slots=True)
class TlsLibrary:
    """A library by its functions. ``file`` is how its shared objects are called."""

    name: str
    file: re.Pattern[str]
    calls: Mapping[str, TlsCall]


# OpenSSL since 1.1.0; BoringSSL and LibreSSL have the same names and conventions.
OPENSSL: Final = TlsLibrary(
    "OpenSSL",
    re.compile(r"ssl"),
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
# Without one of each there is nothing to read.
_READS = (TlsCall.TLS_READ, TlsCall.TLS_READ_OUT)
_WRITES = (TlsCall.TLS_WRITE, TlsCall.TLS_WRITE_OUT)

# Programs whose TLS is their own: why nothing of it can be seen.
UNSEEN: Final = {
    "go": "Go's own TLS (crypto/tls)",
    "rust": "a TLS library without known functions, as rustls is",
    "java": "the TLS of the Java virtual machine",
}


def is_candidate(mapped: Mapped, is_program: bool) -> bool:
    """Whether a file is worth looking into: the program, or what is called like a library."""
    return is_program or any(library.file.search(mapped.name) for library in LIBRARIES)


def find_library(path: str) -> tuple[TlsLibrary, list[Spot]] | None:
    """The library that the file at ``path`` is or contains, and where its functions are in it."""
    for library in LIBRARIES:
        found = functions(path, library.calls)
        calls = {library.calls[name] for name in found}
        if calls.intersection(_READS) and calls.intersection(_WRITES):
            return library, spots(path, library, found)
    return None


def spots(path: str, library: TlsLibrary, found: Mapping[str, int]) -> list[Spot]:
    """Where probes go: one a place, in the order of the file.

    Functions that begin at one place are one function (LibreSSL's aliases): then what the last of
    the table says counts, which writes its result where it is told to.
    """
    by_offset: dict[int, TlsCall] = {}
    for name, call in library.calls.items():
        if name in found:
            by_offset[probe_offset(path, found[name])] = call
    return [Spot(offset, call) for offset, call in sorted(by_offset.items())]


def probe_offset(path: str, offset: int) -> int:
    """Where in the file the probe of the function that begins at ``offset`` is put.

    It must be a place at which the function's arguments are in their registers and its return
    address on top of the stack.
    """
    del path
    return offset


def unseen(language: str) -> str:
    """Why nothing is seen of the TLS of a program of that language; empty if that is not known."""
    return UNSEEN.get(language, "")
