# SPDX-License-Identifier: Apache-2.0
"""Where the functions of Go's crypto/tls are in a program, and where to probe them.

Entries are probed where the stack check branches: an emulated instruction, at which nothing was
changed yet. Reads and handshakes are probed at each of their return instructions, too. Nothing is
taken from a table of versions: that arguments and the goroutine are in registers (Go 1.17 and
newer) is seen in the stack check, which reads the limit through the goroutine's register.
"""

from __future__ import annotations

from typing import Final

from otelauto.discover.decode import Convention, Cost, ProbePoint, probe_point, sweep
from otelauto.discover.elf import MACHINE_X86_64, ElfError, Image
from otelauto.discover.golang import Function, GoError, built_by, checks_stack, functions
from otelauto.kernel.uprobes import Spot, TlsCall

READ: Final = "crypto/tls.(*Conn).Read"
WRITE: Final = "crypto/tls.(*Conn).Write"
CALLS: Final = {
    READ: TlsCall.TLS_READ,
    WRITE: TlsCall.TLS_WRITE,
    # The linker leaves out what a program does not use: mere clients, mere servers.
    "crypto/tls.(*Conn).clientHandshake": TlsCall.TLS_HANDSHAKE,
    "crypto/tls.(*Conn).serverHandshake": TlsCall.TLS_HANDSHAKE,
    "crypto/tls.(*Conn).Close": TlsCall.TLS_FREE,
}
RETURNING: Final = (TlsCall.TLS_READ, TlsCall.TLS_HANDSHAKE)


def find_spots(image: Image) -> list[Spot]:
    """All places to probe in a program that has crypto/tls; empty if it has not.

    Raises ElfError with the reason why it cannot be probed.
    """
    try:
        return _find_spots(image)
    except ElfError as error:
        raise GoError(f"({_built_by(image)}) {error}") from error


def _built_by(image: Image) -> str:
    try:
        return built_by(image)
    except ElfError:
        return "Go of a version that it does not tell"


def _find_spots(image: Image) -> list[Spot]:
    if image.machine != MACHINE_X86_64:
        raise GoError("is for a processor whose Go programs are not understood")
    found = functions(image, CALLS)
    if READ not in found or WRITE not in found:
        return []
    return [spot for function in found.values() for spot in _spots(image, function)]


def _spots(image: Image, function: Function) -> list[Spot]:
    call = CALLS[function.name]
    point = _entry(image, function)
    spots = [Spot(point.offset, call)]
    if call in RETURNING:
        returns = sweep(image, function.start, function.end).returns
        if not returns:
            raise ElfError(f"has a {function.name} that never returns")
        spots += [Spot(image.file_offset(at), call, leaves=True, stepped=True) for at in returns]
    return spots


def _entry(image: Image, function: Function) -> ProbePoint:
    if not checks_stack(image.read(function.start, 16, short=True)):
        raise GoError(f"has a {function.name} whose arguments are not known to be in registers")
    point = probe_point(image, function.start, function.end - function.start, Convention.GO)
    if point.cost is not Cost.EMULATED:
        raise GoError(f"has a {function.name} with another beginning than expected: {point.why}")
    return point
