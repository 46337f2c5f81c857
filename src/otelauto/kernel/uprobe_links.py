# SPDX-License-Identifier: Apache-2.0
"""Two ways to put a BPF program at places of a file, in one process only.

``BY_MULTI``: one ``BPF_TRACE_UPROBE_MULTI`` link to all of them (kernel 6.6, commit 89ae89f53d20).
``BY_PERF``: a perf event of the ``uprobe`` PMU for each (kernel 4.17, commit 33ea4b24277b), with a
link from it to the program that carries the cookie (5.15, commit b89fbfbb854c). Both need CAP_BPF
and CAP_PERFMON, change the text of the named process and of no other, and go with their
descriptors. libbpf 1.1 does not know the first, and hides the descriptors of the second.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

SYS_BPF: Final = 321  # x86-64
SYS_PERF_EVENT_OPEN: Final = 298
LINK_CREATE: Final = 28
TRACE_UPROBE_MULTI: Final = 48  # enum bpf_attach_type
PERF_EVENT: Final = 41
# union bpf_attr: prog_fd, target_fd, attach_type, flags; path, offsets, ref_ctr_offsets, cookies,
# cnt, flags, pid; and zeros.
MULTI_ATTRIBUTES: Final = struct.Struct("<IIIIQQQQIII12x")
MULTI_RETURN: Final = 1  # BPF_F_UPROBE_MULTI_RETURN
PERF_LINK_ATTRIBUTES: Final = struct.Struct("<IIIIQ40x")  # ...; bpf_cookie
# struct perf_event_attr, PERF_ATTR_SIZE_VER1: type, size, config, ..., config1, config2.
EVENT_ATTRIBUTES: Final = struct.Struct("<IIQ40xQQ")
CLOSE_ON_EXEC: Final = 8  # PERF_FLAG_FD_CLOEXEC
PMU: Final = Path("/sys/bus/event_source/devices/uprobe")

Place: TypeAlias = tuple[int, int]  # offset in the file; cookie, which the program is told

_libc = ctypes.CDLL(None, use_errno=True)


class Way(Protocol):
    """How links are made. ``attach_type`` is what programs are loaded for; ``descriptors`` how many
    a library takes, at most or so.
    """

    name: str
    attach_type: int
    descriptors: int

    def is_there(self, program: int) -> bool:
        """Whether this kernel has it; ``program`` is a descriptor of one loaded for it."""
        ...

    def create(
        self, program: int, tgid: int, path: str, places: Sequence[Place], returns: bool
    ) -> list[int]:
        """Descriptors that hold ``program`` at ``places`` (or the returns of what begins there).

        Raises OSError, ProcessLookupError if there is no such process.
        """
        ...


class _ByMulti:
    name = "uprobe_multi"
    attach_type = TRACE_UPROBE_MULTI
    descriptors = 2

    def is_there(self, program: int) -> bool:
        """The root directory is no file that has code: who says that knows such links."""
        try:
            os.close(self._link(program, 0, "/", [(0, 0)], 0))
        except OSError as error:
            return error.errno != errno.EINVAL
        return True

    def create(
        self, program: int, tgid: int, path: str, places: Sequence[Place], returns: bool
    ) -> list[int]:
        """One link."""
        return [self._link(program, tgid, path, places, MULTI_RETURN if returns else 0)]

    def _link(self, program: int, tgid: int, path: str, places: Sequence[Place], flags: int) -> int:
        name = ctypes.create_string_buffer(os.fsencode(path))
        offsets = (ctypes.c_uint64 * len(places))(*(offset for offset, _ in places))
        cookies = (ctypes.c_uint64 * len(places))(*(cookie for _, cookie in places))
        return _call(
            SYS_BPF, LINK_CREATE,
            MULTI_ATTRIBUTES.pack(
                program, 0, TRACE_UPROBE_MULTI, 0,
                ctypes.addressof(name), ctypes.addressof(offsets), 0, ctypes.addressof(cookies),
                len(places), flags, tgid,
            ),
        )  # fmt: skip


class _ByPerf:
    name = "perf events"
    attach_type = 0
    descriptors = 64

    def is_there(self, program: int) -> bool:
        """Whether there is such a PMU."""
        return (PMU / "type").exists()

    def create(
        self, program: int, tgid: int, path: str, places: Sequence[Place], returns: bool
    ) -> list[int]:
        """A link for each place, all of them or none."""
        made: list[int] = []
        try:
            for offset, cookie in places:
                event = self._event(tgid, path, offset, returns)
                try:
                    made.append(
                        _call(
                            SYS_BPF, LINK_CREATE,
                            PERF_LINK_ATTRIBUTES.pack(program, event, PERF_EVENT, 0, cookie),
                        )
                    )  # fmt: skip
                finally:
                    os.close(event)  # the link keeps it
        except OSError:
            for descriptor in made:
                os.close(descriptor)
            raise
        return made

    def _event(self, tgid: int, path: str, offset: int, returns: bool) -> int:
        kind = int((PMU / "type").read_text())
        bit = int((PMU / "format" / "retprobe").read_text().partition(":")[2])
        name = ctypes.create_string_buffer(os.fsencode(path))
        attributes = EVENT_ATTRIBUTES.pack(
            kind, EVENT_ATTRIBUTES.size, int(returns) << bit, ctypes.addressof(name), offset
        )
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        return _checked(
            _libc.syscall(SYS_PERF_EVENT_OPEN, buffer, tgid, -1, -1, ctypes.c_ulong(CLOSE_ON_EXEC))
        )


def _call(number: int, command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _checked(_libc.syscall(number, command, buffer, len(attributes)))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


BY_MULTI: Final[Way] = _ByMulti()
BY_PERF: Final[Way] = _ByPerf()
WAYS: Final = (BY_MULTI, BY_PERF)  # best first
